"""The checks of notebook 05: right answers pass, likely mistakes are named."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest
import torch

import spnb
from spnb.run.costs import Costs
from spnb.run.plan import Plan, layouts
from spnb.teach import check
from spnb.teach.checks import nb05
from tests.teach.judged import found


def grid(sample: int, data: int) -> torch.Tensor:
    return torch.arange(sample * data).view(sample, data)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda s, d: grid(s, d).T.tolist(), "right"),
        (lambda s, d: [tuple(range(i, s * d, d)) for i in range(d)], "right"),
        (lambda s, d: grid(s, d).T, "right"),
        (lambda s, d: grid(s, d).tolist(), "rows-not-columns"),
        (lambda s, d: grid(d, s).tolist(), "grid-turned"),
        (lambda s, d: grid(d, s).T.tolist(), "grid-turned"),
        (lambda s, d: [list(range(s * d))], "all-ranks"),
        (lambda s, d: [[0]], "value"),
        (lambda s, d: list(range(s * d)), "not-groups"),
        (lambda s, d: None, "no-return"),
        (lambda s, d: ..., "open"),
    ],
)
def test_exercise_1(answer: Callable[[int, int], object], expected: str) -> None:
    nb05.exercise_1(answer)
    assert found() == expected


def test_exercise_1_tells_the_groups() -> None:
    nb05.exercise_1(lambda s, d: [[0]])
    assert "[(0, 2, 4, 6), (1, 3, 5, 7)], not [(0,)]" in check.outcomes[-1].message


def up(total: int, parts: int) -> int:
    return math.ceil(total / parts)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda s, b, n, d: s * b / (n * d * up(s, n) * up(b, d)), "right"),
        (lambda s, b, n, d: 1.0, "mean-tile"),
        (lambda s, b, n, d: s * b / (n * d * s / n * b / d), "mean-tile"),
        (lambda s, b, n, d: s * b / (n * d) / up(s * b, n * d), "pairs-cut"),
        (lambda s, b, n, d: s * b / (n * d * up(s, n) * b / d), "rows-cut"),
        (lambda s, b, n, d: s * b / (n * d * s / n * up(b, d)), "samples-cut"),
        (lambda s, b, n, d: s * b / (n * d * (s // n) * (b // d)), "rounded-down"),
        (lambda s, b, n, d: s * b / (n * d * (s // n) * up(b, d)), "samples-rounded-down"),
        (lambda s, b, n, d: s * b / (up(s, n) * up(b, d)), "speed-up"),
        (lambda s, b, n, d: n * d * up(s, n) * up(b, d) / (s * b), "inverted"),
        (lambda s, b, n, d: (s // n) * (b // d) / (up(s, n) * up(b, d)), "smallest-tile"),
        (lambda s, b, n, d: None, "no-return"),
        (lambda s, b, n, d: ..., "open"),
    ],
)
def test_exercise_2(answer: Callable[..., object], expected: str) -> None:
    nb05.exercise_2(answer)
    assert found() == expected


def hops(ranks: int) -> int:
    return math.ceil(math.log2(ranks))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda n, w, a, b: 2 * (hops(w) * a + (w - 1) / w * n / b), "right"),
        (lambda n, w, a, b: hops(w) * a + (w - 1) / w * n / b, "all-gather-alone"),
        (lambda n, w, a, b: 2 * hops(w) * a + (w - 1) / w * n / b, "bytes-once"),
        (lambda n, w, a, b: hops(w) * a + 2 * (w - 1) / w * n / b, "latency-once"),
        (lambda n, w, a, b: 2 * (a + (w - 1) / w * n / b), "one-message"),
        (lambda n, w, a, b: 2 * ((w - 1) * a + (w - 1) / w * n / b), "ring-latency"),
        (lambda n, w, a, b: 2 * (math.log2(w) * a + (w - 1) / w * n / b), "not-whole"),
        (lambda n, w, a, b: 2 * (math.log(w) * a + (w - 1) / w * n / b), "natural-log"),
        (lambda n, w, a, b: 2 * (hops(w) * a + n / b), "own-share-moved"),
        (lambda n, w, a, b: 2 * (w - 1) / w * n / b, "latency-missing"),
        (lambda n, w, a, b: 2 * hops(w) * a, "bytes-missing"),
        (lambda n, w, a, b: 2 * (hops(w) * a + 8 * (w - 1) / w * n / b), "bits-not-bytes"),
        (lambda n, w, a, b: 2 * (hops(w) * a + (w - 1) / w * n * b), "value"),
        (lambda n, w, a, b: None, "no-return"),
        (lambda n, w, a, b: ..., "open"),
    ],
)
def test_exercise_3(answer: Callable[..., object], expected: str) -> None:
    nb05.exercise_3(answer)
    assert found() == expected


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
    ("answer", "expected"),
    [
        (right, "right"),
        (lambda *setting: spnb.Layout(*right(*setting)), "right"),
        (fewest_samples, "tie"),
        (most_samples, "samples-cut-first"),
        (lambda w, s, b: (1, w), "tie"),
        (lambda w, s, b: (w, 1), "idle-ranks"),
        (lambda w, s, b: (s, w // s), "no-layout"),
        (lambda w, s, b: (1, 2, 3), "not-a-pair"),
        (lambda w, s, b: (2, 2), "other-world-size"),
        (lambda w, s, b: 8, "not-a-pair"),
        (lambda w, s, b: (0, w), "no-layout"),
        (lambda w, s, b: None, "no-return"),
        (lambda w, s, b: ..., "open"),
        (still_open, "open"),
    ],
)
def test_exercise_4(answer: Callable[..., object], expected: str, plan: Plan) -> None:
    nb05.exercise_4(answer, plan)
    assert found() == expected


def test_exercise_4_tells_how_far_the_rule_goes(plan: Plan) -> None:
    nb05.exercise_4(right, plan)
    message = check.outcomes[-1].message
    agreed, of = [int(word) for word in message.split() if word.isdigit()][:2]
    assert 0 < agreed < of and re.search(r"\d+ × \d+", message)


@pytest.mark.parametrize(
    ("answer", "figures"),
    [
        (lambda w, s, b: (w, 1), "8 × 1"),
        (lambda w, s, b: (s, w // s), "data=0"),
        (lambda w, s, b: (0, w), "sample=0"),
        (lambda w, s, b: (2, 2), "2 × 2 is a layout of 4 ranks"),
    ],
)
def test_exercise_4_tells_the_layout(
    answer: Callable[..., object], figures: str, plan: Plan
) -> None:
    nb05.exercise_4(answer, plan)
    assert figures in check.outcomes[-1].message
