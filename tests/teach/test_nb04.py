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


def said() -> str:
    return str(check.outcomes[-1])


def stub(*_: object) -> object:
    answer = ...
    return answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x, kl, s, n, b, w: w * x.sum() / (s * b) + kl / n, "✓"),
        (lambda x, kl, s, n, b, w: x.mean() * (w * x.shape[1] / b) + kl / n, "✓"),
        (lambda x, kl, s, n, b, w: (w * x.sum() / (s * b) + kl / n).item(), "✓"),
        (lambda x, kl, s, n, b, w: x.mean() + kl / n, "mean of the means"),
        (lambda x, kl, s, n, b, w: x.mean() + kl / n / w, "as in notebook 03"),
        (lambda x, kl, s, n, b, w: x.sum() / (s * b) + kl / n, "W times too small"),
        (lambda x, kl, s, n, b, w: x.sum() / (s * b) + kl / n / w, "and so does the KL"),
        (lambda x, kl, s, n, b, w: w * x.sum() / (s * b) + kl / n / w, "right for a *sum*"),
        (lambda x, kl, s, n, b, w: w * (x.sum() / (s * b) + kl / n), "it counts W times"),
        (lambda x, kl, s, n, b, w: w * x.sum() / (s * b), "the KL is missing"),
        (lambda x, kl, s, n, b, w: w * x.sum() / (s * b) + kl, "not divided by N"),
        (lambda x, kl, s, n, b, w: w * x.sum() / b + kl / n, "divide by S"),
        (lambda x, kl, s, n, b, w: x.sum() / b + kl / n, "both the mean over the samples and W"),
        (lambda x, kl, s, n, b, w: w * x.sum() / s + kl / n, "divide by B."),
        (lambda x, kl, s, n, b, w: x.sum() / s + kl / n, "divide by B; and DDP divides by W"),
        (lambda x, kl, s, n, b, w: None, "return"),
        (stub, "not attempted yet"),
    ],
)
def test_exercise_1(answer: Callable[..., object], words: str) -> None:
    nb04.exercise_1(answer)
    assert words in said()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda a, s, g, w: (a / s / w, a / g), "✓"),
        (lambda a, s, g, w: [a / (w * s), a / g], "✓"),
        (lambda a, s, g, w: (a / s, a / g), "that is the speed-up"),
        (lambda a, s, g, w: (s / a, a / g), "and the world size is missing"),
        (lambda a, s, g, w: (s * w / a, a / g), "the other way round: more than 1"),
        (lambda a, s, g, w: (a / s * w, a / g), "divided by the world size, not multiplied"),
        (lambda a, s, g, w: (a / s / w, g / a), "you divided weak-scaling efficiency the other"),
        (lambda a, s, g, w: (a / s / w, a / g / w), "the work has grown with the ranks"),
        (lambda a, s, g, w: (a / s / w, w * a / g), "scaled speed-up"),
        (lambda a, s, g, w: (a / g, a / s / w), "strong first"),
        (lambda a, s, g, w: a / s / w, "two numbers are wanted"),
        (lambda a, s, g, w: (1.0, a / g), "strong-scaling efficiency is 1"),
        (lambda a, s, g, w: None, "return"),
        (lambda a, s, g, w: (..., ...), "not attempted yet"),
        (stub, "not attempted yet"),
    ],
)
def test_exercise_2(answer: Callable[..., object], words: str) -> None:
    nb04.exercise_2(answer)
    assert words in said()


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
    ("answer", "words"),
    [
        (lambda t: from_latest(starts(t)), "✓ Exercise 3: correct: in the measured step the ranks"),
        (lambda t: torch.tensor(from_latest(starts(t))), "wait 2.00, 0.00 ms"),
        (lambda t: [1e3 * span.seconds for span in reduces(t)], "waiting *and* sending"),
        (lambda t: [-wait for wait in from_latest(starts(t))], "the sign is wrong"),
        (lambda t: [s - min(starts(t)) for s in starts(t)], "comes *last* waits for nobody"),
        (lambda t: [wait / 1e3 for wait in from_latest(starts(t))], "those are seconds"),
        (lambda t: from_latest(stops(t)), "you compared the ends"),
        (lambda t: [max(stops(t)) - s for s in starts(t)], "not up to the end"),
        (lambda t: max(from_latest(starts(t))), "shape"),
        (lambda t: [0.0 for _ in t], "off by up to"),
        (lambda t: None, "return"),
        (stub, "not attempted yet"),
    ],
)
def test_exercise_3(answer: Callable[[Spans], object], words: str) -> None:
    nb04.exercise_3(answer, MEASURED)
    assert words in said()


def by_limit(s: int, b: int, w: int) -> Layout:
    samples, rows = Layout(sample=w), Layout(data=w)
    return samples if limit(samples, s, b) >= limit(rows, s, b) and s >= w else rows


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (by_limit, "✓"),
        (
            lambda s, b, w: Layout(sample=w) if s >= w and -(-s // w) * b <= s * -(-b // w)
            else Layout(data=w),
            "✓",
        ),
        (lambda s, b, w: Layout(sample=w), "S = 3, B = 256, 2 ranks: sample=2"),
        (lambda s, b, w: Layout(data=w), "both allow 2.00"),
        (
            lambda s, b, w: Layout(sample=w) if s % w == 0 else Layout(data=w),
            "S = 17, B = 3, 2 ranks: sample=1 × data=2 allows 1.50 times one rank",
        ),
        (lambda s, b, w: Layout(sample=w) if s >= w else Layout(data=w), "allows 1.50 times"),
        (
            lambda s, b, w: Layout(sample=w) if s % w == 0 and s > w else Layout(data=w),
            "S = 8, B = 8, 8 ranks: both allow",
        ),
        (
            lambda s, b, w: Layout(sample=w) if s != 3 and s > 1 else Layout(data=w),
            "S = 5, B = 1024, 4 ranks",
        ),
        (
            lambda s, b, w: Layout(sample=w) if (s, w) == (1, 2) else by_limit(s, b, w),
            "spnb.fit refuses sample=2",
        ),
        (
            lambda s, b, w: by_limit(s, b, w) if w < 4 else Layout(sample=w // 2, data=2),
            "hybrids are for notebook 05",
        ),
        (lambda s, b, w: "sample", "a spnb.Layout is wanted"),
        (lambda s, b, w: None, "return"),
        (stub, "not attempted yet"),
    ],
)  # fmt: skip
def test_exercise_4(answer: Callable[[int, int, int], object], words: str) -> None:
    nb04.exercise_4(answer)
    assert words in said()
