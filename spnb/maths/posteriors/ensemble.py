"""A deep ensemble: networks that start differently and never hear of each other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from spnb.maths.models import BayesianModel
from spnb.maths.posteriors.members import Members


class Ensemble(Members):
    """A deep ensemble (Lakshminarayanan, Pritzel and Blundell, arXiv 1612.01474).

    Each sample is a network of its own, trained to its maximum a posteriori.

    Args:
        model: the Bayesian model. Member 0 starts at the values that the net holds.
        size: number of members; None: 5, or one for each of ``nets``.
        seed: names the initial values of the others.
        nets: trained networks like the model's, at whose values the members start instead.

    Attributes:
        members: the weights, ``[M, P]``.
    """

    def __init__(
        self,
        model: BayesianModel,
        size: int | None = None,
        seed: int = 0,
        *,
        nets: Iterable[nn.Module] | None = None,
    ) -> None:
        super().__init__(model, size, seed, nets)

    def options(self) -> dict[str, Any]:
        """Number of members."""
        return {"size": self.size}

    @property
    def num_draws(self) -> int:
        """Number of members."""
        return self.size
