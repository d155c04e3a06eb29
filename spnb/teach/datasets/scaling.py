"""Scalings of data, computed from the training part alone.

What a model is judged on must not have told it anything beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scaling:
    """Numbers of a data set to numbers near zero and of size one, and back.

    Attributes:
        offset: what becomes zero, in the data's unit: a number, or a tensor that broadcasts.
        scale: what becomes one, in the data's unit, likewise.
    """

    offset: float | Tensor
    scale: float | Tensor

    @classmethod
    def of(cls, values: Tensor, over: Sequence[int] | None = None) -> Scaling:
        """The scaling that gives some (training) values mean 0 and standard deviation 1.

        Args:
            values: the values, without gaps.
            over: dimensions that are scaled alike; None: all.
        """
        if over is None:
            return cls(values.mean().item(), values.std().item())
        dims = tuple(over)
        return cls(values.mean(dims, keepdim=True)[0], values.std(dims, keepdim=True)[0])

    def apply(self, values: Tensor) -> Tensor:
        """Scaled values, float32, of the same shape."""
        return ((values.double() - self.offset) / self.scale).float()

    def undo(self, scaled: Tensor) -> Tensor:
        """Values in the data's unit, of the same shape."""
        return scaled * self.scale + self.offset
