"""The checks of notebook 11: right answers pass, likely mistakes are named."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import spnb
from spnb.teach import check
from spnb.teach.checks import nb11
from tests.run.problems import problem


def said() -> str:
    return str(check.outcomes[-1])


def touched(layout: spnb.Layout, axis: Any, per_node: int) -> int:
    return len({rank // per_node for rank in layout.ranks(0, axis)})


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (touched, "✓"),
        (lambda cut, a, n: len(cut.ranks(0, a)), "several may stand on one node"),
        (lambda cut, a, n: cut.size // n, "those are all nodes"),
        (lambda cut, a, n: math.ceil(len(cut.ranks(0, a)) / n), "need not be neighbours"),
        (lambda cut, a, n: max(cut.ranks(0, a)) // n, "nodes count from 0"),
        (lambda cut, a, n: None, "None"),
        (lambda cut, a, n: ..., "not attempted yet"),
    ],
)
def test_exercise_1(answer: Callable[..., object], words: str) -> None:
    nb11.exercise_1(answer)
    assert words in said()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    spnb.fit(*problem(), checkpoints=spnb.Checkpoints(folder))
    return spnb.Checkpoints(folder).file(1)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda n, b=4: 6 * n * b, "✓"),
        (lambda n, b=4: n * b, "a mean and a scale"),
        (lambda n, b=4: 2 * n * b, "the optimiser is missing"),
        (lambda n, b=4: 3 * n * b, "two* moments"),
        (lambda n, b=4: 4 * n * b, "mean and scale are missing"),
        (lambda n, b=4: 8 * n * b, "gradient is not kept"),
        (lambda n, b=4: 6 * n, "a number has 8 bytes"),
        (lambda n, b=8: 6 * n * b, "single precision"),
        (lambda n, b=4: ..., "not attempted yet"),
    ],
)
def test_exercise_2(answer: Callable[..., object], words: str, file: Path) -> None:
    nb11.exercise_2(answer, file)
    assert words in said()


def test_the_file_is_hardly_larger_than_its_numbers(file: Path) -> None:
    weights = (12 + 1) * 10 + (10 + 1) * 3
    assert 6 * weights * 8 < file.stat().st_size < 6 * weights * 8 + 8000


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda w, m: math.sqrt(2 * w * m), "✓ Exercise 3: correct: 15 minutes"),
        (lambda w, m: math.sqrt(w * m), "*half* an interval"),
        (lambda w, m: 2 * w * m, "take the root"),
        (lambda w, m: math.sqrt(w * m / 2), "on the other side"),
        (lambda w, m: math.sqrt(2 * m / w), "the rarer it should be"),
        (lambda w, m: math.sqrt(2 * w / m), "wasted at best"),
        (lambda w, m: ..., "not attempted yet"),
    ],
)
def test_exercise_3(answer: Callable[[float, float], object], words: str) -> None:
    nb11.exercise_3(answer)
    assert words in said()


def shards(weights: float, memory: float, numbers: int = 8) -> int:
    found = 1
    while 4 * numbers * weights / found > memory:
        found *= 2
    return found


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (shards, "✓"),
        (lambda w, m: shards(w, m, 1), "not one"),
        (lambda w, m: shards(w, m, 2), "not two"),
        (lambda w, m: 2 * shards(w, m), "one doubling too many"),
        (lambda w, m: math.ceil(32 * w / m), "no power of two"),
        (lambda w, m: ..., "not attempted yet"),
    ],
)
def test_exercise_4(answer: Callable[[float, float], object], words: str) -> None:
    nb11.exercise_4(answer)
    assert words in said()
