"""The checks of notebook 06: right answers pass, likely mistakes are named."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, nll_loss

import spnb
from spnb.teach import check
from spnb.teach.checks import nb06


def said() -> str:
    return str(check.outcomes[-1])


def losses(p: Tensor, groups: int) -> Tensor:
    return torch.stack([-part.mean().log() for part in p.chunk(groups)])


def strided(p: Tensor, groups: int) -> Tensor:
    return losses(p.view(-1, groups).T.reshape(-1), groups)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda p, g: losses(p, g).mean() + p.mean().log(), "✓"),
        (lambda p, g: (losses(p, g).mean() + p.mean().log()).item(), "✓"),
        (lambda p, g: -losses(p, g).mean() - p.mean().log(), "exact minus averaged"),
        (lambda p, g: losses(p, g).mean(), "that is the averaged loss"),
        (lambda p, g: -p.mean().log(), "that is the exact loss"),
        (lambda p, g: p.mean().log() - p.log().mean(), "logarithm of every sample"),
        (lambda p, g: losses(p, g).sum() + p.mean().log(), "instead of averaging"),
        (lambda p, g: losses(p, g)[0] + p.mean().log(), "first group's loss alone"),
        (lambda p, g: strided(p, g).mean() + p.mean().log(), "every W-th sample"),
        (lambda p, g: 0.0, "you averaged the probabilities of the groups"),
        (lambda p, g: 1.0, "for 2 samples in 2 groups is 1 where"),
        (lambda p, g: None, "return"),
        (lambda p, g: ..., "not attempted yet"),
    ],
)
def test_exercise_1(answer: Callable[[Tensor, int], object], words: str) -> None:
    nb06.exercise_1(answer)
    assert words in said()


def nll(logits: Tensor, y: Tensor) -> Tensor:
    return nll_loss(logits.softmax(-1).mean(0).log(), y)


def spliced(own: Tensor, everyone: Tensor, start: int) -> Tensor:
    return torch.cat([everyone[:start], own, everyone[start + len(own) :]])


def in_place(own: Tensor, everyone: Tensor, start: int, y: Tensor) -> Tensor:
    everyone[start : start + len(own)] = own
    return nll(everyone, y)


def by_elbo(own: Tensor, everyone: Tensor, start: int, y: Tensor) -> Tensor:
    whole = spliced(own, everyone, start)
    return cross_entropy(whole.flatten(0, 1), y.repeat(len(whole)))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda o, e, s, y: nll(spliced(o, e, s), y), "✓"),
        (in_place, "✓"),
        (lambda o, e, s, y: nll(e, y), "no gradient can leave it"),
        (lambda o, e, s, y: nll(spliced(o, e, s), y).item(), "no gradient can leave it"),
        (lambda o, e, s, y: nll(e.requires_grad_(), y), "does not depend on `own`"),
        (lambda o, e, s, y: nll(spliced(o, e, s), y) + (o - o.detach()).sum(), "off by up to"),
        (lambda o, e, s, y: nll(o, y), "plain averaging again"),
        (by_elbo, "the ELBO"),
        (lambda o, e, s, y: cross_entropy(spliced(o, e, s).mean(0), y), "averaged the logits"),
        (lambda o, e, s, y: nll(torch.cat([e, o]), y), "count twice"),
        (lambda o, e, s, y: nll(torch.cat([e[:s], e[s + len(o) :]]), y), "are missing"),
        (lambda o, e, s, y: nll(torch.cat([o, e[len(o) :]]), y), "went to the front"),
        (lambda o, e, s, y: len(y) * nll(spliced(o, e, s), y), "sum over the rows"),
        (lambda o, e, s, y: -nll(spliced(o, e, s), y), "the sign"),
        (lambda o, e, s, y: None, "return"),
        (lambda o, e, s, y: ..., "not attempted yet"),
    ],
)
def test_exercise_2(answer: Callable[..., object], words: str) -> None:
    nb06.exercise_2(answer)
    assert words in said()


def up(total: int, parts: int) -> int:
    return math.ceil(total / parts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda p, s, b, c, w, i: i * (2 * p + up(s, w) * b * c), "✓ Exercise 3: correct: the"),
        (lambda p, s, b, c, w, i: i * 2 * p, "the predictions are missing"),
        (lambda p, s, b, c, w, i: i * up(s, w) * b * c, "the gradient is missing"),
        (lambda p, s, b, c, w, i: i * (p + up(s, w) * b * c), "two numbers for each weight"),
        (lambda p, s, b, c, w, i: i * (2 * p + s * b * c), "its *own* samples only"),
        (lambda p, s, b, c, w, i: i * (2 * p + s / w * b * c), "no rank has half a sample"),
        (lambda p, s, b, c, w, i: i * (2 * p + s // w * b * c), "you rounded down"),
        (lambda p, s, b, c, w, i: i * (2 * p + up(s, w) * b), "one number for each class"),
        (lambda p, s, b, c, w, i: i * (2 * p + up(s, w) * c), "for each row of the batch"),
        (lambda p, s, b, c, w, i: 2 * p + up(s, w) * b * c, "itemsize bytes"),
        (lambda p, s, b, c, w, i: i * 2 * (p + up(s, w) * b * c), "needs no message"),
        (lambda p, s, b, c, w, i: ..., "not attempted yet"),
    ],
)
def test_exercise_3(pool: spnb.WorkerPool, answer: Callable[..., object], words: str) -> None:
    nb06.exercise_3(answer, pool)
    assert words in said()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda d, k, w: w * d + k, "✓"),
        (lambda d, k, w: w * (d + k / w), "✓"),
        (lambda d, k, w: d + k, "that is the trap itself: on 2 ranks, after the averaging, the"),
        (lambda d, k, w: d + k / w, "right where gradients are *summed*"),
        (lambda d, k, w: w * (d + k), "but the KL 2: it is whole on every rank already"),
        (lambda d, k, w: d / w + k, "you divided where the averaging divides already"),
        (lambda d, k, w: w * d, "the KL is missing"),
        (lambda d, k, w: k, "the data term weighs 0 and the KL 1; both should weigh 1"),
        (lambda d, k, w: (w * d + k).item(), "no gradient can leave"),
        (lambda d, k, w: None, "return"),
        (lambda d, k, w: ..., "not attempted yet"),
    ],
)
def test_exercise_4(answer: Callable[..., object], words: str) -> None:
    nb06.exercise_4(answer)
    assert words in said()
