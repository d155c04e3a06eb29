"""The checks of notebook 09: right answers pass, likely mistakes are named."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from spnb.parallel.layout import Layout
from spnb.teach import check
from spnb.teach.checks import nb09
from tests.teach.judged import found


def share(latitude: Tensor) -> Tensor:
    weight = torch.deg2rad(latitude).cos()
    return (weight / weight.mean())[:, None]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda e, lat: (e.square() * share(lat)).mean().sqrt(), "right"),
        (lambda e, lat: e.square().mean().sqrt(), "not-weighted"),
        (
            lambda e, lat: (e.square() * torch.deg2rad(lat).cos()[:, None]).mean().sqrt(),
            "weights-not-normalised",
        ),
        (lambda e, lat: (e.square() * share(lat)).mean(), "no-square-root"),
        (lambda e, lat: (e * share(lat)).square().mean().sqrt(), "errors-weighted"),
        (
            lambda e, lat: (e.square() * (lat.cos() / lat.cos().mean())[:, None]).mean().sqrt(),
            "degrees",
        ),
        (lambda e, lat: (e.abs() * share(lat)).mean(), "absolute-not-squared"),
        (lambda e, lat: ..., "open"),
    ],
)
def test_exercise_1(answer: Callable[[Tensor, Tensor], object], expected: str) -> None:
    nb09.exercise_1(answer)
    assert found() == expected


def error(m: Tensor, t: Tensor) -> Tensor:
    return (m.mean(0) - t).square().mean()


def factor(m: Tensor) -> float:
    return (len(m) + 1) / len(m)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda m, t: (factor(m) * m.var(0).mean() / error(m, t)).sqrt(), "right"),
        (lambda m, t: (m.var(0).mean() / error(m, t)).sqrt(), "ensemble-factor-missing"),
        (
            lambda m, t: (factor(m) * m.var(0, correction=0).mean() / error(m, t)).sqrt(),
            "divided-by-s",
        ),
        (lambda m, t: (error(m, t) / (factor(m) * m.var(0).mean())).sqrt(), "inverted"),
        (lambda m, t: factor(m) * m.var(0).mean() / error(m, t), "no-square-root"),
        (
            lambda m, t: math.sqrt(factor(m)) * m.std(0).mean() / error(m, t).sqrt(),
            "deviations-averaged",
        ),
        (lambda m, t: ..., "open"),
    ],
)
def test_exercise_2(answer: Callable[[Tensor, Tensor], object], expected: str) -> None:
    nb09.exercise_2(answer)
    assert found() == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda w, i: 8 * w * i, "right"),
        (lambda w, i: 4 * w * i, "plain-network"),
        (lambda w, i: 6 * w * i, "one-moment"),
        (lambda w, i: 8 * w, "numbers-not-bytes"),
        (lambda w, i: 32 * w, "value"),
        (lambda w, i: ..., "open"),
    ],
)
def test_exercise_3(answer: Callable[[int, int], object], expected: str) -> None:
    nb09.exercise_3(answer)
    assert found() == expected


def test_exercise_3_says_at_which_precision() -> None:
    nb09.exercise_3(lambda w, i: 32 * w)
    assert "in double precision" in check.outcomes[-1].message


Totals = Mapping[Layout, float]


def fitting(totals: Totals, limit: float) -> list[Layout]:
    return [layout for layout, total in totals.items() if total <= limit]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda t, c: max(fitting(t, c), key=lambda w: w.data, default=None), "right"),
        (lambda t, c: max(t, key=lambda w: w.data), "does-not-fit"),
        (lambda t, c: min(fitting(t, c), key=lambda w: w.data, default=None), "fewer-data-ranks"),
        (lambda t, c: max(fitting(t, c) or t, key=lambda w: w.data), "nothing-fits"),
        (lambda t, c: (2, 4), "not-a-layout"),
        (lambda t, c: ..., "open"),
    ],
)
def test_exercise_4(answer: Callable[[Totals, float], object], expected: str) -> None:
    nb09.exercise_4(answer)
    assert found() == expected
