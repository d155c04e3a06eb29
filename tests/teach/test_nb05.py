"""The checks of notebook 05: right answers pass, likely mistakes are named."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

import spnb
from spnb.run.costs import Costs
from spnb.run.plan import Plan, layouts
from spnb.teach import check
from spnb.teach.checks import nb05


def said() -> str:
    return str(check.outcomes[-1])


def grid(sample: int, data: int) -> torch.Tensor:
    return torch.arange(sample * data).view(sample, data)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda s, d: grid(s, d).T.tolist(), "✓"),
        (lambda s, d: [tuple(range(i, s * d, d)) for i in range(d)], "✓"),
        (lambda s, d: grid(s, d).T, "✓"),
        (lambda s, d: grid(s, d).tolist(), "groups along `data`"),
        (lambda s, d: grid(d, s).tolist(), "the grid is turned"),
        (lambda s, d: grid(d, s).T.tolist(), "the grid is turned"),
        (lambda s, d: [list(range(s * d))], "sum the *gradient*"),
        (lambda s, d: [[0]], "the groups are [(0, 2, 4, 6), (1, 3, 5, 7)], not [(0,)]"),
        (lambda s, d: list(range(s * d)), "a list of lists"),
        (lambda s, d: None, "return"),
        (lambda s, d: ..., "not attempted yet"),
    ],
)
def test_exercise_1(answer: Callable[[int, int], object], words: str) -> None:
    nb05.exercise_1(answer)
    assert words in said()


def up(total: int, parts: int) -> int:
    return math.ceil(total / parts)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda s, b, n, d: s * b / (n * d * up(s, n) * up(b, d)), "✓"),
        (lambda s, b, n, d: 1.0, "you took the mean tile, not the largest"),
        (lambda s, b, n, d: s * b / (n * d * s / n * b / d), "you took the mean tile"),
        (lambda s, b, n, d: s * b / (n * d) / up(s * b, n * d), "forgets that samples cannot be"),
        (lambda s, b, n, d: s * b / (n * d * up(s, n) * b / d), "the rows cannot be cut either"),
        (lambda s, b, n, d: s * b / (n * d * s / n * up(b, d)), "the samples cannot be cut either"),
        (lambda s, b, n, d: s * b / (n * d * (s // n) * (b // d)), "you rounded down"),
        (lambda s, b, n, d: s * b / (n * d * (s // n) * up(b, d)), "rounded the samples down"),
        (lambda s, b, n, d: s * b / (up(s, n) * up(b, d)), "that is the speed-up"),
        (lambda s, b, n, d: n * d * up(s, n) * up(b, d) / (s * b), "upside down"),
        (lambda s, b, n, d: (s // n) * (b // d) / (up(s, n) * up(b, d)), "smallest tile with"),
        (lambda s, b, n, d: None, "return"),
        (lambda s, b, n, d: ..., "not attempted yet"),
    ],
)
def test_exercise_2(answer: Callable[..., object], words: str) -> None:
    nb05.exercise_2(answer)
    assert words in said()


def hops(ranks: int) -> int:
    return math.ceil(math.log2(ranks))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda n, w, a, b: 2 * (hops(w) * a + (w - 1) / w * n / b), "✓"),
        (lambda n, w, a, b: hops(w) * a + (w - 1) / w * n / b, "an all-reduce has two"),
        (lambda n, w, a, b: 2 * hops(w) * a + (w - 1) / w * n / b, "the bytes move twice"),
        (lambda n, w, a, b: hops(w) * a + 2 * (w - 1) / w * n / b, "the latencies come twice"),
        (lambda n, w, a, b: 2 * (a + (w - 1) / w * n / b), "messages, not one"),
        (lambda n, w, a, b: 2 * ((w - 1) * a + (w - 1) / w * n / b), "a ring's latency"),
        (lambda n, w, a, b: 2 * (math.log2(w) * a + (w - 1) / w * n / b), "round log₂ W up"),
        (lambda n, w, a, b: 2 * (math.log(w) * a + (w - 1) / w * n / b), "natural logarithm"),
        (lambda n, w, a, b: 2 * (hops(w) * a + n / b), "only (W - 1)/W of the bytes"),
        (lambda n, w, a, b: 2 * (w - 1) / w * n / b, "the latency is missing"),
        (lambda n, w, a, b: 2 * hops(w) * a, "the bytes are missing"),
        (lambda n, w, a, b: 2 * (hops(w) * a + 8 * (w - 1) / w * n / b), "not in bits"),
        (lambda n, w, a, b: 2 * (hops(w) * a + (w - 1) / w * n * b), "is expected"),
        (lambda n, w, a, b: None, "return"),
        (lambda n, w, a, b: ..., "not attempted yet"),
    ],
)
def test_exercise_3(answer: Callable[..., object], words: str) -> None:
    nb05.exercise_3(answer)
    assert words in said()


@pytest.fixture(scope="module")
def plan() -> Plan:
    costs = Costs(10**8, 0, 4, 10, 100, 0.0, 1e8, 0.0, 1e8, 1.0, 1e-3, 1e-3, False, "counted")
    return Plan((), costs, spnb.machines.H100)


def tile(layout: spnb.Layout, s: int, b: int) -> int:
    return up(s, layout.sample) * up(b, layout.data)


def right(size: int, s: int, b: int) -> tuple[int, int]:
    best = min(layouts(size, s, b), key=lambda layout: (tile(layout, s, b), -layout.sample))
    return best.sample, best.data


def fewest_samples(size: int, s: int, b: int) -> tuple[int, int]:
    best = min(layouts(size, s, b), key=lambda layout: (tile(layout, s, b), layout.sample))
    return best.sample, best.data


def most_samples(size: int, s: int, b: int) -> tuple[int, int]:
    last = list(layouts(size, s, b))[-1]
    return last.sample, last.data


def still_open(size: int, s: int, b: int) -> tuple[object, object]:
    sample, data = ..., ...
    return sample, data


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (right, "✓ Exercise 4: correct: in "),
        (lambda *setting: spnb.Layout(*right(*setting)), "✓"),
        (fewest_samples, "rule 2 then cuts the samples"),
        (most_samples, "or did you take the mean tile, not the largest?"),
        (lambda w, s, b: (1, w), "equally large tiles"),
        (lambda w, s, b: (w, 1), "with 8 × 1 some ranks have no work"),
        (lambda w, s, b: (s, w // s), "data=0 must be at least 1"),
        (lambda w, s, b: (1, 2, 3), "a pair of numbers is wanted"),
        (lambda w, s, b: (2, 2), "2 × 2 is a layout of 4 ranks"),
        (lambda w, s, b: 8, "a pair of numbers is wanted"),
        (lambda w, s, b: (0, w), "sample=0 must be at least 1"),
        (lambda w, s, b: None, "return"),
        (lambda w, s, b: ..., "not attempted yet"),
        (still_open, "not attempted yet"),
    ],
)
def test_exercise_4(answer: Callable[..., object], words: str, plan: Plan) -> None:
    nb05.exercise_4(answer, plan)
    assert words in said()


def test_exercise_4_tells_how_far_the_rule_goes(plan: Plan) -> None:
    nb05.exercise_4(right, plan)
    agreed, of = [int(word) for word in said().split() if word.isdigit()][:2]
    assert 0 < agreed < of and "the planner takes" in said()
