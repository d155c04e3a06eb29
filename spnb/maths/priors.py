"""Priors: from one distribution, or a rule, to a distribution for every parameter.

A prior is a `pyro.distributions` object for all parameters, or a function
``(name, parameter) -> distribution | None``, where None leaves the parameter
deterministic: a single value, learned as in a plain network. A function that wants to know the
layer finds it by name, ``net.get_submodule(name.rpartition(".")[0])``.

Two rules are ready made: `fan_in`, which keeps the size of the signal from layer to layer
(Neal, *Bayesian Learning for Neural Networks*, 1996, chapter 2), and `scale_mixture`, the
spike-and-slab-like mixture of two normals of Blundell et al. (arXiv 1505.05424, eq. 7).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin as Distribution
from torch import Tensor, nn
from torch.distributions import constraints

from spnb.maths import layers

Rule = Callable[[str, Tensor], Distribution | None]
Prior = Distribution | Rule


_PLACES: ContextVar[dict[int, list[layers.Place]]] = ContextVar("places", default={})  # noqa: B039
"""Where the parameters of the net stand whose priors are being found, by their identity."""


@contextmanager
def of_net(net: nn.Module) -> Iterator[None]:
    """Within the block, rules such as `fan_in` know in which layers of a net parameters stand."""
    found: dict[int, list[layers.Place]] = {}
    for _, parameter, place in layers.places(net):
        found.setdefault(id(parameter), []).append(place)
    token = _PLACES.set(found)
    try:
        yield
    finally:
        _PLACES.reset(token)


def fan_in(gain: float = 1.0) -> Rule:
    """Normal priors whose scale shrinks with the number of inputs of each unit.

    A weight that takes part in a sum over n inputs gets ``Normal(0, gain / sqrt(n))``, so that the
    sum has variance ``gain**2`` whatever the width, for inputs of unit variance. What n is depends
    on the layer:

    ============================================== ============================================
    parameter                                      n inputs, and the mean if it is not 0
    ============================================== ============================================
    weight of `Linear`                             its inputs
    weight of `Bilinear`                           products of its two inputs
    weight of a convolution                        channels of a group × size of the filter
    weight of a transposed convolution             channels of a group × size of the filter over
                                                   the stride, the mean over its outputs
    ``in_proj``, ``q/k/v_proj`` of attention       the dimension of queries, keys, values
    weights of `RNN`, `LSTM`, `GRU`                inputs and state together
    weight of `Embedding`, `EmbeddingBag`          1: it is looked up
    biases, ``bias_k`` and ``bias_v``              1
    weight of a normalisation layer                1, around 1
    slopes of `PReLU`                              1, around their initial value
    under `parametrizations.weight_norm`           1 for the lengths; directions as the weight
    tied weights                                   the larger of the two
    of other modules, by name: ``*weight``         all dimensions but the first; around 1 if
                                                   there is but one
    ``*bias*``, ``*pos*``, ``*embed*``,            1: tables of positions or relative biases,
    ``*token*``, ``*table*``, ``*scale*``,         class tokens, layer scales
    ``*gamma*``, ``*beta*``, ``*shift*``
    ============================================== ============================================

    What is in no line of the table is refused; give its prior by a rule of your own, which calls
    this one for everything else.

    Args:
        gain: standard deviation of a unit's sum for inputs of unit variance, > 0.

    Returns:
        A rule to pass as ``prior`` to `spnb.BayesianModel`. Called by itself, without a model, it
        knows no layers and takes each parameter of two or more dimensions as a weight.

    Raises:
        ValueError: by the rule, for a parameter of which it is not known how it is used.
    """
    if not gain > 0:
        raise ValueError(f"gain={gain} must be positive.")

    return _FanIn(gain)


@dataclass(frozen=True)
class _FanIn:
    """The rule of `fan_in`: a class, so that it can be sent to other processes."""

    gain: float

    def __call__(self, name: str, parameter: Tensor) -> Distribution:
        shape = tuple(parameter.shape)
        places = _PLACES.get().get(id(parameter))
        if places is None:
            sums = [layers.by_name("weight" if len(shape) > 1 else name, shape)]
        else:
            sums = [layers.sum_of(place, shape) for place in places]
        known = [found for found in sums if found is not None]
        if len(known) < len(sums):
            raise ValueError(_unknown(name, shape, (places or [])[sums.index(None)].layer))
        narrowest = max(known, key=lambda found: found.inputs)
        return dist.Normal(float(narrowest.centre), self.gain / math.sqrt(narrowest.inputs))


def _unknown(name: str, shape: tuple[int, ...], layer: nn.Module) -> str:
    return (
        f"fan_in does not know how many inputs meet '{name}', {shape}, in a {type(layer).__name__}:"
        f" give its prior by a rule such as lambda name, p: Normal(0, 0.1) if name == '{name}' "
        "else fan_in(name, p), with fan_in = spnb.priors.fan_in()."
    )


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
