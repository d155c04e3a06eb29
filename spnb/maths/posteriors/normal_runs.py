r"""The divergence of independent normals from normal priors, over runs of the flat vector.

.. math:: \mathrm{KL} = \sum_i \tfrac12 \Big[ \Big(\frac{\mu_i - m_i}{s_i}\Big)^2
          + \Big(\frac{\sigma_i}{s_i}\Big)^2 - 1 \Big] - \log \frac{\sigma_i}{s_i}

Neighbouring parameters with the same scalar prior form one run, so that most models need a few
large operations instead of some for each parameter, and any slice of the weights can be computed
by itself: each rank takes one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from spnb.maths.models import Site


@dataclass(frozen=True)
class NormalRun:
    """A stretch of the flat vector whose priors are normal.

    Attributes:
        start: first index.
        stop: index after the last.
        loc: mean m of the prior, a number or ``[stop - start]``.
        scale: its standard deviation s, likewise.
        names: the parameters in it.
    """

    start: int
    stop: int
    loc: float | Tensor
    scale: float | Tensor
    names: tuple[str, ...]

    def divergence(self, loc: Tensor, scale: Tensor, start: int, stop: int) -> Tensor:
        """Its divergence within a slice of the vector, a scalar.

        Args:
            loc: the posterior's means ``[P]``.
            scale: the posterior's standard deviations ``[P]``.
            start: first index of the slice.
            stop: index after its last.
        """
        found = self._within(loc, scale, start, stop)
        if found is None:
            return loc.new_zeros(())
        loc, scale, mean, width = found
        distance, ratio = (loc - mean) / width, scale / width
        squares = distance.dot(distance) + ratio.dot(ratio) - len(loc)
        return squares / 2 - ratio.log().sum()

    def cross_entropy(self, loc: Tensor, variance: Tensor, start: int, stop: int) -> Tensor:
        r"""The mean of -log prior within a slice, for weights of any kind with these moments.

        .. math:: \sum_i \frac{(\mu_i - m_i)^2 + v_i}{2 s_i^2} + \log s_i + \tfrac12 \log 2\pi

        Args:
            loc: means of the weights ``[P]``.
            variance: their variances ``[P]``.
            start: first index of the slice.
            stop: index after its last.
        """
        found = self._within(loc, variance, start, stop)
        if found is None:
            return loc.new_zeros(())
        loc, variance, mean, width = found
        distance = (loc - mean) / width
        squares = distance.dot(distance) + (variance / width**2).sum()
        logs = torch.as_tensor(width).to(loc).log().expand(len(loc)).sum()
        return squares / 2 + logs + len(loc) * math.log(2 * math.pi) / 2

    def add_gradient(
        self, loc: Tensor, scale: Tensor, start: int, stop: int, factor: float
    ) -> Tensor:
        """The same, with ``factor`` times its derivatives added to the gradients of its arguments.

        Written out, since autograd would go over the vectors a dozen times.
        """
        assert loc.grad is not None and scale.grad is not None
        by_loc, by_scale, _, _ = self._within(loc.grad, scale.grad, start, stop) or 4 * (None,)
        found = self._within(loc.detach(), scale.detach(), start, stop)
        if found is None or by_loc is None or by_scale is None:
            return loc.new_zeros((), requires_grad=False)
        loc, scale, mean, width = found
        if isinstance(mean, Tensor) or isinstance(width, Tensor):
            distance, ratio = (loc - mean) / width, scale / width
            by_loc.add_(distance / width, alpha=factor)
            by_scale.add_(ratio / width, alpha=factor)
            squares = distance.dot(distance) + ratio.dot(ratio)
            logs = ratio.log().sum()
        else:
            distance = loc - mean if mean else loc
            by_loc.add_(distance, alpha=factor / width**2)
            by_scale.add_(scale, alpha=factor / width**2)
            squares = (distance.dot(distance) + scale.dot(scale)) / width**2
            logs = scale.log().sum() - len(loc) * math.log(width)
        by_scale.sub_(scale.reciprocal(), alpha=factor)
        return (squares - len(loc)) / 2 - logs

    def _within(
        self, loc: Tensor, scale: Tensor, start: int, stop: int
    ) -> tuple[Tensor, Tensor, float | Tensor, float | Tensor] | None:
        """What lies in a slice: two vectors, and the prior's two numbers or vectors."""
        low, high = max(self.start, start), min(self.stop, stop)
        if low >= high:
            return None
        prior = (_cut(p, low - self.start, high - self.start) for p in (self.loc, self.scale))
        mean, width = prior
        return loc[low:high], scale[low:high], mean, width


def _cut(value: float | Tensor, start: int, stop: int) -> float | Tensor:
    return value[start:stop] if isinstance(value, Tensor) else value


def normal_runs(sites: Sequence[Site]) -> list[NormalRun]:
    """The runs of a model's parameters that have normal priors, in the order of the flat vector."""
    runs: list[NormalRun] = []
    start = 0
    for site in sites:
        stop = start + site.shape.numel()
        found = _moments(site)
        if found is not None:
            loc, scale = found
            last = runs[-1] if runs else None
            if last and last.stop == start and _same_numbers((last.loc, last.scale), found):
                runs[-1] = replace(last, stop=stop, names=(*last.names, site.name))
            else:
                runs.append(NormalRun(start, stop, loc, scale, (site.name,)))
        start = stop
    return runs


def _moments(site: Site) -> tuple[float | Tensor, float | Tensor] | None:
    """Mean and scale of a normal prior: numbers if all elements agree; None if it is no normal."""
    prior = site.prior
    while isinstance(prior, torch.distributions.Independent):
        prior = prior.base_dist
    if not isinstance(prior, torch.distributions.Normal):
        return None
    return _number_or_flat(prior.loc, site), _number_or_flat(prior.scale, site)


def _same_numbers(one: tuple[float | Tensor, ...], other: tuple[float | Tensor, ...]) -> bool:
    return not any(isinstance(value, Tensor) for value in (*one, *other)) and one == other


def _number_or_flat(value: Tensor, site: Site) -> float | Tensor:
    if not value.is_meta and bool((value == value.flatten()[0]).all()):
        return value.flatten()[0].item()
    return value.expand(site.shape).reshape(-1)
