"""How far two sets of draws are from each other."""

from __future__ import annotations

import torch
from torch import Tensor


def wasserstein(draws: Tensor, others: Tensor) -> Tensor:
    r"""1-Wasserstein distance of two empirical distributions, place by place.

    .. math:: W_1 = \int_0^1 |F^{-1}(u) - G^{-1}(u)| \, du

    with the quantile functions of the draws: how far the mass of one has to be carried to become
    the other, in the unit of the draws.

    Args:
        draws: ``[S, ...]``.
        others: ``[T, ...]``; S and T may differ.

    Returns:
        ``[...]``.
    """
    first, second = draws.sort(0).values, others.sort(0).values
    # Both quantile functions are steps; between neighbouring ends of steps neither moves.
    steps = [
        torch.arange(1, len(d) + 1, device=d.device).double() / len(d) for d in (first, second)
    ]
    ends = torch.cat(steps).sort().values
    widths = ends.diff(prepend=ends.new_zeros(1))
    middles = ends - widths / 2
    gaps = [d[(middles * len(d)).long().clamp(max=len(d) - 1)] for d in (first, second)]
    return torch.einsum("u,u...->...", widths.to(first), (gaps[0] - gaps[1]).abs())
