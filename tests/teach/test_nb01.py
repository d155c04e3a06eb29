"""The exercise checks of notebook 01: right answers pass, likely mistakes are named."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from spnb.teach.checks import nb01
from tests.teach.judged import found


def judged(exercise: Callable[..., None], answer: Any) -> str:
    exercise(answer)
    return found()


def total(means: Any, noise: float) -> Any:
    return (means.var(0) + noise**2).sqrt()


def covered(means: Any, sd: Any, targets: Any) -> Any:
    return ((targets - means.mean(0)).abs() < 1.645 * sd).double().mean()


RIGHT = {
    nb01.exercise_1: [lambda d, a, b: ((d > a) & (d < b)).all(1).double().mean()],
    nb01.exercise_2: [
        lambda m, s: (m.var(0), s.square().mean(0)),
        lambda m, s: (m.var(0, correction=0), s.square().mean(0)),
    ],
    nb01.exercise_3: [lambda m, n, t: covered(m, total(m, n), t)],
    nb01.exercise_4: [lambda s, e: math.ceil((s / e) ** 2 - 1e-9)],
}
WRONG = [
    (nb01.exercise_1, lambda d, a, b: ((d > a) & (d < b)).double().mean(), "weeks-counted"),
    (
        nb01.exercise_1,
        lambda d, a, b: ((d > a) & (d < b)).all(0).double().mean(),
        "wrong-dimension",
    ),
    (nb01.exercise_1, lambda d, a, b: ((d > a) & (d < b)).all(1).sum(), "count-not-share"),
    (nb01.exercise_2, lambda m, s: m.var(0) + s.square().mean(0), "not-a-pair"),
    (nb01.exercise_2, lambda m, s: (m.std(0), s.square().mean(0)), "deviation-not-variance"),
    (nb01.exercise_2, lambda m, s: (m.var(0), s.mean(0).square()), "square-of-mean"),
    (nb01.exercise_2, lambda m, s: (s.square().mean(0), m.var(0)), "swapped-parts"),
    (nb01.exercise_3, lambda m, n, t: covered(m, m.std(0), t), "epistemic-alone"),
    (nb01.exercise_3, lambda m, n, t: covered(m, torch.full_like(t, n), t), "noise-alone"),
    (nb01.exercise_3, lambda m, n, t: covered(m, m.std(0) + n, t), "deviations-added"),
    (nb01.exercise_3, lambda m, n, t: covered(m, total(m, n) / 1.645, t), "one-deviation"),
    (nb01.exercise_4, lambda s, e: math.ceil(s / e), "not-squared"),
    (nb01.exercise_4, lambda s, e: (s / e) ** 2, "not-whole"),
    (nb01.exercise_4, lambda s, e: math.floor((s / e) ** 2), "rounded-down"),
]


@pytest.mark.parametrize("exercise", RIGHT, ids=lambda e: e.__name__)
def test_right_answers_pass(exercise: Callable[..., None]) -> None:
    for answer in RIGHT[exercise]:
        assert judged(exercise, answer) == "right"


@pytest.mark.parametrize(("exercise", "answer", "expected"), WRONG)
def test_mistakes_are_named(exercise: Callable[..., None], answer: Any, expected: str) -> None:
    assert judged(exercise, answer) == expected


def test_stubs_are_not_attempts() -> None:
    def split_variance(means: Any, sds: Any) -> Any:
        epistemic = ...
        aleatoric = ...
        return epistemic, aleatoric

    assert judged(nb01.exercise_2, split_variance) == "open"
