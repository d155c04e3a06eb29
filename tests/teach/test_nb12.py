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


def said() -> str:
    return str(check.outcomes[-1])


def own_prior(
    width: Callable[[Tensor], float], norm: Any = None, kind: Any = dist.Normal, bias: float = 1.0
) -> Callable[[str, Tensor], Any]:
    def prior(name: str, parameter: Tensor) -> Any:
        if name.startswith("norm"):
            return norm
        return kind(0, bias if parameter.dim() == 1 else width(parameter))

    return prior


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (own_prior(lambda p: p[0].numel() ** -0.5), "✓"),
        (own_prior(lambda p: p[0].numel() ** -0.5, norm=dist.Normal(0, 1)), "has a prior"),
        (own_prior(lambda p: p[0].numel() ** -0.5, kind=dist.Laplace), "where a Normal is wanted"),
        (own_prior(lambda p: p.shape[0] ** -0.5), "not the outputs"),
        (own_prior(lambda p: 1 / p[0].numel()), "not the variance"),
        (own_prior(lambda p: p.shape[-1] ** -0.5), "channels × height × width"),
        (own_prior(lambda p: 1.0), "divide by it"),
        (own_prior(lambda p: p[0].numel() ** -0.5, bias=32**-0.5), "a bias has no inputs"),
        (lambda n, p: None, "is a `return` missing"),
        (lambda n, p: ..., "not attempted yet"),
    ],
)
def test_exercise_1(answer: Callable[[str, Tensor], object], words: str) -> None:
    nb12.exercise_1(answer)
    assert words in said()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda p, c: (p.mean(0) @ c.T).argmin(-1), "✓"),
        (lambda p, c: p.mean(0).argmax(-1), "costs play no part"),
        (lambda p, c: (p.mean(0) @ c.T).argmax(-1), "dearest action"),
        (lambda p, c: (p @ c.T).argmin(-1).mode(0).values, "vote of the samples"),
        (lambda p, c: p.mean(0) @ c.T, "take the least of each row"),
        (lambda p, c: (p @ c.T).argmin(-1), "each sample decides for itself"),
        (lambda p, c: ..., "not attempted yet"),
    ],
)
def test_exercise_2(answer: Callable[[Tensor, Tensor], object], words: str) -> None:
    nb12.exercise_2(answer)
    assert words in said()


def kl(m: Tensor, s: Tensor, p: Tensor) -> Tensor:
    return (p / s).log() + (s**2 + m**2) / (2 * p**2) - 0.5


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (kl, "✓"),
        (lambda m, s, p: kl(m, s, p) + 0.5, "equal normals must be zero"),
        (lambda m, s, p: kl(m, s, p).sum(), "(50,) is wanted"),
        (lambda m, s, p: kl(m, s, p) - 2 * (p / s).log(), "logarithm has the wrong sign"),
        (lambda m, s, p: kl(m, s, p) + (s - s**2) / (2 * p**2), "posterior must be squared"),
        (lambda m, s, p: (p / s).log() + (s**2 + m**2) / (2 * p) - 0.5, "prior must be squared"),
        (lambda m, s, p: (s / p).log() + (p**2 + m**2) / (2 * s**2) - 0.5, "other way round"),
        (lambda m, s, p: ..., "not attempted yet"),
    ],
)
def test_exercise_3(answer: Callable[[Tensor, Tensor, Tensor], object], words: str) -> None:
    nb12.exercise_3(answer)
    assert words in said()


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
    ("answer", "words"),
    [
        (diagnose, "✓ Exercise 4: correct: 4 troubles found"),
        (lambda s, c: "prior" if s.kl_first > 10 else diagnose(s, c), "it is 'initial'"),
        (lambda s, c: "collapse" if s.like_prior > 0.5 else diagnose(s, c), "it is 'prior'"),
        (lambda s, c: diagnose(s, 10.0), "you call 'healthy'"),
        (lambda s, c: None, "is a `return` missing"),
        (lambda s, c: ..., "not attempted yet"),
    ],
)
def test_exercise_4(answer: Callable[[Symptoms, float], object], words: str) -> None:
    nb12.exercise_4(answer, TROUBLES, 0.66)
    assert words in said()
