"""The checks of notebook 07: right answers pass, likely mistakes are named."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from spnb.teach.checks import nb07
from spnb.teach.recipes.augmentation import epochs_to
from tests.teach.judged import found

entr = torch.special.entr


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda s, p, d: ((s // p) ** 2, 3 * p**2 * d + d), "right"),
        (lambda s, p, d: (s // p) ** 2, "not-a-pair"),
        (lambda s, p, d: (s // p, 3 * p**2 * d + d), "one-row"),
        (lambda s, p, d: (s**2, 3 * p**2 * d + d), "pixels"),
        (lambda s, p, d: (3 * (s // p) ** 2, 3 * p**2 * d + d), "token-per-colour"),
        (lambda s, p, d: ((s // p) ** 2 + 1, 3 * p**2 * d + d), "class-token"),
        (lambda s, p, d: ((s // p) ** 2, 3 * p**2 * d), "bias-missing"),
        (lambda s, p, d: ((s // p) ** 2, p**2 * d + d), "one-colour"),
        (lambda s, p, d: ((s // p) ** 2, 3 * p * d + d), "patch-not-squared"),
        (lambda s, p, d: (..., ...), "open"),
    ],
)
def test_exercise_1(answer: Callable[[int, int, int], object], expected: str) -> None:
    nb07.exercise_1(answer)
    assert found() == expected


def first(target: float, accuracy: Sequence[float]) -> int:
    return next(i for i, value in enumerate(accuracy) if value >= target)


def reached(target: float, accuracy: Sequence[float]) -> bool:
    return max(accuracy) >= target


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (epochs_to, "right"),
        (lambda t, a: first(t, a) + 1 if reached(t, a) else None, "epoch-after"),
        (lambda t, a: first(t, a) if reached(t, a) else None, "epoch-before"),
        (lambda t, a: epochs_to(t, a) + 1 if reached(t, a) else None, "one-epoch-late"),
        (lambda t, a: epochs_to(t, a) if reached(t, a) else 5.0, "number-though-unreached"),
        (lambda t, a: None, "none-though-reached"),
        (lambda t, a: ..., "open"),
    ],
)
def test_exercise_2(answer: Callable[[float, Sequence[float]], object], expected: str) -> None:
    nb07.exercise_2(answer)
    assert found() == expected


def right(p: Tensor) -> Tensor:
    return entr(p.mean(0)).sum(-1) - entr(p).sum(-1).mean(0)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (right, "right"),
        (lambda p: entr(p.mean(0)).sum(-1), "total-entropy"),
        (lambda p: entr(p).sum(-1).mean(0), "mean-entropy"),
        (lambda p: -right(p), "reversed-difference"),
        (lambda p: right(p) / math.log(2), "bits"),
        (lambda p: p.var(0).sum(-1), "variance"),
        (lambda p: (-p * p.log()).sum(-1).mean(0), "nan"),
        (lambda p: ..., "open"),
    ],
)
def test_exercise_3(answer: Callable[[Tensor], object], expected: str) -> None:
    nb07.exercise_3(answer)
    assert found() == expected


def share(known: Tensor, unknown: Tensor, of_ties: float) -> Tensor:
    more, ties = unknown[:, None] > known[None, :], unknown[:, None] == known[None, :]
    return (more.double() + of_ties * ties.double()).mean()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda k, u: share(k, u, 0.5), "right"),
        (lambda k, u: share(k, u, 0.0), "ties-not-counted"),
        (lambda k, u: share(k, u, 1.0), "ties-counted-whole"),
        (lambda k, u: share(u, k, 0.5), "reversed-pairs"),
        (lambda k, u: share(k, u, 0.5) * len(k) * len(u), "count-not-share"),
        (lambda k, u: float(u.mean() > k.mean()), "means-compared"),
        (lambda k, u: ..., "open"),
    ],
)
def test_exercise_4(answer: Callable[[Tensor, Tensor], object], expected: str) -> None:
    nb07.exercise_4(answer)
    assert found() == expected
