"""The checks of notebook 08: right answers pass, likely mistakes are named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Tensor

from spnb.teach import check
from spnb.teach.checks import nb08


def said() -> str:
    return str(check.outcomes[-1])


def far(z: Tensor, y: float) -> Tensor:
    return (z - y).abs().mean()


def pairs(z: Tensor) -> Tensor:
    return (z[:, None] - z[None, :]).abs().sum()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda z, y: far(z, y) - pairs(z) / (2 * len(z) * (len(z) - 1)), "✓"),
        (lambda z, y: (far(z, y) - pairs(z) / (2 * len(z) * (len(z) - 1))).item(), "✓"),
        (lambda z, y: far(z, y) - pairs(z) / (2 * len(z) ** 2), "S (S - 1)"),
        (lambda z, y: far(z, y), "second part is missing"),
        (lambda z, y: far(z, y) - pairs(z) / (len(z) * (len(z) - 1)), "halve their mean"),
        (lambda z, y: far(z, y) + pairs(z) / (2 * len(z) * (len(z) - 1)), "is subtracted"),
        (lambda z, y: (z.mean() - y).abs(), "error of the mean"),
        (lambda z, y: None, "return"),
        (lambda z, y: ..., "not attempted yet"),
    ],
)
def test_exercise_1(answer: Callable[[Tensor, float], object], words: str) -> None:
    nb08.exercise_1(answer)
    assert words in said()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda p, e: e.square().mean(0).sqrt().expand_as(p), "✓"),
        (lambda p, e: e.square().mean(0).sqrt(), "each of the N days"),
        (lambda p, e: e.std(0).expand_as(p), "too high on average"),
        (lambda p, e: e.std(0, correction=0).expand_as(p), "mean error has to count"),
        (lambda p, e: e.square().mean().sqrt().expand_as(p), "noise of its own"),
        (lambda p, e: e.square().mean(0).expand_as(p), "square root is missing"),
        (lambda p, e: e.abs().mean(0).expand_as(p), "do not take their size"),
        (lambda p, e: ..., "not attempted yet"),
    ],
)
def test_exercise_2(answer: Callable[[Tensor, Tensor], object], words: str) -> None:
    nb08.exercise_2(answer)
    assert words in said()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda lo, hi, t: ((t >= lo) & (t <= hi)).double().mean(0), "✓"),
        (lambda lo, hi, t: ((t >= lo) & (t <= hi)).double().mean(1), "over the days"),
        (lambda lo, hi, t: ((t >= lo) & (t <= hi)).double().mean(), "one number for all"),
        (lambda lo, hi, t: ((t < lo) | (t > hi)).double().mean(0), "share outside"),
        (lambda lo, hi, t: (t >= lo).double().mean(0), "above the interval"),
        (lambda lo, hi, t: (t <= hi).double().mean(0), "below the interval"),
        (lambda lo, hi, t: ((t >= lo) & (t <= hi)).sum(0), "how many days"),
        (lambda lo, hi, t: ..., "not attempted yet"),
    ],
)
def test_exercise_3(answer: Callable[[Tensor, Tensor, Tensor], object], words: str) -> None:
    nb08.exercise_3(answer)
    assert words in said()


def rms(s: Tensor) -> Tensor:
    return s.square().mean(0).sqrt()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda m, s: (rms(s), m.std(0, correction=0)), "✓"),
        (lambda m, s: rms(s), "two tensors"),
        (lambda m, s: (s.mean(0), m.std(0, correction=0)), "variances are averaged"),
        (lambda m, s: (s.square().mean(0), m.std(0)), "square root is missing"),
        (lambda m, s: (m.std(0, correction=0), rms(s)), "the order is"),
        (lambda m, s: (rms(s), m.std(0)), "S - 1"),
        (lambda m, s: (rms(s), m.var(0, correction=0)), "square root is missing"),
        (
            lambda m, s: (rms(s), (rms(s) ** 2 + m.var(0, correction=0)).sqrt()),
            "whole spread",
        ),
        (lambda m, s: (..., ...), "not attempted yet"),
    ],
)
def test_exercise_4(answer: Callable[[Tensor, Tensor], object], words: str) -> None:
    nb08.exercise_4(answer)
    assert words in said()
