"""A point: one value for every weight, the plain network as the simplest posterior."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spnb.maths.models import BayesianModel
from spnb.maths.posteriors.base import Posterior
from spnb.maths.posteriors.drawing import Key


class Point(Posterior):
    r"""All mass on one vector of weights; trained, it is the maximum a posteriori.

    Its divergence is :math:`-\log p(\theta)`, the entropy of a point (minus infinity, but constant)
    left out. With a normal prior that is weight decay, in the units that Bayes' rule gives it.

    Args:
        model: the Bayesian model. The point starts at the values that the net holds.

    Attributes:
        loc: the weights :math:`\theta`, ``[P]``.
    """

    elementwise = True

    def __init__(self, model: BayesianModel) -> None:
        super().__init__(model)
        self.loc = nn.Parameter(model.flatten(model.drawn))

    @property
    def num_draws(self) -> int | None:
        """One: all samples are the same."""
        return 1

    def prepare(self) -> tuple[Tensor, ...]:
        """The weights ``[P]``."""
        return (self.loc,)

    def draw(
        self, sample_ids: Sequence[int], key: Key, prepared: Sequence[Tensor] | None = None
    ) -> Tensor:
        """The same weights for each sample, ``[C, P]``."""
        loc = (self.prepare() if prepared is None else prepared)[0]
        return loc.expand(len(sample_ids), -1)

    def divergence(self, prepared: Sequence[Tensor], part: int = 0, parts: int = 1) -> Tensor:
        """-log prior where it is normal; the parts share out the weights."""
        loc = prepared[0]
        return self.cross_entropy.known(loc, torch.zeros_like(loc), part, parts)


class AroundPoint(Point):
    """Base of what is trained as a point and gets its spread afterwards (`SWAG`, `Laplace`)."""

    @property
    def num_draws(self) -> int | None:
        """One until it is trained, then as many as one likes."""
        return 1 if self.training else None

    @property
    def draws_in_training(self) -> int:
        """One: the point."""
        return 1
