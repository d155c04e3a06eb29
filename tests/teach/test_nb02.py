"""The checks of notebook 02: right answers pass, likely mistakes are named."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import nll_loss

import spnb
from spnb.teach import check
from spnb.teach.checks import nb02


def said() -> str:
    return str(check.outcomes[-1])


def slope(few: float, first: float, many: float, last: float) -> float:
    return (last - first) / (many - few)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda s, t, n, u: (t - s * slope(s, t, n, u), slope(s, t, n, u)), "✓"),
        (lambda s, t, n, u: [u - n * slope(s, t, n, u), slope(s, t, n, u)], "✓"),
        (lambda s, t, n, u: torch.tensor([t - s * slope(s, t, n, u), slope(s, t, n, u)]), "✓"),
        (lambda s, t, n, u: (slope(s, t, n, u), t - s * slope(s, t, n, u)), "the other order"),
        (lambda s, t, n, u: (0.0, u / n), "hands the offset to the samples"),
        (lambda s, t, n, u: (t, slope(s, t, n, u)), "no sample at all"),
        (lambda s, t, n, u: (t - slope(s, t, n, u), slope(s, t, n, u)), "more samples than one"),
        (lambda s, t, n, u: (t, u - t), "divide it by how many they are"),
        (
            lambda s, t, n, u: (t - s / slope(s, t, n, u), 1 / slope(s, t, n, u)),
            "milliseconds a sample is asked for",
        ),
        (lambda s, t, n, u: (1.0, 1.0), "off by up to"),
        (lambda s, t, n, u: slope(s, t, n, u), "two numbers are wanted"),
        (lambda s, t, n, u: None, "return"),
        (lambda s, t, n, u: (..., ...), "not attempted yet"),
    ],
)
def test_exercise_1(answer: Callable[..., object], words: str) -> None:
    nb02.exercise_1(answer)
    assert words in said()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda m, b, s, w: w * ((m - b) // s), "✓"),
        (lambda m, b, s, w: float(w * ((m - b) // s)), "✓"),
        (lambda m, b, s, w: w * (m // s), "needs its base as well"),
        (lambda m, b, s, w: w * (m - b) // s, "no sample can lie on two ranks"),
        (lambda m, b, s, w: (w * m - b) // s, "a base of its own"),
        (lambda m, b, s, w: w * math.ceil((m - b) / s), "no longer fits"),
        (lambda m, b, s, w: w * (m - b) / s, "only whole samples"),
        (lambda m, b, s, w: (m - b) // s, "fits on one rank"),
        (lambda m, b, s, w: 0, "nothing fits?"),
        (lambda m, b, s, w: 7, "is 7, and that is not it"),
        (lambda m, b, s, w: ..., "not attempted yet"),
    ],
)
def test_exercise_2(answer: Callable[..., object], words: str) -> None:
    nb02.exercise_2(answer)
    assert words in said()


def whole(ratio: float) -> int:
    return max(1, math.ceil(ratio - 1e-9))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda s, b, f: whole(s**2 / b**2 * (1 - f) / f), "✓"),
        (lambda s, b, f: whole(s / b * (1 - f) / f), "square them"),
        (lambda s, b, f: whole(s**2 / b**2 / f), "*total* variance"),
        (lambda s, b, f: whole(s**2 / b**2 * f / (1 - f)), "your share is that of the batch"),
        (lambda s, b, f: whole((s / b * (1 - f) / f) ** 2), "must not be squared"),
        (lambda s, b, f: s**2 / b**2 * (1 - f) / f, "rounded *up*"),
        (lambda s, b, f: max(1, math.floor(s**2 / b**2 * (1 - f) / f)), "rounded *up*"),
        (lambda s, b, f: math.ceil(s**2 / b**2 * (1 - f) / f - 1e-9) - 1, "not it"),
        (lambda s, b, f: ..., "not attempted yet"),
    ],
)
def test_exercise_3(answer: Callable[..., object], words: str) -> None:
    nb02.exercise_3(answer)
    assert words in said()


def in_a_loop(noise: Tensor) -> Tensor:
    rows = []
    for row in noise:
        rows += [row, -row]
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda e: torch.stack([e, -e], 1).flatten(0, 1), "✓"),
        (in_a_loop, "✓"),
        (lambda e: torch.cat([e, -e]), "K rows apart"),
        (lambda e: e.repeat_interleave(2, 0), "the *same* sign"),
        (lambda e: e.repeat(2, 1), "the *same* sign"),
        (lambda e: -in_a_loop(e), "keep its sign"),
        (lambda e: torch.stack([e, -e], 1), "now flatten"),
        (lambda e: e, "opposites are missing"),
        (lambda e: -e, "the noise itself is missing"),
        (lambda e: e[:, :2], "has shape"),
        (lambda e: None, "return"),
        (lambda e: ..., "not attempted yet"),
    ],
)
def test_exercise_4(answer: Callable[[Tensor], object], words: str) -> None:
    nb02.exercise_4(answer)
    assert words in said()


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
    ("answer", "words"),
    [
        (right, "✓"),
        (lambda p, y, s: [nll_loss(g.mean(0).log(), y).item() for g in p.split(s)], "✓"),
        (lambda p, y, s: -right(p, y, s), "*negative*"),
        (
            lambda p, y, s: -chosen(p, y).log().mean(1).unflatten(0, (-1, s)).mean(1),
            "average their *probabilities*",
        ),
        (
            lambda p, y, s: -chosen(p.unflatten(0, (s, -1)).mean(0), y).log().mean(1),
            "neighbours belong together",
        ),
        (
            lambda p, y, s: -chosen(p, y).mean(1).log().unflatten(0, (-1, s)).mean(1),
            "before the logarithm",
        ),
        (
            lambda p, y, s: -chosen(p, y).unflatten(0, (-1, s)).mean((1, 2)).log(),
            "before the logarithm",
        ),
        (lambda p, y, s: right(p, y, s).mean(), "mean over the groups"),
        (lambda p, y, s: right(p, y, s).std(), "that is the spread already"),
        (lambda p, y, s: right(p, y, len(p)), "all draws together"),
        (lambda p, y, s: right(p, y, 1), "scores of single draws"),
        (lambda p, y, s: right(p, y, s)[:3], "has shape"),
        (lambda p, y, s: None, "return"),
        (lambda p, y, s: ..., "not attempted yet"),
    ],
)
def test_exercise_5(answer: Callable[[Tensor, Tensor, int], object], words: str) -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.randn(32, 11, 4, generator=generator).mul(2).softmax(-1)
    nb02.exercise_5(answer, probabilities, torch.arange(11) % 4)
    assert words in said()
