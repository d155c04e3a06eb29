"""Pictures made worse, step by step: what a network should be less and less sure of.

In the manner of Hendrycks and Dietterich, *Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations* (arXiv 1903.12261), with one strength from 0, untouched, to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, conv2d, grid_sample, pad

from spnb.parallel.keyed import Key

SEED = 2604

Corruption = Callable[[Tensor, float], Tensor]
"""Images ``[N, C, H, W]`` in [0, 1] and a strength in [0, 1], to images."""


def noise(images: Tensor, strength: float) -> Tensor:
    """Normal noise of a standard deviation up to 0.4, always the same."""
    generator = Key(SEED).fold("noise").generator()
    grain = torch.randn(images.shape[1:], generator=generator).to(images)
    return (images + 0.4 * strength * grain).clamp(0, 1)


def blur(images: Tensor, strength: float) -> Tensor:
    """A Gaussian blur with a standard deviation of up to 4 pixels."""
    width = 4 * strength
    if not width:
        return images
    reach = torch.arange(-8, 9).to(images)
    weights = torch.exp(-0.5 * (reach / width) ** 2)
    weights = (weights / weights.sum()).repeat(images.shape[1], 1, 1, 1)  # [C, 1, 1, 17]
    channels = images.shape[1]
    wide = pad(images, (8, 8, 8, 8), mode="replicate")
    return conv2d(conv2d(wide, weights, groups=channels), weights.mT, groups=channels)


def rotation(images: Tensor, strength: float) -> Tensor:
    """A turn anticlockwise by up to 180 degrees; corners take the colours of the edge."""
    angle = math.pi * strength
    cos, sin = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0]]).to(images)
    grid = affine_grid(turn.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return grid_sample(images, grid, padding_mode="border", align_corners=False)


def darkness(images: Tensor, strength: float) -> Tensor:
    """Less light, down to a twentieth."""
    return images * (1 - 0.95 * strength)


CORRUPTIONS: dict[str, Corruption] = {
    "noise": noise,
    "blur": blur,
    "rotation": rotation,
    "darkness": darkness,
}


def corrupt(images: Tensor, kind: str, strength: float) -> Tensor:
    """Make images worse.

    Args:
        images: ``[N, C, H, W]`` in [0, 1].
        kind: one of `CORRUPTIONS`.
        strength: 0, untouched, to 1.

    Raises:
        ValueError: there is no such kind, or the strength is none.
    """
    if kind not in CORRUPTIONS:
        raise ValueError(f"'{kind}' is no corruption; there are {', '.join(CORRUPTIONS)}.")
    if not 0 <= strength <= 1:
        raise ValueError(f"strength={strength} must lie between 0 and 1.")
    return CORRUPTIONS[kind](images, strength)
