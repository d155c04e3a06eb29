"""The checks of notebook 00: right answers pass, likely mistakes are named."""

from __future__ import annotations

import sys
from collections.abc import Callable

import cloudpickle
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

import spnb
from spnb.teach import check
from spnb.teach.checks import nb00
from tests.teach.judged import found

# As from a notebook's cell: the functions below travel by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def summed(value: Tensor) -> Tensor:
    total = value.clone()
    dist.all_reduce(total)
    return total


def averaged(value: Tensor) -> Tensor:
    return summed(value) / dist.get_world_size()


def averaged_in_place(value: Tensor) -> Tensor:
    dist.all_reduce(value)
    return value / dist.get_world_size()


def open_average(value: Tensor) -> Tensor:
    mean = ...
    return mean


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (averaged, "right"),
        (averaged_in_place, "right"),
        (summed, "summed-not-averaged"),
        (lambda value: value, "no-all-reduce"),
        (lambda value: value / 2, "divided-not-summed"),
        (open_average, "open"),
        (lambda value: value / 0 + [], "TypeError"),
    ],
)
def test_exercise_1(pool: spnb.WorkerPool, answer: Callable[..., object], expected: str) -> None:
    nb00.exercise_1(answer, pool)
    assert found() == expected


@pytest.mark.slow
def test_exercise_1_tells_that_the_tensor_has_changed(pool: spnb.WorkerPool) -> None:
    for answer in (averaged, averaged_in_place):
        nb00.exercise_1(answer, pool)
        assert ("value.clone()" in check.outcomes[-1].message) == (answer is averaged_in_place)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "right"),
        ({"images": "copy"}, "images-copied"),
        ({"network": "share"}, "network-shared"),
        ({"results": "copy"}, "results-copied"),
        ({"results": "both"}, "value"),
        ({"results": ...}, "open"),
    ],
)
def test_exercise_2(changed: dict[str, object], expected: str) -> None:
    nb00.exercise_2({"images": "share", "network": "copy", "results": "share"} | changed)
    assert found() == expected
    nb00.exercise_2({"images": "share"})
    assert found() == "missing-entry" and "'network'" in check.outcomes[-1].message


def mean_of_all(mine: Tensor) -> Tensor:
    sums = summed(torch.tensor([mine.sum(), float(len(mine))]))
    return sums[0] / sums[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (mean_of_all, "right"),
        (lambda mine: averaged(mine.mean()), "mean-of-means"),
        (lambda mine: mine.mean(), "no-all-reduce"),
        (lambda mine: summed(mine.mean()), "summed-not-averaged"),
        (lambda mine: summed(mine.sum()), "entries-not-averaged"),
        (lambda mine: averaged(mine.sum()), "divided-by-ranks"),
        (lambda mine: summed(mine.sum()) / len(mine), "own-count"),
    ],
)
def test_exercise_3(pool: spnb.WorkerPool, answer: Callable[..., object], expected: str) -> None:
    nb00.exercise_3(answer, pool)
    assert found() == expected


def entropy(p: Tensor) -> Tensor:
    return torch.special.entr(p).sum(-1)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda p: (entropy(p.mean(0)) - entropy(p).mean(0)).mean(-1), "right"),
        (lambda p: entropy(p.mean(0)).mean(-1), "total-entropy"),
        (lambda p: entropy(p).mean(0).mean(-1), "mean-entropy"),
        (lambda p: (entropy(p.mean(0)) - entropy(p).mean(0)).sum(-1), "digits-not-averaged"),
        (lambda p: (entropy(p).mean(0) - entropy(p.mean(0))).mean(-1), "sign"),
        (lambda p: entropy(p.mean((0, 2))) - entropy(p).mean((0, 2)), "digits-pooled"),
        (lambda p: (entropy(p.mean(0)) - entropy(p).mean(0)).mean(0), "shape"),
    ],
)
def test_exercise_4(answer: Callable[..., object], expected: str) -> None:
    logits = 3 * torch.randn(16, 5, 4, 10, generator=torch.Generator().manual_seed(0))
    nb00.exercise_4(answer, logits.softmax(-1))
    assert found() == expected
