"""Networks of the course: plain modules that a reader can read in one sitting.

Nothing in them is Bayesian: only a prior makes them so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def mlp(sizes: Sequence[int], activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    """A multilayer perceptron.

    Args:
        sizes: number of inputs, of units of each hidden layer, and of outputs, at least two.
        activation: module between the layers.

    Raises:
        ValueError: fewer than two sizes.
    """
    if len(sizes) < 2:
        raise ValueError(f"sizes={list(sizes)} must name at least inputs and outputs.")
    layers: list[nn.Module] = []
    for inputs, outputs in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


class ViT(nn.Module):
    """A small vision transformer: patches, sine-cosine positions, mean pooling.

    The simplified form of Beyer et al. (arXiv 2205.01580) of the ViT (arXiv 2010.11929), without
    class token and dropout.

    Args:
        image_size: height and width of the images, in pixels.
        patch: height and width of a patch, in pixels; divides `image_size`.
        channels: channels of the images.
        dim: width of the tokens, a multiple of 4 and of `heads`.
        depth: number of blocks.
        heads: attention heads in a block.
        hidden: units of each block's perceptron.
        classes: number of outputs.

    Raises:
        ValueError: sizes do not divide as they must.
    """

    def __init__(
        self,
        image_size: int = 32,
        patch: int = 4,
        channels: int = 3,
        dim: int = 96,
        depth: int = 4,
        heads: int = 3,
        hidden: int = 384,
        classes: int = 10,
    ) -> None:
        super().__init__()
        if image_size % patch:
            raise ValueError(f"patch={patch} does not divide image_size={image_size}.")
        if dim % heads or dim % 4:
            raise ValueError(f"dim={dim} must be a multiple of 4 and of heads={heads}.")
        self.patch = patch
        inputs = channels * patch**2
        self.embed = nn.Sequential(nn.LayerNorm(inputs), nn.Linear(inputs, dim), nn.LayerNorm(dim))
        self.register_buffer("positions", sine_cosine(image_size // patch, dim), persistent=False)
        self.blocks = nn.Sequential(*(Block(dim, heads, hidden) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, classes]`` of images ``[B, channels, H, W]``."""
        tokens = self.embed(patches(x, self.patch)) + self.positions
        return self.head(self.norm(self.blocks(tokens)).mean(1))


class Block(nn.Module):
    """Self-attention and a perceptron, each on normalised tokens and with a residual."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens ``[B, T, dim]`` to tokens."""
        tokens = tokens + self.attend(self.attention_norm(tokens))
        return tokens + self.perceptron(tokens)

    def attend(self, tokens: Tensor) -> Tensor:
        """Each token's mixture of all tokens, ``[B, T, dim]``."""
        q, k, v = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)  # [B, heads, T, dim / heads]
        return self.out(mixed.transpose(1, 2).flatten(2))


def patches(x: Tensor, size: int) -> Tensor:
    """Images ``[B, C, H, W]`` as patches ``[B, H W / size^2, size^2 C]``."""
    cut = x.unflatten(3, (-1, size)).unflatten(2, (-1, size))  # [B, C, h, size, w, size]
    return cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def sine_cosine(side: int, dim: int) -> Tensor:
    """Positions of a square grid of tokens, ``[side^2, dim]``, told by sines and cosines."""
    rates = torch.exp(-math.log(10_000) * torch.arange(dim // 4) / max(1, dim // 4 - 1))
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = [place.reshape(-1, 1) * rates for place in (column, row)]
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], 1)
