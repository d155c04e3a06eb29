"""SWAG: the normal that fits where stochastic gradient descent wanders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from spnb.maths.models import BayesianModel
from spnb.maths.posteriors import noise
from spnb.maths.posteriors.base import whole
from spnb.maths.posteriors.drawing import Key
from spnb.maths.posteriors.point import AroundPoint
from spnb.maths.posteriors.steps import fraction


class SWAG(AroundPoint):
    r"""Stochastic weight averaging, Gaussian (Maddox et al., arXiv 1902.02476, eq. 1).

    Training goes with one point, as for `spnb.Point`. Over the last part of the run K iterates
    :math:`\theta_k` are kept; afterwards a sample is

    .. math:: w_s = \bar\theta + \tfrac{1}{\sqrt 2} \hat\sigma \varepsilon_s
              + \tfrac{1}{\sqrt{2 (K - 1)}} \sum_k (\theta_k - \bar\theta) z_{sk}

    with their mean, their standard deviations, and standard normal noise: half of the variance is
    diagonal, half along the iterates. It is the spread of the optimiser, not of Bayes' rule: its
    width depends on the learning rate, which should be constant and rather large.

    Args:
        model: the Bayesian model. Training starts at the values that the net holds.
        iterates: K, how many are kept, at least 2.
        start: after which share of the run the first one is kept.

    Attributes:
        loc: the point that is trained, ``[P]``.
        kept: the iterates, ``[K, P]``; zero before training.
    """

    kept: Tensor

    def __init__(self, model: BayesianModel, iterates: int = 20, start: float = 0.5) -> None:
        super().__init__(model)
        whole("iterates", iterates, 2, ": one alone has no spread")
        if not 0 <= start < 1:
            raise ValueError(f"start={start} must be a share of the run, from 0 to below 1.")
        self.register_buffer("kept", torch.zeros(iterates, *self.loc.shape).to(self.loc))
        self.start = start

    def options(self) -> dict[str, Any]:
        """How many iterates are kept, and from when."""
        return {"iterates": len(self.kept), "start": self.start}

    def moves(
        self, learning_rate: float, noise_per_step: float, key: Key, total: int
    ) -> Optimizer | None:
        """Nothing moves the point but an optimiser.

        Raises:
            ValueError: the run is too short to keep that many iterates.
        """
        self._ends(total)
        return super().moves(learning_rate, noise_per_step, key, total)

    def _ends(self, total: int) -> list[int]:
        """After which steps iterates are kept: K equal stretches of the run's last part end there.

        Raises:
            ValueError: the last part has fewer steps.
        """
        count, first = len(self.kept), math.ceil(fraction(self.start) * total)
        if total - first < count:
            raise ValueError(
                f"{count} iterates are to be kept of the last {total - first} steps: train for "
                "longer, or keep fewer."
            )
        # Rounding may begin a step later, which earlier versions did: that stays, where it fits.
        first = min(math.ceil(self.start * total), total - count)
        return [first + (total - first) * (k + 1) // count for k in range(count)]

    def observe(self, step: int, total: int) -> None:
        """Keep the iterates at the ends of K equal stretches of the run's last part."""
        ends = self._ends(total)
        if step in ends:
            self.kept[ends.index(step)] = self.loc.detach()

    def forget(self) -> None:
        """Drop the iterates of an earlier training."""
        self.kept.zero_()

    @property
    def lacks(self) -> str:
        """Iterates that were not kept yet."""
        empty = int((~self.kept.any(1)).sum())
        if not empty:
            return ""
        return f"{empty} of its {len(self.kept)} iterates are not kept yet; train it to the end"

    def prepare(self) -> tuple[Tensor, ...]:
        """In training the point ``[P]``; then mean, standard deviations, and directions."""
        if self.training:
            return super().prepare()
        self._refuse_unfinished()
        mean = self.kept.mean(0)
        away = self.kept - mean
        return mean, self.kept.std(0) / math.sqrt(2), away / math.sqrt(2 * (len(away) - 1))

    def draw(
        self, sample_ids: Sequence[int], key: Key, prepared: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Weights ``[C, P]`` of some samples."""
        prepared = self.prepare() if prepared is None else prepared
        if len(prepared) == 1:
            return super().draw(sample_ids, key, prepared)
        mean, scale, away = prepared
        own = noise.draw(sample_ids, key, mean, antithetic=False)
        along = noise.draw(sample_ids, key.fold("iterates"), away[:, 0], antithetic=False)
        return torch.addcmul(mean, scale, own) + along @ away
