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

# As from a notebook's cell: the functions below travel by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def said() -> str:
    return str(check.outcomes[-1])


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
    ("answer", "words"),
    [
        (averaged, "✓ Exercise 1: correct"),
        (averaged_in_place, "reduce value.clone()"),
        (summed, "you summed over ranks instead of averaging"),
        (lambda value: value, "is the all-reduce missing?"),
        (lambda value: value / 2, "nothing was summed over the ranks"),
        (open_average, "not attempted yet"),
        (lambda value: value / 0 + [], "raised TypeError"),
    ],
)
def test_exercise_1(pool: spnb.WorkerPool, answer: Callable[..., object], words: str) -> None:
    nb00.exercise_1(answer, pool)
    assert words in said()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "✓"),
        ({"images": "copy"}, "takes the memory once more"),
        ({"network": "share"}, "overwrites the others' weights"),
        ({"results": "copy"}, "unseen by the notebook"),
        ({"results": "both"}, "that is not it"),
        ({"results": ...}, "not attempted yet"),
    ],
)
def test_exercise_2(changed: dict[str, object], words: str) -> None:
    nb00.exercise_2({"images": "share", "network": "copy", "results": "share"} | changed)
    assert words in said()
    nb00.exercise_2({"images": "share"})
    assert "no entry 'network'" in said()


def mean_of_all(mine: Tensor) -> Tensor:
    sums = summed(torch.tensor([mine.sum(), float(len(mine))]))
    return sums[0] / sums[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (mean_of_all, "✓"),
        (lambda mine: averaged(mine.mean()), "mean of the means"),
        (lambda mine: mine.mean(), "nothing was summed over the ranks"),
        (lambda mine: summed(mine.mean()), "you summed the means"),
        (lambda mine: summed(mine.sum()), "did not divide by the count"),
        (lambda mine: averaged(mine.sum()), "the number of ranks instead of"),
        (lambda mine: summed(mine.sum()) / len(mine), "this rank's own"),
    ],
)
def test_exercise_3(pool: spnb.WorkerPool, answer: Callable[..., object], words: str) -> None:
    nb00.exercise_3(answer, pool)
    assert words in said()


def entropy(p: Tensor) -> Tensor:
    return torch.special.entr(p).sum(-1)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda p: (entropy(p.mean(0)) - entropy(p).mean(0)).mean(-1), "✓"),
        (lambda p: entropy(p.mean(0)).mean(-1), "subtract the mean entropy"),
        (lambda p: entropy(p).mean(0).mean(-1), "*not* disagreement"),
        (lambda p: (entropy(p.mean(0)) - entropy(p).mean(0)).sum(-1), "take the mean"),
        (lambda p: (entropy(p).mean(0) - entropy(p.mean(0))).mean(-1), "wrong sign"),
        (lambda p: entropy(p.mean((0, 2))) - entropy(p).mean((0, 2)), "each digit has its own"),
        (lambda p: (entropy(p.mean(0)) - entropy(p).mean(0)).mean(0), "shape"),
    ],
)
def test_exercise_4(answer: Callable[..., object], words: str) -> None:
    logits = 3 * torch.randn(16, 5, 4, 10, generator=torch.Generator().manual_seed(0))
    nb00.exercise_4(answer, logits.softmax(-1))
    assert words in said()
