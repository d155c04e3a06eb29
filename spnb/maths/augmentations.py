"""Augmentations of images, in batches, from a generator that names their randomness.

Each is a function ``(images [B, C, H, W], generator) -> images`` with numbers of its own for every
image, as `spnb.fit` takes it: all random numbers come from the generator that it is handed, so that
a view belongs to a sample or to a step and not to the process that happens to make it. (Libraries
of augmentations draw from a global generator, which cannot be keyed so.)

The generator gives the same numbers whichever other images are in the batch, but not for another
size of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

#: images and a generator of the randomness to images of the same shape
Augmentation = Callable[[Tensor, Generator], Tensor]

GREY = (0.299, 0.587, 0.114)
"""What red, green and blue add to brightness (ITU-R BT.601)."""


class Chain:
    """Several augmentations, one after the other."""

    def __init__(self, *steps: Augmentation) -> None:
        self.steps = steps

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Apply them."""
        for step in self.steps:
            images = step(images, generator)
        return images

    def __repr__(self) -> str:
        """Its steps."""
        return f"Chain({', '.join(map(repr, self.steps))})"


class Crop:
    """Shift each image by up to some pixels along both directions; zeros move in.

    The usual crop of a padded image (He et al., arXiv 1512.03385, section 4.2).

    Args:
        pixels: the largest shift.
        mode: what moves in: ``"constant"`` (zeros) or ``"reflect"``.
    """

    def __init__(self, pixels: int = 4, mode: str = "constant") -> None:
        if pixels < 0:
            raise ValueError(f"pixels={pixels} must not be negative.")
        self.pixels, self.mode = pixels, mode

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Crop."""
        number, _, height, width = images.shape
        shifts = _integers(2 * self.pixels + 1, (2, number), images, generator)
        padded = F.pad(images, 4 * (self.pixels,), mode=self.mode)
        rows = shifts[0].unsqueeze(1) + torch.arange(height, device=images.device)
        columns = shifts[1].unsqueeze(1) + torch.arange(width, device=images.device)
        which = torch.arange(number, device=images.device).view(-1, 1, 1)
        found = padded[which, :, rows.unsqueeze(2), columns.unsqueeze(1)]  # [B, H, W, C]
        return found.permute(0, 3, 1, 2).contiguous()

    def __repr__(self) -> str:
        """Its arguments."""
        return f"Crop({self.pixels}, {self.mode!r})"


class Flip:
    """Mirror each image left to right, with a probability.

    Args:
        probability: of being mirrored.
    """

    def __init__(self, probability: float = 0.5) -> None:
        self.probability = _probability(probability)

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Flip."""
        chosen = _uniform((len(images), 1, 1, 1), images, generator) < self.probability
        return torch.where(chosen, images.flip(-1), images)

    def __repr__(self) -> str:
        """Its argument."""
        return f"Flip({self.probability:g})"


class Erase:
    """Cover a rectangle of each image, with a probability (arXiv 1708.04552, 1708.04896).

    Args:
        probability: of being covered.
        area: smallest and largest part of the image.
        aspect: largest ratio of the sides.
        value: what it is covered with.
    """

    def __init__(
        self,
        probability: float = 0.5,
        area: tuple[float, float] = (0.02, 0.25),
        aspect: float = 3.0,
        value: float = 0.0,
    ) -> None:
        if not 0 < area[0] <= area[1] <= 1:
            raise ValueError(f"area={area} must be two rising numbers between 0 and 1.")
        if not aspect >= 1:
            raise ValueError(f"aspect={aspect} must be at least 1.")
        self.probability = _probability(probability)
        self.area, self.aspect, self.value = area, aspect, value

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Erase."""
        number, _, height, width = images.shape
        chosen, part, turn, down, right = _uniform((5, number, 1, 1), images, generator)
        part = self.area[0] + part * (self.area[1] - self.area[0])
        ratio = ((2 * turn - 1) * math.log(self.aspect)).exp().sqrt()
        high = (height * part.sqrt() * ratio).clamp(max=height)
        wide = (width * part.sqrt() / ratio).clamp(max=width)
        top, left = down * (height - high), right * (width - wide)
        rows = torch.arange(height, device=images.device).view(1, -1, 1) + 0.5
        columns = torch.arange(width, device=images.device).view(1, 1, -1) + 0.5
        inside = (rows > top) & (rows < top + high) & (columns > left) & (columns < left + wide)
        covered = inside & (chosen < self.probability)
        return images.masked_fill(covered.unsqueeze(1), self.value)

    def __repr__(self) -> str:
        """Its probability and area."""
        return f"Erase({self.probability:g}, {self.area})"


class Jitter:
    """Change brightness, contrast and saturation of each colour image, which lies in [0, 1].

    Args:
        brightness: largest relative change.
        contrast: largest relative change of the distance to the image's mean grey.
        saturation: largest relative change of the distance to the pixel's own grey.
    """

    def __init__(
        self, brightness: float = 0.2, contrast: float = 0.2, saturation: float = 0.2
    ) -> None:
        self.sizes = (brightness, contrast, saturation)
        if not all(0 <= size <= 1 for size in self.sizes):
            raise ValueError(
                f"brightness={brightness}, contrast={contrast} and saturation={saturation} must "
                "lie between 0 and 1."
            )

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Jitter."""
        if images.shape[1] != len(GREY):
            raise ValueError(f"Jitter needs 3 colours, but the images have {images.shape[1]}.")
        moves = 2 * _uniform((3, len(images), 1, 1, 1), images, generator) - 1
        light, contrast, colour = (
            1 + size * move for size, move in zip(self.sizes, moves, strict=True)
        )
        images = (images * light).clamp(0, 1)
        mean = _grey(images).mean((2, 3), keepdim=True)
        images = (mean + contrast * (images - mean)).clamp(0, 1)
        grey = _grey(images)
        return (grey + colour * (images - grey)).clamp(0, 1)

    def __repr__(self) -> str:
        """Its arguments."""
        return f"Jitter{self.sizes}"


def _grey(images: Tensor) -> Tensor:
    """Brightness ``[B, 1, H, W]``."""
    return (images * images.new_tensor(GREY).view(1, -1, 1, 1)).sum(1, keepdim=True)


def _uniform(shape: tuple[int, ...], like: Tensor, generator: Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=like.device, dtype=like.dtype)


def _integers(high: int, shape: tuple[int, ...], like: Tensor, generator: Generator) -> Tensor:
    return torch.randint(high, shape, generator=generator, device=like.device)


def _probability(value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"probability={value} must lie between 0 and 1.")
    return value
