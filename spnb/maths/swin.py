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

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Size = tuple[int, int]


class Swin(nn.Module):
    """Fields ``[B, inputs, H, W]`` to fields ``[B, outputs, H, W]``.

    Args:
        size: height and width of the fields; any numbers, since they are padded.
        inputs: fields that go in.
        outputs: fields that come out.
        patch: height and width of the patches that become tokens.
        window: height and width of the windows, in tokens.
        dim: width of the tokens at full height; it doubles with each level down.
        depths: number of blocks on each level, an even number each; the decoder mirrors them.
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
        if len(depths) != len(heads) or any(depth % 2 for depth in depths):
            raise ValueError(
                f"depths={tuple(depths)} and heads={tuple(heads)} must be as many, and the depths "
                "even: blocks come in pairs, one of them shifted."
            )
        if any(dim * 2**level % n for level, n in enumerate(heads)):
            raise ValueError(f"dim={dim}, doubled on each level, must divide by heads={heads}.")
        self.size, self.patch, self.outputs = size, patch, outputs
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
    mask: Tensor

    def __init__(
        self, grid: Size, window: int, dim: int, heads: int, ratio: float, shifted: bool
    ) -> None:
        super().__init__()
        self.heads = heads
        self.window = (min(window, grid[0]), min(window, grid[1]))
        room = tuple(math.ceil(n / w) * w for n, w in zip(grid, self.window, strict=True))
        self.grid, self.room = grid, (room[0], room[1])
        # Windows that hold all of a direction cannot see more by moving along it.
        self.shift = tuple(
            w // 2 if shifted and w < n else 0 for n, w in zip(grid, self.window, strict=True)
        )
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
        self.register_buffer("mask", self._mask(), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens ``[B, h, w, dim]`` to tokens."""
        tokens = tokens + self.attend(self.attention_norm(tokens))
        return tokens + self.perceptron(tokens)

    def attend(self, tokens: Tensor) -> Tensor:
        """Each token's mixture of those in its window, ``[B, h, w, dim]``."""
        (height, width), (down, right) = self.grid, self.shift
        tokens = F.pad(tokens, (0, 0, 0, self.room[1] - width, 0, self.room[0] - height))
        moved = tokens.roll((-down, -right), (1, 2))
        windows = cut(moved, self.window)  # [B, n, t, dim]
        q, k, v = self.qkv(windows).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        bias = self.bias[self.bias_of].permute(2, 0, 1) + self.mask  # [n, heads, t, t]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)  # [B, n, heads, t, ...]
        whole = paste(self.out(mixed.transpose(2, 3).flatten(3)), self.window, self.room)
        return whole.roll((down, right), (1, 2))[:, :height, :width]

    def _mask(self) -> Tensor:
        """What to add to the attention of each pair in each window, ``[n, 1, t, t]``.

        Rolling and padding bring tokens together that are no neighbours: they must not see each
        other.
        """
        region = torch.zeros(1, *self.room, 1)
        ends = [
            (0, room - window, room - shift, room) if shift else (0, room)
            for room, window, shift in zip(self.room, self.window, self.shift, strict=True)
        ]
        for i, (top, bottom) in enumerate(zip(ends[0], ends[0][1:], strict=False)):
            for j, (left, right) in enumerate(zip(ends[1], ends[1][1:], strict=False)):
                region[:, top:bottom, left:right] = 1 + 3 * i + j
        padding = F.pad(torch.ones(1, *self.grid, 1), (0, 0, *self._missing()))
        padding = padding.roll([-s for s in self.shift], (1, 2))
        region = cut(region * padding, self.window)[0, :, :, 0]  # [n, t]
        apart = region.unsqueeze(1) != region.unsqueeze(2)
        return torch.zeros(apart.shape).masked_fill(apart, -100.0).unsqueeze(1)

    def _missing(self) -> tuple[int, int, int, int]:
        """Padding of the last and the one but last direction of the grid, as `F.pad` takes it."""
        return 0, self.room[1] - self.grid[1], 0, self.room[0] - self.grid[0]


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
