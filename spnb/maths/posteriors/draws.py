"""Draws: weights that were sampled elsewhere, such as by Hamiltonian Monte Carlo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spnb.maths.models import BayesianModel
from spnb.maths.posteriors.base import Posterior
from spnb.maths.posteriors.drawing import Key


class Draws(Posterior):
    """A posterior that is known by samples alone; sample s is row s.

    There is nothing to train. `spnb.nuts` makes one.

    Args:
        model: the Bayesian model.
        draws: the weights ``[K, P]``; or K alone, for room to load them into, which is NaN.

    Attributes:
        draws: the weights ``[K, P]``.

    Raises:
        ValueError: the draws do not fit the model.
    """

    def __init__(self, model: BayesianModel, draws: Tensor | int) -> None:
        super().__init__(model)
        start = model.flatten(model.drawn)
        room = start.new_full((draws, len(start)), torch.nan) if isinstance(draws, int) else draws
        rows = room.to(start)
        if rows.dim() != 2 or rows.shape[1] != len(start) or not len(rows):
            raise ValueError(
                f"draws has shape {tuple(rows.shape)}; the model's {len(start)} weights need "
                f"[K, {len(start)}]."
            )
        self.draws = nn.Parameter(rows, requires_grad=False)

    def options(self) -> dict[str, Any]:
        """How many draws there are."""
        return {"draws": len(self.draws)}

    @property
    def num_draws(self) -> int:
        """How many draws there are."""
        return len(self.draws)

    @property
    def draws_in_training(self) -> int:
        """None can be trained."""
        return 0

    @property
    def lacks(self) -> str:
        """Draws that were not filled in yet."""
        empty = int(self.draws.isnan().any(1).sum())
        return (
            f"{empty} of its {len(self.draws)} draws are NaN; give their weights" if empty else ""
        )

    def prepare(self) -> tuple[Tensor]:
        """The draws ``[K, P]``."""
        self._refuse_unfinished()
        return (self.draws,)

    def draw(
        self, sample_ids: Sequence[int], key: Key, prepared: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Weights ``[C, P]`` of some draws."""
        (draws,) = self.prepare() if prepared is None else prepared
        return draws[list(sample_ids)]

    def divergence(self, prepared: Sequence[Tensor], part: int = 0, parts: int = 1) -> Tensor:
        """The sum of -log prior over all draws, where it is normal."""
        return self.cross_entropy.known_of_points(prepared[0], part, parts)
