"""How a posterior's samples are drawn in a step of training: keyed noise, one sample at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from spnb.maths.posteriors.base import Posterior


class Key(Protocol):
    """A name for a stream of random numbers (`spnb.Key`)."""

    def fold(self, *names: int | str) -> Key:
        """The key of a stream within this one."""

    def generator(self, device: Any = "cpu") -> torch.Generator:
        """A generator at the beginning of the stream."""


class Drawing:
    """Draws the samples of one step one after the other, and carries their gradients back.

    This general way leaves the chain rule to autograd; a posterior for which it is short writes it
    out, in place and without a graph (`NormalDrawing`).

    Args:
        posterior: the posterior.
        key: key of the step.
        leaves: what `Posterior.prepare` returned, as leaves of autograd, with a ``grad`` each to
            add to.
    """

    def __init__(self, posterior: Posterior, key: Key, leaves: Sequence[Tensor]) -> None:
        self.posterior, self.key, self.leaves = posterior, key, leaves
        self._drawn: Tensor

    def draw(self, sample: int, weights: Tensor) -> None:
        """Write a sample into a vector ``[P]``; a piece writes its own weights alone."""
        with torch.enable_grad():
            self._drawn = self.posterior.draw([sample], self.key, self.leaves)
        self.own(weights).copy_(self._drawn.detach().view(-1))

    def own(self, weights: Tensor) -> Tensor:
        """The part of a vector ``[P]`` that belongs to the posterior, if it is a piece; a view."""
        window = self.posterior.window
        return weights if window is None else window.of(weights)

    def carry_back(self, gradient: Tensor) -> None:
        """Add to the gradients of the leaves.

        Args:
            gradient: at the sample that was drawn last, ``[P]``; of a piece, at its own weights.
        """
        self._drawn.backward(gradient.view_as(self._drawn), inputs=list(self.leaves))
