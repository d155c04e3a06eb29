"""A deep ensemble: networks that start differently and never hear of each other."""

from __future__ import annotations

from typing import Any

from spnb.maths.models import BayesianModel
from spnb.maths.posteriors.base import whole
from spnb.maths.posteriors.members import Members


class Ensemble(Members):
    """A deep ensemble (Lakshminarayanan, Pritzel and Blundell, arXiv 1612.01474).

    Each sample is a network of its own, trained to its maximum a posteriori.

    Args:
        model: the Bayesian model. Member 0 starts at the values that the net holds.
        size: number of members.
        seed: names the initial values of the others.

    Attributes:
        members: the weights, ``[M, P]``.
    """

    def __init__(self, model: BayesianModel, size: int = 5, seed: int = 0) -> None:
        whole("size", size, 1)
        super().__init__(model, size, seed)

    def options(self) -> dict[str, Any]:
        """Number of members."""
        return {"size": self.size}

    @property
    def num_draws(self) -> int:
        """Number of members."""
        return self.size
