"""The checks of notebook 03: right answers pass, likely mistakes are named."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import cloudpickle
import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import softplus

import spnb
from spnb.teach import check
from spnb.teach.checks import nb03

# As from a notebook's cell: the functions below travel by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def said() -> str:
    return str(check.outcomes[-1])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda s, w, r: range(r, s, w), "✓"),
        (lambda s, w, r: [i for i in range(s) if i * w // s == r], "✓"),
        (lambda s, w, r: torch.arange(s).tensor_split(w)[r], "✓"),
        (lambda s, w, r: range(r * (s // w), (r + 1) * (s // w)), "forgets 4"),
        (lambda s, w, r: range(s // w), "every rank gets the same samples"),
        (lambda s, w, r: range(r, min(s, r + 4)), "given out twice"),
        (lambda s, w, r: range(r + 1, s + 1, w), "there is no sample 16"),
        (lambda s, w, r: range(r, s - 1, w), "nobody evaluates [15]"),
        (lambda s, w, r: range(s) if r == 0 else [], "share fairly"),
        (lambda s, w, r: None, "return"),
        (lambda s, w, r: ..., "not attempted yet"),
    ],
)
def test_exercise_1(answer: Callable[[int, int, int], Sequence[int]], words: str) -> None:
    nb03.exercise_1(answer)
    assert words in said()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x, kl, s, n, w: x.sum() / s + kl / n / w, "✓"),
        (lambda x, kl, s, n, w: x.sum() / s + kl / n, "counted twice"),
        (lambda x, kl, s, n, w: x.mean() + kl / n / w, "mean over each rank's own samples"),
        (lambda x, kl, s, n, w: x.mean() + kl / n, "and the KL is counted twice"),
        (lambda x, kl, s, n, w: x.mean() / w + kl / n / w, "mean of the means"),
        (lambda x, kl, s, n, w: x.sum() + kl / n / w, "a sum over samples, not a mean"),
        (lambda x, kl, s, n, w: x.sum() / s + kl / w, "not divided by N"),
        (lambda x, kl, s, n, w: x.sum() / s, "the KL is missing"),
        (lambda x, kl, s, n, w: (x.sum() / s + kl / n / w) / w, "once too often"),
        (lambda x, kl, s, n, w: None, "return"),
    ],
)
def test_exercise_2(answer: Callable[..., object], words: str) -> None:
    nb03.exercise_2(answer)
    assert words in said()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda m, c: (c[:, None] * m).sum(0) / c.sum(), "✓"),
        (lambda m, c: m.sum(0), "you summed over ranks instead of averaging"),
        (lambda m, c: m.mean(0), "mean of the means"),
        (lambda m, c: (c[:, None] * m).sum(0), "divide by how many"),
        (lambda m, c: (c[:, None] * m).mean(0), "number of ranks instead"),
        (lambda m, c: m.sum(0) / c.sum(), "multiplied by its count"),
    ],
)
def test_exercise_3(answer: Callable[..., object], words: str) -> None:
    nb03.exercise_3(answer)
    assert words in said()


def noise(step: int, sample: int) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * step + sample)
    return torch.randn(6, generator=generator, dtype=torch.float64)


def part(
    mu: Tensor,
    rho: Tensor,
    x: Tensor,
    y: Tensor,
    step: int,
    ids: Sequence[int],
    divisor: float,
    kl_share: float,
) -> Tensor:
    mu, rho = mu.clone().requires_grad_(), rho.clone().requires_grad_()
    sigma = softplus(rho)
    losses = [((x @ (mu + sigma * noise(step, s)) - y) ** 2).mean() for s in ids]
    kl = (0.5 * (mu**2 + sigma**2 - 1) - sigma.log()).sum() / len(x)
    loss = torch.stack(losses).sum() / divisor + kl_share * kl
    return torch.cat(torch.autograd.grad(loss, (mu, rho)))


def serial_gradient(mu: Tensor, rho: Tensor, x: Tensor, y: Tensor, s: int, step: int) -> Tensor:
    return part(mu, rho, x, y, step, range(s), s, 1.0)


def parallel(
    rule: Callable[[int, int, int], tuple[Sequence[int], float, float]],
    reduce: bool = True,
    factor: float = 1.0,
) -> Callable[..., Tensor]:
    def gradient(mu: Tensor, rho: Tensor, x: Tensor, y: Tensor, s: int, step: int) -> Tensor:
        found = part(mu, rho, x, y, step, *rule(s, dist.get_world_size(), dist.get_rank()))
        if reduce:
            dist.all_reduce(found)
        return factor * found

    return gradient


RIGHT = parallel(lambda s, w, r: (range(r, s, w), s, 1 / w))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (RIGHT, "✓ Exercise 4: correct: largest difference"),
        (parallel(lambda s, w, r: (range(r, s, w), s, 1.0)), "counted twice"),
        (parallel(lambda s, w, r: (range(r, s, w), s, 0.0)), "the KL is missing"),
        (
            parallel(lambda s, w, r: (range(r, s, w), len(range(r, s, w)), 1 / w)),
            "you summed over ranks instead of averaging",
        ),
        (
            parallel(lambda s, w, r: (range(r, s, w), len(range(r, s, w)), 1.0), factor=0.5),
            "mean of the means",
        ),
        (
            parallel(lambda s, w, r: (range(r, s, w), s, 1 / w), reduce=False),
            "is the all-reduce missing?",
        ),
        (
            parallel(lambda s, w, r: (range(len(range(r, s, w))), s, 1 / w)),
            "every rank draws the same samples",
        ),
        (
            parallel(lambda s, w, r: (range(r * (s // w), (r + 1) * (s // w)), s, 1 / w)),
            "integer division: of 7 samples, only 6",
        ),
        (
            parallel(lambda s, w, r: (range(r, s, w), s, 1 / w), factor=0.5),
            "you divided by the world size",
        ),
        (parallel(lambda s, w, r: (range(s), s, 1.0)), "nothing is shared"),
    ],
)
def test_exercise_4(pool: spnb.WorkerPool, answer: Callable[..., Tensor], words: str) -> None:
    torch.manual_seed(0)
    mu, rho = torch.randn(6, dtype=torch.float64), torch.full((6,), -1.0, dtype=torch.float64)
    x, y = torch.randn(9, 6, dtype=torch.float64), torch.randn(9, dtype=torch.float64)
    nb03.exercise_4(answer, serial_gradient, (mu, rho, x, y), pool)
    assert words in said()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda p, s, b, i: 2 * p * i, "✓"),
        (lambda p, s, b, i: p * i, "a mean and a scale"),
        (lambda p, s, b, i: 2 * p, "itemsize"),
        (lambda p, s, b, i: 2 * p * i * s, "S plays no part"),
        (lambda p, s, b, i: 2 * p * i * b, "rows of the batch"),
    ],
)
def test_exercise_5(pool: spnb.WorkerPool, answer: Callable[..., int], words: str) -> None:
    nb03.exercise_5(answer, pool)
    assert words in said()
