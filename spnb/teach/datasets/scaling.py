"""Scalings of data, computed from the training part alone.

What a model is judged on must not have told it anything beforehand.
"""

from __future__ import annotations

import math
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

        Where the values are all the same, only their mean is taken off.

        Args:
            values: the values, without gaps, floating point.
            over: dimensions that are scaled alike; None: all. With ``over=(0, 2, 3)`` images
                ``[N, C, H, W]`` have one scaling a channel, ``[C, 1, 1]``, which also fits a single
                image.

        Raises:
            ValueError: there are gaps in the values, or fewer than two that are scaled alike.
        """
        if gaps := int((~values.isfinite()).sum()):
            raise ValueError(
                f"{gaps:,} of {values.numel():,} values are missing or infinite: leave them out, "
                "or fill them, before you scale."
            )
        alike = range(values.ndim) if over is None else [d % values.ndim for d in over]
        if (count := math.prod(values.shape[d] for d in alike)) < 2:
            raise ValueError(
                f"{count} of the {values.numel():,} values are scaled alike: a standard deviation "
                "needs at least 2."
            )
        scale, offset = torch.std_mean(values, tuple(alike), keepdim=True)
        scale = torch.where(scale == 0, 1, scale)
        if over is None:
            return cls(offset.item(), scale.item())
        # Leading dimensions of size one would add themselves to smaller tensors.
        kept = min((d for d in range(values.ndim) if d not in alike), default=values.ndim)
        return cls(offset.reshape(offset.shape[kept:]), scale.reshape(scale.shape[kept:]))

    def apply(self, values: Tensor) -> Tensor:
        """Scaled values, float32, of the same shape."""
        exact = values if values.is_floating_point() else values.double()
        return ((exact - self.offset) / self.scale).float()

    def undo(self, scaled: Tensor) -> Tensor:
        """Values in the data's unit, of the same shape."""
        return scaled * self.scale + self.offset
