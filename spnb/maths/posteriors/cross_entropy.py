"""The cross-entropy to the prior, the mean of -log p(w) over a posterior's samples.

A divergence is this less the posterior's entropy. Where the prior is normal it needs only mean and
variance of each weight; elsewhere it is estimated from the samples.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from spnb.maths.models import BayesianModel, Site
from spnb.maths.posteriors.normal_runs import NormalRun, normal_runs
from spnb.maths.posteriors.pieces import PieceOfModel


class CrossEntropy:
    """The cross-entropy to a model's prior.

    Args:
        model: the Bayesian model, or a piece of it; it may move to another device or precision
            later.
    """

    def __init__(self, model: BayesianModel | PieceOfModel) -> None:
        self._model = model
        self._sites: tuple[Site, ...] = ()

    def known(self, loc: Tensor, variance: Tensor, part: int, parts: int) -> Tensor:
        """What is known in closed form, or one part of it, a scalar.

        Args:
            loc: means of the weights ``[P]``.
            variance: their variances ``[P]``.
            part: which part, from 0.
            parts: into how many slices of the weights the work is divided.
        """
        start, stop = bounds(len(loc), part, parts)
        terms = [run.cross_entropy(loc, variance, start, stop) for run in self._runs()]
        return torch.stack(terms).sum() if terms else loc.new_zeros(())

    def known_of_points(self, points: Tensor, part: int, parts: int) -> Tensor:
        """The sum of what is known of -log prior over several vectors of weights, a scalar.

        Args:
            points: the weights ``[M, P]``.
            part: which part, from 0.
            parts: into how many slices of the weights the work is divided.
        """
        still = torch.zeros_like(points[0])
        return torch.stack([self.known(point, still, part, parts) for point in points]).sum()

    @property
    def estimates(self) -> bool:
        """Whether some prior is not normal."""
        covered = sum(len(run.names) for run in self._runs())
        return covered < len(self._model.drawn)

    def sampled(self, values: Mapping[str, Tensor]) -> Tensor:
        """-log prior of drawn samples where it is not normal, ``[C]``.

        Args:
            values: the samples, ``{name: [C, *shape]}``.
        """
        covered = {name for run in self._runs() for name in run.names}
        terms = [
            -site.prior.log_prob(values[site.name])
            for site in self._model.drawn
            if site.prior is not None and site.name not in covered
        ]
        return torch.stack(terms).sum(0)

    def _runs(self) -> list[NormalRun]:
        if self._sites is not self._model.drawn:  # the model is new, or has moved
            self._sites, self._found = self._model.drawn, normal_runs(self._model.drawn)
        return self._found


def bounds(length: int, part: int, parts: int) -> tuple[int, int]:
    """Where a part of a vector begins and ends."""
    return length * part // parts, length * (part + 1) // parts
