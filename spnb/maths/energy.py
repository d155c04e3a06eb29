r"""The energy score (Gneiting & Raftery 2007): how far a forecast is from what happened.

.. math:: \mathrm{E} \|X - y\| - \frac{1}{2} \mathrm{E} \|X - X'\|

with independent X and X' from the forecast. A model's forecast is given by S samples of the
weights, and X and X' must come from two independent ones: the mean over all pairs of independent
samples is unbiased ("fair") for every S. The two samples of an antithetic pair are not independent,
so they are never compared with each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from spnb.maths.posteriors.drawing import Key

Noise = Callable[[Tensor, int], Tensor]
"""``(like [S, B, ...], copies) -> [copies * S, B, ...]`` standard normal numbers."""


def independent_pairs(size: int, antithetic: bool = False) -> tuple[Tensor, Tensor]:
    """Indices s < s' of all pairs of independent samples.

    Args:
        size: S.
        antithetic: whether samples 2k and 2k + 1 are partners of opposite noise; a last one may be
            alone.

    Raises:
        ValueError: there are none.
    """
    first, second = torch.triu_indices(size, size, offset=1)
    if antithetic:
        of_two_pairs = first // 2 != second // 2
        first, second = first[of_two_pairs], second[of_two_pairs]
    if not len(first):
        samples = "one antithetic pair" if size == 2 else f"{size} sample{'s'[: size != 1]}"
        raise ValueError(
            f"{samples.capitalize()} cannot tell how much independent samples differ: take at "
            f"least {3 if antithetic else 2}."
        )
    return first, second


def of_members(members: Tensor, target: Tensor, antithetic: bool = False) -> Tensor:
    """Energy score of a forecast that is given by draws, over all dimensions of an item.

    Args:
        members: draws ``[S, B, ...]``; with one only the distance from the target is left.
        target: ``[B, ...]``.
        antithetic: as for `independent_pairs`.

    Returns:
        ``[B]``.
    """
    flat = members.reshape(*members.shape[:2], -1)
    error = torch.linalg.vector_norm(flat - target.reshape(len(target), -1), dim=-1).mean(0)
    if len(members) == 1:
        return error
    first, second = independent_pairs(len(members), antithetic)
    # Not through the inner products: they would cancel where members are close to each other.
    rows = flat.transpose(0, 1)
    apart = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    return error - apart[:, first, second].mean(1) / 2


def of_normals(means: Tensor, scales: Tensor, target: Tensor, antithetic: bool = False) -> Tensor:
    r"""Energy score of one number an item under normal noise: the CRPS, in closed form.

    .. math:: \frac{1}{S} \sum_s A(y - m_s, v_s)
              - \frac{1}{2} \big\langle A(m_s - m_{s'}, v_s + v_{s'}) \big\rangle, \qquad
              A(m, v) = m (2 \Phi(m / \sqrt v) - 1) + 2 \sqrt v \varphi(m / \sqrt v)

    where A is the mean of a normal's absolute value (Grimit et al. 2006, doi 10.1256/qj.05.235) and
    the last mean is over independent pairs.

    Args:
        means: ``[S, B]``, of at least two samples.
        scales: standard deviations of the noise, ``[S, B]``.
        target: ``[B]``.
        antithetic: as for `independent_pairs`.

    Returns:
        ``[B]``.
    """
    first, second = independent_pairs(len(means), antithetic)
    error = _mean_distance(target - means, scales).mean(0)
    both = torch.hypot(scales[first], scales[second])
    return error - _mean_distance(means[first] - means[second], both).mean(0) / 2


def _mean_distance(mean: Tensor, scale: Tensor) -> Tensor:
    """Mean of the absolute value of a normal number."""
    z = mean / scale
    beyond = scale * math.sqrt(2 / math.pi) * (-z.square() / 2).exp()
    return mean * torch.erf(z / math.sqrt(2)) + beyond


def of_classes(probabilities: Tensor, labels: Tensor, antithetic: bool = False) -> Tensor:
    r"""Energy score of labels as one-hot vectors, in closed form.

    .. math:: \sqrt 2 \, \Big( \frac{1}{S} \sum_s (1 - p_{s,y})
              - \frac{1}{2} \big\langle 1 - p_s \cdot p_{s'} \big\rangle \Big)

    since two one-hot vectors are equal or :math:`\sqrt 2` apart. Where all samples have the same
    probabilities, it is their Brier score divided by :math:`\sqrt 2`.

    Args:
        probabilities: ``[S, B, ..., C]``, of at least two samples.
        labels: ``[B, ...]``.
        antithetic: as for `independent_pairs`.

    Returns:
        ``[B, ...]``.
    """
    size = len(probabilities)
    number = len(independent_pairs(size, antithetic)[0])
    hit = probabilities.gather(-1, labels.expand(size, *labels.shape).unsqueeze(-1)).mean(0)
    # Of all pairs at once, so that memory grows with S and not with its square.
    alike = (probabilities.sum(0).square() - probabilities.square().sum(0)) / 2
    if antithetic:
        alike = alike - (probabilities[:-1:2] * probabilities[1::2]).sum(0)
    apart = 1 - alike.sum(-1) / number
    return math.sqrt(2) * (1 - hit.squeeze(-1) - apart / 2)


class StepNoise:
    """Noise of one step of training, a function of the sample and the row of the batch alone.

    Every rank gets the same numbers for the same sample and row, so that every layout computes the
    same run.

    Args:
        key: of the step.
        samples: indices of the samples.
        rows: which rows of the batch are wanted.
        num_rows: how many the batch has.
    """

    def __init__(self, key: Key, samples: Sequence[int], rows: range, num_rows: int) -> None:
        self.key, self.samples, self.num_rows = key, samples, num_rows
        self.rows = slice(rows.start, rows.stop)
        self._drawn: Tensor | None = None

    def part(self, rows: slice) -> Noise:
        """The noise of some of these rows."""

        def noise(like: Tensor, copies: int) -> Tensor:
            if self._drawn is None:
                self._drawn = self._draw(like, copies)
            return self._drawn[:, rows]

        return noise

    def _draw(self, like: Tensor, copies: int) -> Tensor:
        parts = []
        for sample in self.samples:
            # The whole batch: a generator cannot begin in the middle.
            whole = like.new_empty(copies, self.num_rows, *like.shape[2:], requires_grad=False)
            whole.normal_(generator=self.key.fold(sample).generator(like.device))
            parts.append(whole[:, self.rows].clone())
        return torch.cat(parts)
