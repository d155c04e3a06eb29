"""Mean field: a normal of its own for every weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin as Distribution
from torch import Tensor, nn
from torch.distributions import kl_divergence

from spnb.maths.models import BayesianModel
from spnb.maths.posteriors import noise
from spnb.maths.posteriors.base import Posterior
from spnb.maths.posteriors.cross_entropy import bounds
from spnb.maths.posteriors.drawing import Drawing, Key
from spnb.maths.posteriors.normal_runs import normal_runs
from spnb.maths.posteriors.pieces import Window


class MeanField(Posterior):
    r"""Independent normals, the mean-field variational posterior (arXiv 1505.05424).

    Sample s of the weights is :math:`w_s = \mu + \sigma \varepsilon_s` with
    :math:`\sigma = \log(1 + e^\rho)`, and :math:`\varepsilon_s` standard normal noise that
    belongs to s.

    Args:
        model: the Bayesian model.
        init_scale: initial standard deviation of every weight, in units of the weight, > 0. The
            means start at the values that the net holds.
        antithetic: draw the samples in pairs of opposite noise: unbiased as well, cheaper, and
            with less noisy gradients while the posterior is narrow (notebook 02). Give an even
            number of samples.

    Attributes:
        loc: the means :math:`\mu`, ``[P]``.
        rho: the unconstrained scales :math:`\rho`, ``[P]``.
        antithetic: whether samples come in pairs of opposite noise.
    """

    undecayed = ("rho",)
    elementwise = True

    def __init__(
        self, model: BayesianModel, init_scale: float = 0.02, antithetic: bool = False
    ) -> None:
        super().__init__(model)
        if not init_scale > 0:
            raise ValueError(f"init_scale={init_scale} must be positive.")
        self.loc = nn.Parameter(model.flatten(model.drawn))
        inverse_softplus = init_scale + math.log(-math.expm1(-init_scale))
        self.rho = nn.Parameter(torch.full_like(self.loc, inverse_softplus))
        self.antithetic = antithetic
        self._sort_priors()

    def _sort_priors(self) -> None:
        """Tell apart normal priors, those whose divergence is known too, and all others."""
        self._runs = normal_runs(self.sites)
        covered = {name for run in self._runs for name in run.names}
        others = [site for site in self.sites if site.name not in covered]
        pairs = self._pairs(self.prepare()) if others else {}
        self._known = [site.name for site in others if _known(*pairs[site.name])]
        self._estimated = [site.name for site in others if site.name not in self._known]

    def _cut(self, window: Window | None, change: Callable[[str, Tensor], Tensor]) -> Posterior:
        """A piece, or the whole again, with its own priors."""
        other = super()._cut(window, change)
        assert isinstance(other, MeanField)
        other._sort_priors()
        return other

    def options(self) -> dict[str, Any]:
        """Whether samples come in pairs."""
        return {"antithetic": self.antithetic}

    @property
    def drawing(self) -> type[Drawing]:
        """How a training step draws its samples."""
        return NormalDrawing

    @property
    def scale(self) -> Tensor:
        """Standard deviations ``[P]``."""
        return nn.functional.softplus(self.rho)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MeanField:
        """Take the priors along to another device or precision."""
        super()._apply(fn, recurse)
        self._runs = normal_runs(self.sites)
        return self

    def prepare(self) -> tuple[Tensor, Tensor]:
        """Means and standard deviations, ``[P]`` each."""
        return self.loc, self.scale

    def draw(
        self, sample_ids: Sequence[int], key: Key, prepared: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Weights ``[C, P]`` of some samples."""
        loc, scale = self.prepare() if prepared is None else prepared
        own = noise.draw(sample_ids, key, loc, self.antithetic, self.window)
        return torch.addcmul(loc, scale, own)

    def divergence(self, prepared: Sequence[Tensor], part: int = 0, parts: int = 1) -> Tensor:
        """What is known of the divergence in closed form; its parts share out the weights."""
        loc, scale = prepared
        start, stop = bounds(len(loc), part, parts)
        total = self._others(prepared, part)
        for run in self._runs:
            total = total + run.divergence(loc, scale, start, stop)
        return total

    def add_divergence(
        self, leaves: Sequence[Tensor], part: int, parts: int, factor: float
    ) -> Tensor:
        """The same part, with ``factor`` times its derivatives added to gradients."""
        loc, scale = leaves
        start, stop = bounds(len(loc), part, parts)
        total = self._others(leaves, part)
        if total.requires_grad:
            total.backward(torch.full_like(total, factor))
        total = total.detach()
        for run in self._runs:
            total = total + run.add_gradient(loc, scale, start, stop, factor)
        return total

    def _others(self, prepared: Sequence[Tensor], part: int) -> Tensor:
        """The divergence from priors that are no normals, where it is known; all in part 0."""
        total = prepared[0].new_zeros((), requires_grad=False)
        if self._known and part == 0:
            pairs = self._pairs(prepared)
            for name in self._known:
                total = total + kl_divergence(*pairs[name])
        return total

    @property
    def estimates(self) -> bool:
        """Whether some prior's divergence has no closed form."""
        return bool(self._estimated)

    def sampled_divergence(
        self, values: Mapping[str, Tensor], prepared: Sequence[Tensor]
    ) -> Tensor:
        """Sum of log q(w) - log p(w) over the sites without a closed form, ``[C]``."""
        total = self.loc.new_zeros(())
        pairs = self._pairs(prepared)
        for name in self._estimated:
            q, p = pairs[name]
            total = total + q.log_prob(values[name]) - p.log_prob(values[name])
        return total

    def _pairs(self, prepared: Sequence[Tensor]) -> dict[str, tuple[Distribution, Distribution]]:
        """Posterior and prior of every parameter, by name."""
        locs, scales = (BayesianModel.unflatten(p, self.sites) for p in prepared)
        pairs = {}
        for site in self.sites:
            name = site.name
            normal = dist.Normal(locs[name], scales[name], validate_args=False).to_event()
            assert site.prior is not None
            pairs[name] = (normal, site.prior)
        return pairs


