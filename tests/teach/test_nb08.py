"""The checks of notebook 08: right answers pass, likely mistakes are named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Tensor

from spnb.teach.checks import nb08
from tests.teach.judged import found


def far(z: Tensor, y: float) -> Tensor:
    return (z - y).abs().mean()


def pairs(z: Tensor) -> Tensor:
    return (z[:, None] - z[None, :]).abs().sum()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda z, y: far(z, y) - pairs(z) / (2 * len(z) * (len(z) - 1)), "right"),
        (lambda z, y: (far(z, y) - pairs(z) / (2 * len(z) * (len(z) - 1))).item(), "right"),
        (lambda z, y: far(z, y) - pairs(z) / (2 * len(z) ** 2), "self-pairs"),
        (lambda z, y: far(z, y), "pairs-missing"),
        (lambda z, y: far(z, y) - pairs(z) / (len(z) * (len(z) - 1)), "pairs-not-halved"),
        (lambda z, y: far(z, y) + pairs(z) / (2 * len(z) * (len(z) - 1)), "pairs-added"),
        (lambda z, y: (z.mean() - y).abs(), "error-of-mean"),
        (lambda z, y: None, "no-return"),
        (lambda z, y: ..., "open"),
    ],
)
def test_exercise_1(answer: Callable[[Tensor, float], object], expected: str) -> None:
    nb08.exercise_1(answer)
    assert found() == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda p, e: e.square().mean(0).sqrt().expand_as(p), "right"),
        (lambda p, e: e.square().mean(0).sqrt(), "not-expanded"),
        (lambda p, e: e.std(0).expand_as(p), "standard-deviation"),
        (lambda p, e: e.std(0, correction=0).expand_as(p), "mean-error-dropped"),
        (lambda p, e: e.square().mean().sqrt().expand_as(p), "all-dimensions"),
        (lambda p, e: e.square().mean(0).expand_as(p), "no-square-root"),
        (lambda p, e: e.abs().mean(0).expand_as(p), "absolute-not-squared"),
        (lambda p, e: ..., "open"),
    ],
)
def test_exercise_2(answer: Callable[[Tensor, Tensor], object], expected: str) -> None:
    nb08.exercise_2(answer)
    assert found() == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda lo, hi, t: ((t >= lo) & (t <= hi)).double().mean(0), "right"),
        (lambda lo, hi, t: ((t >= lo) & (t <= hi)).double().mean(1), "wrong-dimension"),
        (lambda lo, hi, t: ((t >= lo) & (t <= hi)).double().mean(), "all-dimensions"),
        (lambda lo, hi, t: ((t < lo) | (t > hi)).double().mean(0), "share-outside"),
        (lambda lo, hi, t: (t >= lo).double().mean(0), "lower-edge-only"),
        (lambda lo, hi, t: (t <= hi).double().mean(0), "upper-edge-only"),
        (lambda lo, hi, t: ((t >= lo) & (t <= hi)).sum(0), "count-not-share"),
        (lambda lo, hi, t: ..., "open"),
    ],
)
def test_exercise_3(answer: Callable[[Tensor, Tensor, Tensor], object], expected: str) -> None:
    nb08.exercise_3(answer)
    assert found() == expected


def rms(s: Tensor) -> Tensor:
    return s.square().mean(0).sqrt()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda m, s: (rms(s), m.std(0, correction=0)), "right"),
        (lambda m, s: rms(s), "not-a-pair"),
        (lambda m, s: (s.mean(0), m.std(0, correction=0)), "deviations-averaged"),
        (lambda m, s: (s.square().mean(0), m.std(0)), "no-square-root"),
        (lambda m, s: (m.std(0, correction=0), rms(s)), "swapped-parts"),
        (lambda m, s: (rms(s), m.std(0)), "divided-by-s-minus-1"),
        (lambda m, s: (rms(s), m.var(0, correction=0)), "no-square-root"),
        (
            lambda m, s: (rms(s), (rms(s) ** 2 + m.var(0, correction=0)).sqrt()),
            "total-spread",
        ),
        (lambda m, s: (..., ...), "open"),
    ],
)
def test_exercise_4(answer: Callable[[Tensor, Tensor], object], expected: str) -> None:
    nb08.exercise_4(answer)
    assert found() == expected
