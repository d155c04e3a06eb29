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
from tests.teach.judged import found


def touched(layout: spnb.Layout, axis: Any, per_node: int) -> int:
    return len({rank // per_node for rank in layout.ranks(0, axis)})


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (touched, "right"),
        (lambda cut, a, n: len(cut.ranks(0, a)), "ranks-not-nodes"),
        (lambda cut, a, n: cut.size // n, "all-nodes"),
        (lambda cut, a, n: math.ceil(len(cut.ranks(0, a)) / n), "neighbours-assumed"),
        (lambda cut, a, n: max(cut.ranks(0, a)) // n, "last-node"),
        (lambda cut, a, n: None, "value"),
        (lambda cut, a, n: ..., "open"),
    ],
)
def test_exercise_1(answer: Callable[..., object], expected: str) -> None:
    nb11.exercise_1(answer)
    assert found() == expected


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    spnb.fit(*problem(), checkpoints=spnb.Checkpoints(folder))
    return spnb.Checkpoints(folder).file(1)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda n, b=4: 6 * n * b, "right"),
        (lambda n, b=4: n * b, "one-number-a-weight"),
        (lambda n, b=4: 2 * n * b, "moments-missing"),
        (lambda n, b=4: 3 * n * b, "too-few-moments"),
        (lambda n, b=4: 4 * n * b, "two-numbers-missing"),
        (lambda n, b=4: 8 * n * b, "gradient-kept"),
        (lambda n, b=4: 6 * n, "numbers-not-bytes"),
        (lambda n, b=8: 6 * n * b, "value"),
        (lambda n, b=4: ..., "open"),
    ],
)
def test_exercise_2(answer: Callable[..., object], expected: str, file: Path) -> None:
    nb11.exercise_2(answer, file)
    assert found() == expected


def test_exercise_2_says_at_which_precision(file: Path) -> None:
    nb11.exercise_2(lambda n, b=8: 6 * n * b, file)
    assert "in single precision" in check.outcomes[-1].message


def test_the_file_is_hardly_larger_than_its_numbers(file: Path) -> None:
    weights = (12 + 1) * 10 + (10 + 1) * 3
    assert 6 * weights * 8 < file.stat().st_size < 6 * weights * 8 + 8000


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda w, m: math.sqrt(2 * w * m), "right"),
        (lambda w, m: math.sqrt(w * m), "factor-two-missing"),
        (lambda w, m: 2 * w * m, "no-square-root"),
        (lambda w, m: math.sqrt(w * m / 2), "halved-not-doubled"),
        (lambda w, m: math.sqrt(2 * m / w), "divided-not-multiplied"),
        (lambda w, m: math.sqrt(2 * w / m), "share-wasted"),
        (lambda w, m: ..., "open"),
    ],
)
def test_exercise_3(answer: Callable[[float, float], object], expected: str) -> None:
    nb11.exercise_3(answer)
    assert found() == expected


def test_exercise_3_tells_the_interval() -> None:
    nb11.exercise_3(lambda w, m: math.sqrt(2 * w * m))
    assert "15 minutes" in check.outcomes[-1].message


def shards(weights: float, memory: float, numbers: int = 8) -> int:
    count = 1
    while 4 * numbers * weights / count > memory:
        count *= 2
    return count


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (shards, "right"),
        (lambda w, m: shards(w, m, 1), "one-number-a-weight"),
        (lambda w, m: shards(w, m, 2), "two-numbers-a-weight"),
        (lambda w, m: 2 * shards(w, m), "one-doubling-too-many"),
        (lambda w, m: math.ceil(32 * w / m), "not-a-power-of-two"),
        (lambda w, m: ..., "open"),
    ],
)
def test_exercise_4(answer: Callable[[float, float], object], expected: str) -> None:
    nb11.exercise_4(answer)
    assert found() == expected
