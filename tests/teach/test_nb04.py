"""The checks of notebook 04: right answers pass, likely mistakes are named."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from spnb.parallel.layout import Layout
from spnb.parallel.trace import Span
from spnb.teach import check
from spnb.teach.checks import nb04
from spnb.teach.racing import limit
from tests.teach.judged import found


def stub(*_: object) -> object:
    answer = ...
    return answer


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda x, kl, s, n, b, w: w * x.sum() / (s * b) + kl / n, "right"),
        (lambda x, kl, s, n, b, w: x.mean() * (w * x.shape[1] / b) + kl / n, "right"),
        (lambda x, kl, s, n, b, w: (w * x.sum() / (s * b) + kl / n).item(), "right"),
        (lambda x, kl, s, n, b, w: x.mean() + kl / n, "mean-of-means"),
        (lambda x, kl, s, n, b, w: x.mean() + kl / n / w, "mean-of-means-and-kl-too-small"),
        (lambda x, kl, s, n, b, w: x.sum() / (s * b) + kl / n, "data-term-too-small"),
        (lambda x, kl, s, n, b, w: x.sum() / (s * b) + kl / n / w, "both-too-small"),
        (lambda x, kl, s, n, b, w: w * x.sum() / (s * b) + kl / n / w, "kl-too-small"),
        (lambda x, kl, s, n, b, w: w * (x.sum() / (s * b) + kl / n), "kl-counted-twice"),
        (lambda x, kl, s, n, b, w: w * x.sum() / (s * b), "kl-missing"),
        (lambda x, kl, s, n, b, w: w * x.sum() / (s * b) + kl, "kl-not-divided"),
        (lambda x, kl, s, n, b, w: w * x.sum() / (s * b) + kl / b, "kl-by-batch"),
        (lambda x, kl, s, n, b, w: w * x.sum() / b + kl / n, "samples-not-averaged"),
        (lambda x, kl, s, n, b, w: x.sum() / b + kl / n, "samples-not-averaged-and-w-missing"),
        (lambda x, kl, s, n, b, w: w * x.sum() / s + kl / n, "rows-not-averaged"),
        (lambda x, kl, s, n, b, w: x.sum() / s + kl / n, "rows-not-averaged-and-w-missing"),
        (lambda x, kl, s, n, b, w: None, "no-return"),
        (stub, "open"),
    ],
)
def test_exercise_1(answer: Callable[..., object], expected: str) -> None:
    nb04.exercise_1(answer)
    assert found() == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda a, s, g, w: (a / s / w, a / g), "right"),
        (lambda a, s, g, w: [a / (w * s), a / g], "right"),
        (lambda a, s, g, w: (a / s, a / g), "speed-up"),
        (lambda a, s, g, w: (s / a, a / g), "strong-inverted-and-w-missing"),
        (lambda a, s, g, w: (s * w / a, a / g), "strong-inverted"),
        (lambda a, s, g, w: (a / s * w, a / g), "multiplied-by-ranks"),
        (lambda a, s, g, w: (a / s / w, g / a), "weak-inverted"),
        (lambda a, s, g, w: (a / s / w, a / g / w), "weak-divided-by-ranks"),
        (lambda a, s, g, w: (a / s / w, w * a / g), "scaled-speed-up"),
        (lambda a, s, g, w: (a / g, a / s / w), "swapped-parts"),
        (lambda a, s, g, w: a / s / w, "not-a-pair"),
        (lambda a, s, g, w: (1.0, a / g), "value"),
        (lambda a, s, g, w: None, "no-return"),
        (lambda a, s, g, w: (..., ...), "open"),
        (stub, "open"),
    ],
)
def test_exercise_2(answer: Callable[..., object], expected: str) -> None:
    nb04.exercise_2(answer)
    assert found() == expected


Spans = Sequence[Sequence[Span]]

MEASURED = [
    [Span("all-reduce", 50.010, 50.019), Span("step", 50.0, 50.02)],
    [Span("all-reduce", 50.012, 50.018), Span("step", 50.001, 50.02)],
]


def reduces(timeline: Spans) -> list[Span]:
    return [span for spans in timeline for span in spans if span.name == "all-reduce"]


def starts(timeline: Spans) -> list[float]:
    return [1e3 * span.start for span in reduces(timeline)]


def stops(timeline: Spans) -> list[float]:
    return [1e3 * span.stop for span in reduces(timeline)]


def from_latest(values: Sequence[float]) -> list[float]:
    return [max(values) - value for value in values]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda t: from_latest(starts(t)), "right"),
        (lambda t: torch.tensor(from_latest(starts(t))), "right"),
        (lambda t: [1e3 * span.seconds for span in reduces(t)], "whole-all-reduce"),
        (lambda t: [-wait for wait in from_latest(starts(t))], "sign"),
        (lambda t: [s - min(starts(t)) for s in starts(t)], "lateness"),
        (lambda t: [wait / 1e3 for wait in from_latest(starts(t))], "seconds-not-ms"),
        (lambda t: from_latest(stops(t)), "ends-compared"),
        (lambda t: [max(stops(t)) - s for s in starts(t)], "end-not-arrival"),
        (lambda t: max(from_latest(starts(t))), "shape"),
        (lambda t: [0.0 for _ in t], "value"),
        (lambda t: None, "no-return"),
        (stub, "open"),
    ],
)
def test_exercise_3(answer: Callable[[Spans], object], expected: str) -> None:
    nb04.exercise_3(answer, MEASURED)
    assert found() == expected


def test_exercise_3_tells_the_waits() -> None:
    nb04.exercise_3(lambda t: from_latest(starts(t)), MEASURED)
    assert "2.00, 0.00 ms" in check.outcomes[-1].message


def by_limit(s: int, b: int, w: int) -> Layout:
    samples, rows = Layout(sample=w), Layout(data=w)
    return samples if limit(samples, s, b) >= limit(rows, s, b) and s >= w else rows


def all_rows(s: int, b: int, w: int) -> Layout:
    return Layout(data=w)


def if_enough(s: int, b: int, w: int) -> Layout:
    return Layout(sample=w) if s >= w else Layout(data=w)


def if_even(s: int, b: int, w: int) -> Layout:
    return Layout(sample=w) if s % w == 0 else Layout(data=w)


def if_even_and_more(s: int, b: int, w: int) -> Layout:
    return Layout(sample=w) if s % w == 0 and s > w else Layout(data=w)


def if_not_three(s: int, b: int, w: int) -> Layout:
    return Layout(sample=w) if s != 3 and s > 1 else Layout(data=w)


def one_sample_on_two(s: int, b: int, w: int) -> Layout:
    return Layout(sample=w) if (s, w) == (1, 2) else by_limit(s, b, w)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (by_limit, "right"),
        (
            lambda s, b, w: Layout(sample=w) if s >= w and -(-s // w) * b <= s * -(-b // w)
            else Layout(data=w),
            "right",
        ),
        (lambda s, b, w: Layout(sample=w), "larger-tile"),
        (all_rows, "tie"),
        (if_even, "larger-tile"),
        (if_enough, "larger-tile"),
        (if_even_and_more, "tie"),
        (if_not_three, "larger-tile"),
        (one_sample_on_two, "idle-ranks"),
        (
            lambda s, b, w: by_limit(s, b, w) if w < 4 else Layout(sample=w // 2, data=2),
            "hybrid",
        ),
        (lambda s, b, w: "sample", "not-a-layout"),
        (lambda s, b, w: None, "no-return"),
        (stub, "open"),
    ],
)  # fmt: skip
def test_exercise_4(answer: Callable[[int, int, int], object], expected: str) -> None:
    nb04.exercise_4(answer)
    assert found() == expected


@pytest.mark.parametrize(
    ("answer", "setting", "figures"),
    [
        (lambda s, b, w: Layout(sample=w), "S = 3, B = 256, 2 ranks", "sample=2 × data=1 "),
        (all_rows, "S = 16, B = 256, 2 ranks", " 2.00;"),
        (if_even, "S = 17, B = 3, 2 ranks", "sample=1 × data=2 allows 1.50 "),
        (if_enough, "S = 3, B = 256, 2 ranks", "sample=2 × data=1 allows 1.50 "),
        (if_even_and_more, "S = 8, B = 8, 8 ranks", " 8.00;"),
        (if_not_three, "S = 5, B = 1024, 4 ranks", "sample=4 × data=1 allows 2.50 "),
        (one_sample_on_two, "S = 1, B = 64, 2 ranks", "sample=2 × data=1,"),
    ],
)
def test_exercise_4_tells_where_the_choice_is_wrong(
    answer: Callable[[int, int, int], Layout], setting: str, figures: str
) -> None:
    nb04.exercise_4(answer)
    assert f"{setting}: " in check.outcomes[-1].message
    assert figures in check.outcomes[-1].message
