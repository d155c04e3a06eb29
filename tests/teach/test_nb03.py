"""The checks of notebook 03: right answers pass, likely mistakes are named."""

from __future__ import annotations

import re
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
from tests.teach.judged import found

# As from a notebook's cell: the functions below travel by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda s, w, r: range(r, s, w), "right"),
        (lambda s, w, r: [i for i in range(s) if i * w // s == r], "right"),
        (lambda s, w, r: torch.arange(s).tensor_split(w)[r], "right"),
        (lambda s, w, r: range(r * (s // w), (r + 1) * (s // w)), "integer-division"),
        (lambda s, w, r: range(s // w), "same-samples"),
        (lambda s, w, r: range(r, min(s, r + 4)), "sample-twice"),
        (lambda s, w, r: range(r + 1, s + 1, w), "no-such-sample"),
        (lambda s, w, r: range(r, s - 1, w), "sample-missing"),
        (lambda s, w, r: range(s) if r == 0 else [], "unfair-shares"),
        (lambda s, w, r: None, "no-return"),
        (lambda s, w, r: ..., "open"),
    ],
)
def test_exercise_1(answer: Callable[[int, int, int], Sequence[int]], expected: str) -> None:
    nb03.exercise_1(answer)
    assert found() == expected


@pytest.mark.parametrize(
    ("answer", "figures"),
    [
        (lambda s, w, r: range(r * (s // w), (r + 1) * (s // w)), "4, namely [12, 13, 14, 15]"),
        (lambda s, w, r: range(r + 1, s + 1, w), "sample 16;"),
        (lambda s, w, r: range(r, s - 1, w), "[15]"),
    ],
)
def test_exercise_1_tells_which_samples(
    answer: Callable[[int, int, int], Sequence[int]], figures: str
) -> None:
    nb03.exercise_1(answer)
    assert figures in check.outcomes[-1].message


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda x, kl, s, n, w: x.sum() / s + kl / n / w, "right"),
        (lambda x, kl, s, n, w: x.sum() / s + kl / n, "kl-counted-twice"),
        (lambda x, kl, s, n, w: x.mean() + kl / n / w, "summed-not-averaged"),
        (lambda x, kl, s, n, w: x.mean() + kl / n, "summed-not-averaged-and-kl-counted-twice"),
        (lambda x, kl, s, n, w: x.mean() / w + kl / n / w, "mean-of-means"),
        (lambda x, kl, s, n, w: x.sum() + kl / n / w, "samples-not-averaged"),
        (lambda x, kl, s, n, w: x.sum() / s + kl / w, "kl-not-divided"),
        (lambda x, kl, s, n, w: x.sum() / s + kl / s / w, "kl-by-samples"),
        (lambda x, kl, s, n, w: x.sum() / s, "kl-missing"),
        (lambda x, kl, s, n, w: (x.sum() / s + kl / n / w) / w, "divided-twice"),
        (lambda x, kl, s, n, w: None, "no-return"),
    ],
)
def test_exercise_2(answer: Callable[..., object], expected: str) -> None:
    nb03.exercise_2(answer)
    assert found() == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda m, c: (c[:, None] * m).sum(0) / c.sum(), "right"),
        (lambda m, c: m.sum(0), "summed-not-averaged"),
        (lambda m, c: m.mean(0), "mean-of-means"),
        (lambda m, c: (c[:, None] * m).sum(0), "samples-not-averaged"),
        (lambda m, c: (c[:, None] * m).mean(0), "divided-by-ranks"),
        (lambda m, c: m.sum(0) / c.sum(), "not-weighted"),
    ],
)
def test_exercise_3(answer: Callable[..., object], expected: str) -> None:
    nb03.exercise_3(answer)
    assert found() == expected


NUM_DATA = 40


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
    kl = (0.5 * (mu**2 + sigma**2 - 1) - sigma.log()).sum() / NUM_DATA
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
        total = part(mu, rho, x, y, step, *rule(s, dist.get_world_size(), dist.get_rank()))
        if reduce:
            dist.all_reduce(total)
        return factor * total

    return gradient


RIGHT = parallel(lambda s, w, r: (range(r, s, w), s, 1 / w))
SIX_OF_SEVEN = parallel(lambda s, w, r: (range(r * (s // w), (r + 1) * (s // w)), s, 1 / w))


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    mu, rho = torch.randn(6, dtype=torch.float64), torch.full((6,), -1.0, dtype=torch.float64)
    return mu, rho, torch.randn(9, 6, dtype=torch.float64), torch.randn(9, dtype=torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (RIGHT, "right"),
        (parallel(lambda s, w, r: (range(r, s, w), s, 1.0)), "kl-counted-twice"),
        (parallel(lambda s, w, r: (range(r, s, w), s, 0.0)), "kl-missing"),
        (parallel(lambda s, w, r: (range(r, s, w), s, NUM_DATA / 9 / w)), "kl-by-batch"),
        (
            parallel(lambda s, w, r: (range(r, s, w), len(range(r, s, w)), 1 / w)),
            "summed-not-averaged",
        ),
        (
            parallel(lambda s, w, r: (range(r, s, w), len(range(r, s, w)), 1.0), factor=0.5),
            "mean-of-means",
        ),
        (
            parallel(lambda s, w, r: (range(r, s, w), s, 1 / w), reduce=False),
            "no-all-reduce",
        ),
        (
            parallel(lambda s, w, r: (range(len(range(r, s, w))), s, 1 / w)),
            "same-samples",
        ),
        (SIX_OF_SEVEN, "integer-division"),
        (
            parallel(lambda s, w, r: (range(r, s, w), s, 1 / w), factor=0.5),
            "divided-twice",
        ),
        (parallel(lambda s, w, r: (range(s), s, 1.0)), "nothing-shared"),
    ],
)
def test_exercise_4(pool: spnb.WorkerPool, answer: Callable[..., Tensor], expected: str) -> None:
    nb03.exercise_4(answer, serial_gradient, inputs(), NUM_DATA, pool)
    assert found() == expected


@pytest.mark.slow
def test_exercise_4_tells_the_figures(pool: spnb.WorkerPool) -> None:
    nb03.exercise_4(RIGHT, serial_gradient, inputs(), NUM_DATA, pool)
    (difference,) = re.findall(r"\d\.\de[-+]\d\d", check.outcomes[-1].message)
    assert float(difference) < 1e-12
    nb03.exercise_4(SIX_OF_SEVEN, serial_gradient, inputs(), NUM_DATA, pool)
    assert "7 samples, only 6" in check.outcomes[-1].message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda p, s, b, i: 2 * p * i, "right"),
        (lambda p, s, b, i: p * i, "one-number-a-weight"),
        (lambda p, s, b, i: 2 * p, "numbers-not-bytes"),
        (lambda p, s, b, i: 2 * p * i * s, "times-samples"),
        (lambda p, s, b, i: 2 * p * i * b, "times-rows"),
    ],
)
def test_exercise_5(pool: spnb.WorkerPool, answer: Callable[..., int], expected: str) -> None:
    nb03.exercise_5(answer, pool)
    assert found() == expected
