"""Priors: from one distribution, or a rule, to a distribution for every parameter.

A prior is a `pyro.distributions` object for all parameters, or a function
``(name, parameter) -> distribution | None``, where None leaves the parameter
deterministic: a single value, learned as in a plain network.

Two rules are ready made: `fan_in`, which keeps the size of the signal from layer to layer
(Neal, *Bayesian Learning for Neural Networks*, 1996, chapter 2), and `scale_mixture`, the
spike-and-slab-like mixture of two normals of Blundell et al. (arXiv 1505.05424, eq. 7).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin as Distribution
from torch import Tensor, nn
from torch.distributions import constraints

Rule = Callable[[str, Tensor], Distribution | None]
Prior = Distribution | Rule


def fan_in(gain: float = 1.0) -> Rule:
    """Normal priors whose scale shrinks with the number of inputs of each unit.

    A weight of two or more dimensions gets ``Normal(0, gain / sqrt(fan_in))``, so that the sum
    over a unit's inputs has variance ``gain**2`` whatever the width. A bias gets
    ``Normal(0, gain)``. A one-dimensional parameter called ``weight`` is the gain of a
    normalisation layer and gets ``Normal(1, gain)``.

    Args:
        gain: standard deviation of a unit's sum for inputs of unit variance, > 0.

    Returns:
        A rule to pass as ``prior`` to `spnb.BayesianModel`.
    """
    if not gain > 0:
        raise ValueError(f"gain={gain} must be positive.")

    def rule(name: str, parameter: Tensor) -> Distribution:
        if parameter.dim() >= 2:
            inputs = parameter[0].numel()
            return dist.Normal(0.0, gain / math.sqrt(inputs))
        is_norm_gain = parameter.dim() == 1 and name.rpartition(".")[2] == "weight"
        return dist.Normal(1.0 if is_norm_gain else 0.0, gain)

    return rule


def scale_mixture(weight: float = 0.5, wide: float = 1.0, narrow: float = 0.0025) -> Prior:
    """A mixture of a wide and a narrow normal around zero (arXiv 1505.05424, eq. 7).

    Its divergence from a normal has no closed form and is estimated from the draws.

    Args:
        weight: probability of the wide component, between 0 and 1.
        wide: standard deviation of the wide component.
        narrow: standard deviation of the narrow component.

    Returns:
        A scalar distribution, to pass as ``prior`` to `spnb.BayesianModel`.
    """
    if not 0 < weight < 1:
        raise ValueError(f"weight={weight} must lie between 0 and 1, both excluded.")
    return dist.MixtureSameFamily(
        dist.Categorical(probs=torch.tensor([weight, 1 - weight])),
        dist.Normal(torch.zeros(2), torch.tensor([wide, narrow])),
    )


def resolve(prior: Prior, name: str, parameter: nn.Parameter) -> Distribution | None:
    """The prior of one parameter, shaped like it, on its device and in its precision.

    Args:
        prior: a distribution or a rule.
        name: the parameter's name in its module.
        parameter: the parameter, of any shape.

    Returns:
        A distribution whose event is the whole parameter (``event_shape == parameter.shape``),
        or None if the parameter is to stay deterministic.

    Raises:
        TypeError: the rule returned something that is no distribution.
        ValueError: the distribution's shape or support does not fit.
    """
    given = (
        prior(name, parameter) if callable(prior) and not isinstance(prior, Distribution) else prior
    )
    if given is None:
        return None
    if not isinstance(given, Distribution):
        raise TypeError(
            f"The prior of '{name}' is a {type(given).__name__}, not one of pyro.distributions; "
            "give one of those, or None to leave the parameter deterministic."
        )
    _check_support(given, name)
    given = like(given, parameter)
    shape = tuple(given.batch_shape + given.event_shape)
    if shape == ():
        return given.expand(parameter.shape).to_event(parameter.dim())
    if shape == tuple(parameter.shape):
        return given.to_event(len(given.batch_shape))
    raise ValueError(
        f"The prior of '{name}' has shape {shape}, the parameter {tuple(parameter.shape)}: "
        f"give a scalar distribution, or one of shape {tuple(parameter.shape)}."
    )


def like(distribution: Distribution, tensor: Tensor) -> Distribution:
    """The same distribution on a tensor's device and in its precision.

    Distributions are rebuilt from their parameters (``arg_constraints``); mixtures and
    independent ones from their parts.
    """
    if isinstance(distribution, torch.distributions.Independent):
        inner = like(distribution.base_dist, tensor)
        return inner.to_event(distribution.reinterpreted_batch_ndims)
    if isinstance(distribution, torch.distributions.MixtureSameFamily):
        return type(distribution)(
            like(distribution.mixture_distribution, tensor),
            like(distribution.component_distribution, tensor),
        )
    names = [name for name in distribution.arg_constraints if name in distribution.__dict__]
    if {"probs", "logits"} <= set(names):  # two names of one thing; a constructor takes one
        names.remove("logits")
    parameters = {name: getattr(distribution, name) for name in names}
    fits = all(
        isinstance(value, Tensor)
        and value.device == tensor.device
        and (value.dtype == tensor.dtype or not value.is_floating_point())
        for value in parameters.values()
    )
    if fits:
        return distribution
    moved = {
        name: _moved(value, tensor)
        for name, value in parameters.items()
        if isinstance(value, Tensor)
    }
    return type(distribution)(**moved, validate_args=False)  # they were valid before


def _moved(value: Tensor, tensor: Tensor) -> Tensor:
    """A value to the tensor's device and precision; one that was expanded stays one number."""
    own = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in value.stride())
    moved = value[own].to(tensor if value.is_floating_point() else tensor.device)
    return moved.expand(value.shape)


def _check_support(distribution: Distribution, name: str) -> None:
    """Weights are real numbers: a prior on half the line would be silently cut."""
    support = distribution.support
    while hasattr(support, "base_constraint"):  # of independent elements, of a mixture
        support = support.base_constraint
    if not isinstance(support, type(constraints.real)):
        raise ValueError(
            f"The prior of '{name}' is a {type(distribution).__name__} with support "
            f"{support}; a weight may be any real number, so use a prior on the whole line."
        )
