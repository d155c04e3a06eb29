"""A Swin transformer that maps fields to fields: an encoder and a decoder of shifted windows.

Attention within windows of a grid costs as much a token however large the grid is; every second
block shifts the windows by half, so that what one knows reaches its neighbours (Liu et al.,
*Swin Transformer*, arXiv 2103.14030). Merging four neighbouring tokens halves the grid on the way
down, and the decoder undoes it on the way up, with a shortcut from the same height (Cao et al.,
*Swin-Unet*, arXiv 2105.05537). Plain modules: only a prior makes them Bayesian.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Size = tuple[int, int]

SIZES: dict[str, dict[str, Any]] = {
    "toy": {"window": 4, "dim": 32, "depths": (2, 2), "heads": (2, 4)},
    "small": {"window": 4, "dim": 96, "depths": (2, 2, 2), "heads": (3, 6, 12)},
    "base": {"window": 7, "dim": 128, "depths": (2, 2, 6), "heads": (4, 8, 16)},
    "large": {"window": 7, "dim": 256, "depths": (2, 2, 14), "heads": (8, 16, 32)},
}
"""Arguments of `Swin` by size: about 0.2, 7, 24 and 200 million parameters."""


class Swin(nn.Module):
    """Fields ``[B, inputs, H, W]`` to fields ``[B, outputs, H, W]``.

    Tokens know where they are only relative to each other: give the fields' coordinates as further
    inputs where the place matters.

    Args:
        size: height and width of the fields. Any numbers: fields are continued over their lower
            and right edges until patches and levels divide them.
        inputs: fields that go in.
        outputs: fields that come out.
        patch: height and width of the patches that become tokens.
        window: height and width of the windows, in tokens.
        dim: width of the tokens at full height; it doubles with each level down.
        depths: number of blocks on each level, an even number each; the decoder mirrors all but
            the last.
        heads: attention heads on each level.
        ratio: units of each block's perceptron, in widths.

    Raises:
        ValueError: sizes do not fit each other.
    """

    def __init__(
        self,
        size: Size,
        inputs: int = 1,
        outputs: int = 1,
        patch: int = 2,
        window: int = 4,
        dim: int = 48,
        depths: Sequence[int] = (2, 2),
        heads: Sequence[int] = (3, 6),
        ratio: float = 4.0,
    ) -> None:
        super().__init__()
        if not depths or len(depths) != len(heads) or any(n < 1 or n % 2 for n in depths):
            raise ValueError(
                f"depths={tuple(depths)} and heads={tuple(heads)} must be as many, at least one "
                "each, and the depths even: blocks come in pairs, one of them shifted."
            )
        if any(dim * 2**level % n for level, n in enumerate(heads)):
            raise ValueError(
                f"dim={dim}, doubled on each level, must be a multiple of heads={tuple(heads)}."
            )
        if min(*size, inputs, outputs, patch, window) < 1:
            raise ValueError(
                f"size={tuple(size)}, inputs={inputs}, outputs={outputs}, patch={patch} and "
                f"window={window} must all be at least 1."
            )
        self.size, self.patch = (size[0], size[1]), patch
        step = patch * 2 ** (len(depths) - 1)
        self.padded = tuple(math.ceil(n / step) * step for n in size)
        grid = (self.padded[0] // patch, self.padded[1] // patch)
        self.embed = nn.Conv2d(inputs, dim, patch, patch)
        self.down, self.merge = nn.ModuleList(), nn.ModuleList()
        self.up, self.split, self.join = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level, (depth, number) in enumerate(zip(depths, heads, strict=True)):
            width, here = dim * 2**level, (grid[0] >> level, grid[1] >> level)
            self.down.append(stage(here, window, width, depth, number, ratio))
            if level < len(depths) - 1:
                self.merge.append(Merge(width))
                self.split.append(Split(2 * width))
                self.join.append(nn.Linear(2 * width, width, bias=False))
                self.up.append(stage(here, window, width, depth, number, ratio))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, outputs * patch**2)

    def forward(self, x: Tensor) -> Tensor:
        """Fields ``[B, inputs, H, W]`` to fields ``[B, outputs, H, W]``."""
        height, width = self.size
        if x.shape[-2:] != self.size:
            raise ValueError(
                f"x holds fields of {tuple(x.shape[-2:])}, but this Swin is made for {self.size}."
            )
        x = F.pad(x, (0, self.padded[1] - width, 0, self.padded[0] - height), mode="replicate")
        tokens = self.embed(x).permute(0, 2, 3, 1)  # [B, h, w, dim]
        kept = []
        for level, down in enumerate(self.down):
            tokens = down(tokens)
            if level < len(self.merge):
                kept.append(tokens)
                tokens = self.merge[level](tokens)
        for level in reversed(range(len(self.up))):
            tokens = torch.cat([self.split[level](tokens), kept[level]], -1)
            tokens = self.up[level](self.join[level](tokens))
        return spread(self.head(self.norm(tokens)), self.patch)[..., :height, :width]


class Block(nn.Module):
    """Attention within windows and a perceptron, each on normalised tokens, with a residual.

    Args:
        grid: height and width of the grid of tokens.
        window: height and width of the windows; smaller where the grid is.
        dim: width of the tokens.
        heads: attention heads.
        ratio: units of the perceptron, in widths.
        shifted: whether the windows are moved by half their size.
    """

    bias_of: Tensor
    strangers: Tensor

    def __init__(
        self, grid: Size, window: int, dim: int, heads: int, ratio: float, shifted: bool
    ) -> None:
        super().__init__()
        self.heads, self.grid = heads, grid
        self.window = (min(window, grid[0]), min(window, grid[1]))
        self.room = _room(grid[0], self.window[0]), _room(grid[1], self.window[1])
        # Windows that hold all of a direction cannot see more by moving along it.
        down, right = (w // 2 if w < n else 0 for n, w in zip(grid, self.window, strict=True))
        self.shift = (down, right) if shifted else (0, 0)
        self.attention_norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        hidden = round(ratio * dim)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim)
        )
        reach = (2 * self.window[0] - 1) * (2 * self.window[1] - 1)
        self.bias = nn.Parameter(0.02 * torch.randn(reach, heads))
        self.register_buffer("bias_of", relative_places(self.window), persistent=False)
        self.register_buffer("strangers", self._strangers(), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens ``[B, h, w, dim]`` to tokens."""
        tokens = tokens + self.attend(self.attention_norm(tokens))
        return tokens + self.perceptron(tokens)

    def attend(self, tokens: Tensor) -> Tensor:
        """Each token's mixture of those in its window, ``[B, h, w, dim]``."""
        (height, width), (down, right) = self.grid, self.shift
        tokens = F.pad(tokens, (0, 0, 0, self.room[1] - width, 0, self.room[0] - height))
        if down or right:
            tokens = tokens.roll((-down, -right), (1, 2))
        windows = cut(tokens, self.window)  # [B, n, t, dim]
        q, k, v = self.qkv(windows).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        bias = self.bias[self.bias_of].permute(2, 0, 1)  # [heads, t, t]
        bias = bias.masked_fill(self.strangers, -math.inf)  # [n, heads, t, t]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)  # [B, n, heads, t, ...]
        tokens = paste(self.out(mixed.transpose(2, 3).flatten(3)), self.window, self.room)
        if down or right:
            tokens = tokens.roll((down, right), (1, 2))
        return tokens[:, :height, :width]

    def _strangers(self) -> Tensor:
        """Which tokens must not see each other although a window holds both, ``[n, 1, t, t]``.

        Rolling brings opposite edges of the grid together, and padding adds places that hold
        nothing.
        """
        rows, columns = (
            origins(n, room, shift)
            for n, room, shift in zip(self.grid, self.room, self.shift, strict=True)
        )
        origin = (3 * rows.unsqueeze(1) + columns).view(1, *self.room, 1)
        origin = cut(origin, self.window)[0, :, :, 0]  # [n, t]
        return (origin.unsqueeze(1) != origin.unsqueeze(2)).unsqueeze(1)


