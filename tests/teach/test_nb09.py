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


def said() -> str:
    return str(check.outcomes[-1])


def share(latitude: Tensor) -> Tensor:
    weight = torch.deg2rad(latitude).cos()
    return (weight / weight.mean())[:, None]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda e, lat: (e.square() * share(lat)).mean().sqrt(), "✓"),
        (lambda e, lat: e.square().mean().sqrt(), "near the pole are smaller"),
        (
            lambda e, lat: (e.square() * torch.deg2rad(lat).cos()[:, None]).mean().sqrt(),
            "no mean of 1",
        ),
        (lambda e, lat: (e.square() * share(lat)).mean(), "square root is missing"),
        (lambda e, lat: (e * share(lat)).square().mean().sqrt(), "weigh the squares"),
        (
            lambda e, lat: (e.square() * (lat.cos() / lat.cos().mean())[:, None]).mean().sqrt(),
            "radians",
        ),
        (lambda e, lat: (e.abs() * share(lat)).mean(), "squares are wanted"),
        (lambda e, lat: ..., "not attempted yet"),
    ],
)
def test_exercise_1(answer: Callable[[Tensor, Tensor], object], words: str) -> None:
    nb09.exercise_1(answer)
    assert words in said()


def error(m: Tensor, t: Tensor) -> Tensor:
    return (m.mean(0) - t).square().mean()


def factor(m: Tensor) -> float:
    return (len(m) + 1) / len(m)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda m, t: (factor(m) * m.var(0).mean() / error(m, t)).sqrt(), "✓"),
        (lambda m, t: (m.var(0).mean() / error(m, t)).sqrt(), "(S + 1) / S"),
        (
            lambda m, t: (factor(m) * m.var(0, correction=0).mean() / error(m, t)).sqrt(),
            "divided by S - 1",
        ),
        (lambda m, t: (error(m, t) / (factor(m) * m.var(0).mean())).sqrt(), "error over spread"),
        (lambda m, t: factor(m) * m.var(0).mean() / error(m, t), "square root is missing"),
        (
            lambda m, t: math.sqrt(factor(m)) * m.std(0).mean() / error(m, t).sqrt(),
            "average the variances",
        ),
        (lambda m, t: ..., "not attempted yet"),
    ],
)
def test_exercise_2(answer: Callable[[Tensor, Tensor], object], words: str) -> None:
    nb09.exercise_2(answer)
    assert words in said()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda w, i: 8 * w * i, "✓"),
        (lambda w, i: 4 * w * i, "a mean *and* a scale"),
        (lambda w, i: 6 * w * i, "*two* moments|gradients are missing"),
        (lambda w, i: 8 * w, "itemsize bytes"),
        (lambda w, i: 32 * w, "in double precision"),
        (lambda w, i: ..., "not attempted yet"),
    ],
)
def test_exercise_3(answer: Callable[[int, int], object], words: str) -> None:
    nb09.exercise_3(answer)
    assert any(part in said() for part in words.split("|"))


Totals = Mapping[Layout, float]


def fitting(totals: Totals, limit: float) -> list[Layout]:
    return [layout for layout, total in totals.items() if total <= limit]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda t, c: max(fitting(t, c), key=lambda w: w.data, default=None), "✓"),
        (lambda t, c: max(t, key=lambda w: w.data), "and the card has"),
        (lambda t, c: min(fitting(t, c), key=lambda w: w.data, default=None), "more data ranks"),
        (lambda t, c: max(fitting(t, c) or t, key=lambda w: w.data), "nothing fits: return None"),
        (lambda t, c: (2, 4), "a layout is wanted"),
        (lambda t, c: ..., "not attempted yet"),
    ],
)
def test_exercise_4(answer: Callable[[Totals, float], object], words: str) -> None:
    nb09.exercise_4(answer)
    assert words in said()
