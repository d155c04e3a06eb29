"""Posteriors: what turns sample indices into weights.

A posterior offers three things, and parallelism over samples is then written once for all of
them: `prepare`, what is computed once a step; `draw`, sample indices to weights; and the
divergence from the prior. The noise of sample s comes from a *key* that is a function of
``(seed, step, s)`` alone, so the same index gives the same weights on any process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin as Distribution
from torch import Tensor, nn
from torch.distributions import kl_divergence

from spnb.maths.models import BayesianModel


class Key(Protocol):
    """A name for a stream of random numbers (`spnb.Key`)."""

    def fold(self, *names: int | str) -> Key:
        """The key of a stream within this one."""

    def generator(self, device: Any = "cpu") -> torch.Generator:
        """A generator at the beginning of the stream."""


class Posterior(nn.Module):
    """Base of all posteriors.

    Its parameters are what training changes, and nothing else: the model, whose own parameters are
    only where the posterior starts, is held outside of the module's registry.

    Args:
        model: the Bayesian model whose weights are to be learned.

    Attributes:
        point: ``[D]``, the deterministic parameters of the model, learned as in a plain net; a
            parameter only if there are any.
    """

    point: Tensor

    #: names of parameters that weight decay must leave alone: it would pull a standard deviation
    #: towards the value at zero, softplus(0) = 0.69, and no prior asks for it
    undecayed: tuple[str, ...] = ()

    def __init__(self, model: BayesianModel) -> None:
        super().__init__()
        self._model = (model,)
        point = model.flatten(model.deterministic)
        if len(point):
            self.point = nn.Parameter(point)
        else:
            self.register_buffer("point", point, persistent=False)

    @property
    def model(self) -> BayesianModel:
        """The Bayesian model."""
        return self._model[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Posterior:
        """Take the model along to another device or precision."""
        super()._apply(fn, recurse)
        self.model._apply(fn, recurse)
        return self

    def label(self, name: str, index: int) -> str:
        """Which of the net's parameters an element of a trained one belongs to, for messages."""
        sites = self.model.deterministic if name == "point" else self.model.drawn
        for site in sites:
            if index < site.shape.numel():
                return f"'{site.name}' ({name})"
            index -= site.shape.numel()
        raise IndexError(f"'{name}' has no element {index}.")

    def prepare(self) -> tuple[Tensor, ...]:
        """What all samples of a step share, as differentiable functions of the parameters."""
        raise NotImplementedError

    def draw(
        self, sample_ids: Sequence[int], key: Key, prepared: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Weights ``[C, P]`` of some samples, differentiable in ``prepared``.

        Args:
            sample_ids: indices s of the samples, any subset in any order.
            key: key of the step; sample s takes its noise from ``key.fold(s)``.
            prepared: what `prepare` returned; computed anew if None.
        """
        raise NotImplementedError

    def divergence(self, prepared: Sequence[Tensor]) -> Tensor:
        """The part of KL(posterior || prior) that is known in closed form, a scalar."""
        raise NotImplementedError

    def sampled_divergence(self, weights: Tensor, prepared: Sequence[Tensor]) -> Tensor | None:
        """The rest of it, estimated from each of the drawn weights ``[C, P]``: ``[C]``."""
        raise NotImplementedError


class MeanField(Posterior):
    r"""Independent normals, the mean-field variational posterior (arXiv 1505.05424).

    Sample s of the weights is :math:`w_s = \mu + \sigma \varepsilon_s` with
    :math:`\sigma = \log(1 + e^\rho)`, and :math:`\varepsilon_s` standard normal noise that
    belongs to s.

    Args:
        model: the Bayesian model.
        init_scale: initial standard deviation of every weight, in units of the weight, > 0. The
            means start at the values that the net holds.

    Attributes:
        loc: the means :math:`\mu`, ``[P]``.
        rho: the unconstrained scales :math:`\rho`, ``[P]``.
    """

    undecayed = ("rho",)

    def __init__(self, model: BayesianModel, init_scale: float = 0.02) -> None:
        super().__init__(model)
        if not init_scale > 0:
            raise ValueError(f"init_scale={init_scale} must be positive.")
        self.loc = nn.Parameter(model.flatten(model.drawn))
        inverse_softplus = init_scale + math.log(-math.expm1(-init_scale))
        self.rho = nn.Parameter(torch.full_like(self.loc, inverse_softplus))
        pairs = self._pairs(self.prepare())
        self._estimated = {name for name, (q, p) in pairs.items() if not _known(q, p)}

    @property
    def scale(self) -> Tensor:
        """Standard deviations ``[P]``."""
        return nn.functional.softplus(self.rho)

    def prepare(self) -> tuple[Tensor, Tensor]:
        """Means and standard deviations, ``[P]`` each."""
        return self.loc, self.scale

    def draw(
        self, sample_ids: Sequence[int], key: Key, prepared: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Weights ``[C, P]`` of some samples."""
        loc, scale = self.prepare() if prepared is None else prepared
        # A new tensor each time: the backward pass of the product needs the noise again.
        noise = loc.new_empty(len(sample_ids), len(loc))
        for row, sample in zip(noise, sample_ids, strict=True):
            row.normal_(generator=key.fold(sample).generator(loc.device))
        return torch.addcmul(loc, scale, noise)

    def _pairs(self, prepared: Sequence[Tensor]) -> dict[str, tuple[Distribution, Distribution]]:
        """Posterior and prior of every parameter, by name."""
        locs, scales = (BayesianModel.unflatten(p, self.model.drawn) for p in prepared)
        pairs = {}
        for name, prior in self.model.priors().items():
            normal = dist.Normal(locs[name], scales[name], validate_args=False).to_event()
            pairs[name] = (normal, prior)
        return pairs

    def divergence(self, prepared: Sequence[Tensor]) -> Tensor:
        """Sum of the KL divergences that torch or Pyro knows in closed form."""
        total = prepared[0].new_zeros(())
        for name, (q, p) in self._pairs(prepared).items():
            if name not in self._estimated:
                total = total + kl_divergence(q, p)
        return total

    def sampled_divergence(self, weights: Tensor, prepared: Sequence[Tensor]) -> Tensor | None:
        """Sum of log q(w) - log p(w) over the sites without a closed form, None without any."""
        if not self._estimated:
            return None
        values = BayesianModel.unflatten(weights, self.model.drawn)
        total = weights.new_zeros(len(weights))
        for name, (q, p) in self._pairs(prepared).items():
            if name in self._estimated:
                total = total + q.log_prob(values[name]) - p.log_prob(values[name])
        return total


def _known(q: Distribution, p: Distribution) -> bool:
    """Whether the divergence of two distributions is known in closed form."""
    try:
        kl_divergence(q, p)
    except NotImplementedError:
        return False
    return True
