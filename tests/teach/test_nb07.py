"""The checks of notebook 07: right answers pass, likely mistakes are named."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from spnb.teach import check
from spnb.teach.checks import nb07
from spnb.teach.recipes.augmentation import epochs_to

entr = torch.special.entr


def said() -> str:
    return str(check.outcomes[-1])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda s, p, d: ((s // p) ** 2, 3 * p**2 * d + d), "✓"),
        (lambda s, p, d: (s // p) ** 2, "two numbers"),
        (lambda s, p, d: (s // p, 3 * p**2 * d + d), "in one row"),
        (lambda s, p, d: (s**2, 3 * p**2 * d + d), "number of pixels"),
        (lambda s, p, d: (3 * (s // p) ** 2, 3 * p**2 * d + d), "three colours"),
        (lambda s, p, d: ((s // p) ** 2 + 1, 3 * p**2 * d + d), "no class token"),
        (lambda s, p, d: ((s // p) ** 2, 3 * p**2 * d), "biases are missing"),
        (lambda s, p, d: ((s // p) ** 2, p**2 * d + d), "three colours"),
        (lambda s, p, d: ((s // p) ** 2, 3 * p * d + d), "patch² pixels"),
        (lambda s, p, d: (..., ...), "not attempted yet"),
    ],
)
def test_exercise_1(answer: Callable[[int, int, int], object], words: str) -> None:
    nb07.exercise_1(answer)
    assert words in said()


def first(target: float, accuracy: Sequence[float]) -> int:
    return next(i for i, value in enumerate(accuracy) if value >= target)


def reached(target: float, accuracy: Sequence[float]) -> bool:
    return max(accuracy) >= target


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (epochs_to, "✓"),
        (lambda t, a: first(t, a) + 1 if reached(t, a) else None, "go back along the line"),
        (lambda t, a: first(t, a) if reached(t, a) else None, "add the part along"),
        (lambda t, a: epochs_to(t, a) + 1 if reached(t, a) else None, "after epoch 1, not after"),
        (lambda t, a: epochs_to(t, a) if reached(t, a) else 5.0, "never reached"),
        (lambda t, a: None, "but you return None"),
        (lambda t, a: ..., "not attempted yet"),
    ],
)
def test_exercise_2(answer: Callable[[float, Sequence[float]], object], words: str) -> None:
    nb07.exercise_2(answer)
    assert words in said()


def right(p: Tensor) -> Tensor:
    return entr(p.mean(0)).sum(-1) - entr(p).sum(-1).mean(0)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (right, "✓"),
        (lambda p: entr(p.mean(0)).sum(-1), "whole uncertainty"),
        (lambda p: entr(p).sum(-1).mean(0), "mean entropy of the samples"),
        (lambda p: -right(p), "entropy of the mean less"),
        (lambda p: right(p) / math.log(2), "in bits"),
        (lambda p: p.var(0).sum(-1), "a variance"),
        (lambda p: (-p * p.log()).sum(-1).mean(0), "NaN"),
        (lambda p: ..., "not attempted yet"),
    ],
)
def test_exercise_3(answer: Callable[[Tensor], object], words: str) -> None:
    nb07.exercise_3(answer)
    assert words in said()


def share(known: Tensor, unknown: Tensor, of_ties: float) -> Tensor:
    more, ties = unknown[:, None] > known[None, :], unknown[:, None] == known[None, :]
    return (more.double() + of_ties * ties.double()).mean()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda k, u: share(k, u, 0.5), "✓"),
        (lambda k, u: share(k, u, 0.0), "ties count one half"),
        (lambda k, u: share(k, u, 1.0), "not whole"),
        (lambda k, u: share(u, k, 0.5), "*unknown* one"),
        (lambda k, u: share(k, u, 0.5) * len(k) * len(u), "take the share"),
        (lambda k, u: float(u.mean() > k.mean()), "not the two means"),
        (lambda k, u: ..., "not attempted yet"),
    ],
)
def test_exercise_4(answer: Callable[[Tensor, Tensor], object], words: str) -> None:
    nb07.exercise_4(answer)
    assert words in said()