def origins(length: int, room: int, shift: int) -> Tensor:
    """Where each place along a padded and rolled direction comes from, ``[room]``.

    Args:
        length: tokens along the direction.
        room: the same with padding.
        shift: by how many places it was rolled.

    Returns:
        0 for padding, 1 for what stayed in its order, 2 for what came round from the beginning.
    """
    place = torch.arange(room)
    came_round = place >= room - shift
    return torch.where(place.roll(-shift) < length, 1 + came_round.long(), 0)


def _room(length: int, window: int) -> int:
    """The length of whole windows that hold a direction."""
    return math.ceil(length / window) * window


def stage(grid: Size, window: int, dim: int, depth: int, heads: int, ratio: float) -> nn.Sequential:
    """Blocks whose windows stand still and are shifted in turn."""
    blocks = (Block(grid, window, dim, heads, ratio, bool(i % 2)) for i in range(depth))
    return nn.Sequential(*blocks)


class Merge(nn.Module):
    """Four neighbouring tokens ``[B, h, w, D]`` become one ``[B, h / 2, w / 2, 2 D]``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.linear = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Merge."""
        four = tokens.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # [B, h, 2, w, 2, D]
        return self.linear(self.norm(four.permute(0, 1, 3, 2, 4, 5).flatten(3)))


class Split(nn.Module):
    """One token ``[B, h, w, D]`` becomes four ``[B, 2 h, 2 w, D / 2]``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, 2 * dim, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Split."""
        return spread(self.linear(tokens), 2).permute(0, 2, 3, 1)


def cut(tokens: Tensor, window: Size) -> Tensor:
    """A grid ``[B, h, w, D]`` as windows ``[B, n, t, D]`` of t tokens."""
    boxes = tokens.unflatten(2, (-1, window[1])).unflatten(1, (-1, window[0]))
    return boxes.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def paste(windows: Tensor, window: Size, grid: Size) -> Tensor:
    """Windows ``[B, n, t, D]`` as the grid that they were cut from."""
    boxes = windows.unflatten(2, window).unflatten(1, (grid[0] // window[0], -1))
    return boxes.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def spread(tokens: Tensor, factor: int) -> Tensor:
    """Tokens ``[B, h, w, factor^2 C]`` as fields ``[B, C, factor h, factor w]``."""
    boxes = tokens.unflatten(-1, (factor, factor, -1))  # [B, h, w, f, f, C]
    return boxes.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def relative_places(window: Size) -> Tensor:
    """Which row of the table of biases belongs to each pair of tokens of a window, ``[t, t]``."""
    rows, columns = torch.meshgrid(*(torch.arange(n) for n in window), indexing="ij")
    down = rows.reshape(-1, 1) - rows.reshape(1, -1) + window[0] - 1
    right = columns.reshape(-1, 1) - columns.reshape(1, -1) + window[1] - 1
    return down * (2 * window[1] - 1) + right
