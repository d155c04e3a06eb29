"""The checks of notebook 02: right answers pass, likely mistakes are named."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import nll_loss

import spnb
from spnb.teach.checks import nb02
from tests.teach.judged import found


def slope(few: float, first: float, many: float, last: float) -> float:
    return (last - first) / (many - few)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda s, t, n, u: (t - s * slope(s, t, n, u), slope(s, t, n, u)), "right"),
        (lambda s, t, n, u: [u - n * slope(s, t, n, u), slope(s, t, n, u)], "right"),
        (lambda s, t, n, u: torch.tensor([t - s * slope(s, t, n, u), slope(s, t, n, u)]), "right"),
        (lambda s, t, n, u: (slope(s, t, n, u), t - s * slope(s, t, n, u)), "swapped-parts"),
        (lambda s, t, n, u: (0.0, u / n), "through-zero"),
        (lambda s, t, n, u: (t, slope(s, t, n, u)), "offset-is-first-time"),
        (lambda s, t, n, u: (t - slope(s, t, n, u), slope(s, t, n, u)), "one-sample-off"),
        (lambda s, t, n, u: (t, u - t), "difference-not-divided"),
        (
            lambda s, t, n, u: (t - s / slope(s, t, n, u), 1 / slope(s, t, n, u)),
            "inverted",
        ),
        (lambda s, t, n, u: (1.0, 1.0), "value"),
        (lambda s, t, n, u: slope(s, t, n, u), "not-a-pair"),
        (lambda s, t, n, u: None, "no-return"),
        (lambda s, t, n, u: (..., ...), "open"),
    ],
)
def test_exercise_1(answer: Callable[..., object], expected: str) -> None:
    nb02.exercise_1(answer)
    assert found() == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda m, b, s, w: w * ((m - b) // s), "right"),
        (lambda m, b, s, w: float(w * ((m - b) // s)), "right"),
        (lambda m, b, s, w: w * (m // s), "base-missing"),
        (lambda m, b, s, w: w * (m - b) // s, "memory-pooled"),
        (lambda m, b, s, w: (w * m - b) // s, "base-once"),
        (lambda m, b, s, w: w * math.ceil((m - b) / s), "rounded-up"),
        (lambda m, b, s, w: w * (m - b) / s, "not-whole"),
        (lambda m, b, s, w: (m - b) // s, "one-rank"),
        (lambda m, b, s, w: 0, "zero"),
        (lambda m, b, s, w: 7, "value"),
        (lambda m, b, s, w: ..., "open"),
    ],
)
def test_exercise_2(answer: Callable[..., object], expected: str) -> None:
    nb02.exercise_2(answer)
    assert found() == expected


def whole(ratio: float) -> int:
    return max(1, math.ceil(ratio - 1e-9))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda s, b, f: whole(s**2 / b**2 * (1 - f) / f), "right"),
        (lambda s, b, f: whole(s / b * (1 - f) / f), "not-squared"),
        (lambda s, b, f: whole(s**2 / b**2 / f), "not-of-total"),
        (lambda s, b, f: whole(s**2 / b**2 * f / (1 - f)), "batch-share"),
        (lambda s, b, f: whole((s / b * (1 - f) / f) ** 2), "share-squared"),
        (lambda s, b, f: s**2 / b**2 * (1 - f) / f, "not-whole"),
        (lambda s, b, f: max(1, math.floor(s**2 / b**2 * (1 - f) / f)), "rounded-down"),
        (lambda s, b, f: math.ceil(s**2 / b**2 * (1 - f) / f - 1e-9) - 1, "value"),
        (lambda s, b, f: ..., "open"),
    ],
)
def test_exercise_3(answer: Callable[..., object], expected: str) -> None:
    nb02.exercise_3(answer)
    assert found() == expected


def in_a_loop(noise: Tensor) -> Tensor:
    rows = []
    for row in noise:
        rows += [row, -row]
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda e: torch.stack([e, -e], 1).flatten(0, 1), "right"),
        (in_a_loop, "right"),
        (lambda e: torch.cat([e, -e]), "partners-apart"),
        (lambda e: e.repeat_interleave(2, 0), "same-sign"),
        (lambda e: e.repeat(2, 1), "same-sign"),
        (lambda e: -in_a_loop(e), "opposite-first"),
        (lambda e: torch.stack([e, -e], 1), "not-flattened"),
        (lambda e: e, "opposites-missing"),
        (lambda e: -e, "noise-missing"),
        (lambda e: e[:, :2], "shape"),
        (lambda e: None, "no-return"),
        (lambda e: ..., "open"),
    ],
)
def test_exercise_4(answer: Callable[[Tensor], object], expected: str) -> None:
    nb02.exercise_4(answer)
    assert found() == expected


def test_exercise_4_asks_for_the_pairs_of_the_library() -> None:
    posterior = spnb.MeanField(spnb.BayesianModel(torch.nn.Linear(2, 1)), antithetic=True)
    weights = posterior.draw(range(6), spnb.Key(0)).detach()
    noise = (weights - posterior.loc) / posterior.scale
    assert torch.allclose(noise, in_a_loop(noise[::2]), atol=1e-5)


def chosen(p: Tensor, y: Tensor) -> Tensor:
    return p[..., torch.arange(len(y)), y]


def right(p: Tensor, y: Tensor, size: int) -> Tensor:
    return -chosen(p.unflatten(0, (-1, size)).mean(1), y).log().mean(1)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (right, "right"),
        (lambda p, y, s: [nll_loss(g.mean(0).log(), y).item() for g in p.split(s)], "right"),
        (lambda p, y, s: -right(p, y, s), "sign"),
        (
            lambda p, y, s: -chosen(p, y).log().mean(1).unflatten(0, (-1, s)).mean(1),
            "mean-of-logs",
        ),
        (
            lambda p, y, s: -chosen(p.unflatten(0, (s, -1)).mean(0), y).log().mean(1),
            "strided-groups",
        ),
        (
            lambda p, y, s: -chosen(p, y).mean(1).log().unflatten(0, (-1, s)).mean(1),
            "images-first",
        ),
        (
            lambda p, y, s: -chosen(p, y).unflatten(0, (-1, s)).mean((1, 2)).log(),
            "images-first",
        ),
        (lambda p, y, s: right(p, y, s).mean(), "groups-averaged"),
        (lambda p, y, s: right(p, y, s).std(), "spread"),
        (lambda p, y, s: right(p, y, len(p)), "one-group"),
        (lambda p, y, s: right(p, y, 1), "single-draws"),
        (lambda p, y, s: right(p, y, s)[:3], "shape"),
        (lambda p, y, s: None, "no-return"),
        (lambda p, y, s: ..., "open"),
    ],
)
def test_exercise_5(answer: Callable[[Tensor, Tensor, int], object], expected: str) -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.randn(32, 11, 4, generator=generator).mul(2).softmax(-1)
    nb02.exercise_5(answer, probabilities, torch.arange(11) % 4)
    assert found() == expected
