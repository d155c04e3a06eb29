"""The checks of notebook 12: right answers pass, likely mistakes are named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from spnb.run.history import History
from spnb.teach import check
from spnb.teach.checks import nb12
from spnb.teach.symptoms import Symptoms
from tests.teach.judged import found


def own_prior(
    width: Callable[[Tensor], float], norm: Any = None, kind: Any = dist.Normal, bias: float = 1.0
) -> Callable[[str, Tensor], Any]:
    def prior(name: str, parameter: Tensor) -> Any:
        if name.startswith("norm"):
            return norm
        return kind(0, bias if parameter.dim() == 1 else width(parameter))

    return prior


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (own_prior(lambda p: p[0].numel() ** -0.5), "right"),
        (own_prior(lambda p: p[0].numel() ** -0.5, norm=dist.Normal(0, 1)), "prior-on-norm"),
        (own_prior(lambda p: p[0].numel() ** -0.5, kind=dist.Laplace), "not-normal"),
        (own_prior(lambda p: p.shape[0] ** -0.5), "outputs-not-inputs"),
        (own_prior(lambda p: 1 / p[0].numel()), "variance-not-deviation"),
        (own_prior(lambda p: p.shape[-1] ** -0.5), "kernel-width-alone"),
        (own_prior(lambda p: 1.0), "not-divided-by-root-n"),
        (own_prior(lambda p: p[0].numel() ** -0.5, bias=32**-0.5), "bias-scaled"),
        (lambda n, p: None, "no-return"),
        (lambda n, p: ..., "open"),
    ],
)
def test_exercise_1(answer: Callable[[str, Tensor], object], expected: str) -> None:
    nb12.exercise_1(answer)
    assert found() == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda p, c: (p.mean(0) @ c.T).argmin(-1), "right"),
        (lambda p, c: p.mean(0).argmax(-1), "likelier-class"),
        (lambda p, c: (p.mean(0) @ c.T).argmax(-1), "dearest-action"),
        (lambda p, c: (p @ c.T).argmin(-1).mode(0).values, "votes"),
        (lambda p, c: p.mean(0) @ c.T, "costs-not-actions"),
        (lambda p, c: (p @ c.T).argmin(-1), "samples-not-averaged"),
        (lambda p, c: ..., "open"),
    ],
)
def test_exercise_2(answer: Callable[[Tensor, Tensor], object], expected: str) -> None:
    nb12.exercise_2(answer)
    assert found() == expected


def kl(m: Tensor, s: Tensor, p: Tensor) -> Tensor:
    return (p / s).log() + (s**2 + m**2) / (2 * p**2) - 0.5


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (kl, "right"),
        (lambda m, s, p: kl(m, s, p) + 0.5, "constant-missing"),
        (lambda m, s, p: kl(m, s, p).sum(), "shape"),
        (lambda m, s, p: kl(m, s, p) - 2 * (p / s).log(), "sign-of-logarithm"),
        (lambda m, s, p: kl(m, s, p) + (s - s**2) / (2 * p**2), "posterior-width-not-squared"),
        (lambda m, s, p: (p / s).log() + (s**2 + m**2) / (2 * p) - 0.5, "prior-width-not-squared"),
        (lambda m, s, p: (s / p).log() + (p**2 + m**2) / (2 * s**2) - 0.5, "reversed-kl"),
        (lambda m, s, p: ..., "open"),
    ],
)
def test_exercise_3(answer: Callable[[Tensor, Tensor, Tensor], object], expected: str) -> None:
    nb12.exercise_3(answer)
    assert found() == expected


def run(data: float, kl_first: float, width: float) -> Symptoms:
    return Symptoms(100, data, kl_first, 1.0, torch.full((20,), width), {}, History())


HEALTHY = run(0.1, 2.0, 1.0)
TROUBLES = {
    "exploding KL": (run(0.69, 55.0, 1.0), HEALTHY),
    "initial σ": (run(1.8, 13.0, 5.0), HEALTHY),
    "collapse": (run(0.7, 1.0, 1.0), HEALTHY),
    "under-fitting": (run(0.5, 2.0, 0.1), run(0.1, 2.0, 0.5)),
    "too modest": (HEALTHY, HEALTHY),
}


def diagnose(s: Symptoms, chance: float) -> str:
    if s.wider > 0.5:
        return "initial"
    if s.kl_first > 10:
        return "prior"
    if s.data < chance / 2:
        return "healthy"
    return "collapse" if s.like_prior > 0.5 else "under-fitting"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (diagnose, "right"),
        (lambda s, c: "prior" if s.kl_first > 10 else diagnose(s, c), "missed-initial"),
        (lambda s, c: "collapse" if s.like_prior > 0.5 else diagnose(s, c), "missed-prior"),
        (lambda s, c: diagnose(s, 10.0), "missed-collapse"),
        (lambda s, c: None, "no-return"),
        (lambda s, c: ..., "open"),
    ],
)
def test_exercise_4(answer: Callable[[Symptoms, float], object], expected: str) -> None:
    nb12.exercise_4(answer, TROUBLES, 0.66)
    assert found() == expected


def test_exercise_4_tells_what_was_taken_for_what() -> None:
    nb12.exercise_4(lambda s, c: diagnose(s, 10.0), TROUBLES, 0.66)
    assert "you call 'healthy'; it is 'collapse'" in check.outcomes[-1].message
    nb12.exercise_4(diagnose, TROUBLES, 0.66)
    assert "4 troubles found" in check.outcomes[-1].message