class NormalDrawing(Drawing):
    r"""Samples of a `MeanField` posterior, and the chain rule written out.

    With the gradient :math:`g_s` at the weights of sample s, that of the means is
    :math:`\sum_s g_s` and that of the standard deviations :math:`\sum_s g_s \varepsilon_s`.
    """

    posterior: MeanField

    def __init__(self, posterior: MeanField, key: Key, leaves: Sequence[Tensor]) -> None:
        super().__init__(posterior, key, leaves)
        self._loc, self._scale = (leaf.detach() for leaf in leaves)
        self._noise = torch.empty_like(self._loc)
        self._owner: int | None = None  # whose noise it is
        self._sign = 1.0

    def draw(self, sample: int, weights: Tensor) -> None:
        """Write a sample into a vector ``[P]``; a piece writes its own weights alone."""
        owner, self._sign = noise.owner(sample, self.posterior.antithetic)
        if owner != self._owner:
            noise.fill(self._noise, owner, self.key, self.posterior.window)
            self._owner = owner
        into = self.own(weights)
        torch.addcmul(self._loc, self._scale, self._noise, value=self._sign, out=into)

    def carry_back(self, gradient: Tensor) -> None:
        """Add to the gradients of means and standard deviations."""
        into_loc, into_scale = (leaf.grad for leaf in self.leaves)
        assert into_loc is not None and into_scale is not None
        into_loc.add_(gradient)
        into_scale.addcmul_(gradient, self._noise, value=self._sign)


def _known(q: Distribution, p: Distribution) -> bool:
    """Whether the divergence of two distributions is known in closed form."""
    try:
        kl_divergence(q, p)
    except NotImplementedError:
        return False
    return True
