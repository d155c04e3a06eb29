"""The checks of notebook 06: right answers pass, likely mistakes are named."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, nll_loss

import spnb
from spnb.teach import check
from spnb.teach.checks import nb06
from tests.teach.judged import found


def losses(p: Tensor, groups: int) -> Tensor:
    return torch.stack([-part.mean().log() for part in p.chunk(groups)])


def strided(p: Tensor, groups: int) -> Tensor:
    return losses(p.view(-1, groups).T.reshape(-1), groups)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda p, g: losses(p, g).mean() + p.mean().log(), "right"),
        (lambda p, g: (losses(p, g).mean() + p.mean().log()).item(), "right"),
        (lambda p, g: -losses(p, g).mean() - p.mean().log(), "sign"),
        (lambda p, g: losses(p, g).mean(), "averaged-loss"),
        (lambda p, g: -p.mean().log(), "exact-loss"),
        (lambda p, g: p.mean().log() - p.log().mean(), "mean-of-logs"),
        (lambda p, g: losses(p, g).sum() + p.mean().log(), "summed-not-averaged"),
        (lambda p, g: losses(p, g)[0] + p.mean().log(), "first-group-alone"),
        (lambda p, g: strided(p, g).mean() + p.mean().log(), "strided-groups"),
        (lambda p, g: 0.0, "probabilities-averaged"),
        (lambda p, g: 1.0, "value"),
        (lambda p, g: None, "no-return"),
        (lambda p, g: ..., "open"),
    ],
)
def test_exercise_1(answer: Callable[[Tensor, int], object], expected: str) -> None:
    nb06.exercise_1(answer)
    assert found() == expected


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
    ("answer", "expected"),
    [
        (lambda o, e, s, y: nll(spliced(o, e, s), y), "right"),
        (in_place, "right"),
        (lambda o, e, s, y: nll(e, y), "no-gradient"),
        (lambda o, e, s, y: nll(spliced(o, e, s), y).item(), "no-gradient"),
        (lambda o, e, s, y: nll(e.requires_grad_(), y), "own-unused"),
        (lambda o, e, s, y: nll(spliced(o, e, s), y) + (o - o.detach()).sum(), "value"),
        (lambda o, e, s, y: nll(o, y), "own-samples-alone"),
        (by_elbo, "mean-of-logs"),
        (lambda o, e, s, y: cross_entropy(spliced(o, e, s).mean(0), y), "mean-of-logits"),
        (lambda o, e, s, y: nll(torch.cat([e, o]), y), "own-counted-twice"),
        (lambda o, e, s, y: nll(torch.cat([e[:s], e[s + len(o) :]]), y), "own-missing"),
        (lambda o, e, s, y: nll(torch.cat([o, e[len(o) :]]), y), "own-misplaced"),
        (lambda o, e, s, y: len(y) * nll(spliced(o, e, s), y), "rows-not-averaged"),
        (lambda o, e, s, y: -nll(spliced(o, e, s), y), "sign"),
        (lambda o, e, s, y: None, "no-return"),
        (lambda o, e, s, y: ..., "open"),
    ],
)
def test_exercise_2(answer: Callable[..., object], expected: str) -> None:
    nb06.exercise_2(answer)
    assert found() == expected


def up(total: int, parts: int) -> int:
    return math.ceil(total / parts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda p, s, b, c, w, i: i * (2 * p + up(s, w) * b * c), "right"),
        (lambda p, s, b, c, w, i: i * 2 * p, "predictions-missing"),
        (lambda p, s, b, c, w, i: i * up(s, w) * b * c, "gradient-missing"),
        (lambda p, s, b, c, w, i: i * (p + up(s, w) * b * c), "one-number-a-weight"),
        (lambda p, s, b, c, w, i: i * (2 * p + s * b * c), "too-much-handed-over"),
        (lambda p, s, b, c, w, i: i * (2 * p + s / w * b * c), "samples-cut"),
        (lambda p, s, b, c, w, i: i * (2 * p + s // w * b * c), "rounded-down"),
        (lambda p, s, b, c, w, i: i * (2 * p + up(s, w) * b), "classes-missing"),
        (lambda p, s, b, c, w, i: i * (2 * p + up(s, w) * c), "rows-missing"),
        (lambda p, s, b, c, w, i: 2 * p + up(s, w) * b * c, "numbers-not-bytes"),
        (lambda p, s, b, c, w, i: i * 2 * (p + up(s, w) * b * c), "too-much-handed-over"),
        (lambda p, s, b, c, w, i: ..., "open"),
    ],
)
def test_exercise_3(pool: spnb.WorkerPool, answer: Callable[..., object], expected: str) -> None:
    nb06.exercise_3(answer, pool)
    assert found() == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda d, k, w: w * d + k, "right"),
        (lambda d, k, w: w * (d + k / w), "right"),
        (lambda d, k, w: d + k, "data-term-too-small"),
        (lambda d, k, w: d + k / w, "both-too-small"),
        (lambda d, k, w: w * (d + k), "kl-counted-twice"),
        (lambda d, k, w: d / w + k, "divided-twice"),
        (lambda d, k, w: w * d, "kl-missing"),
        (lambda d, k, w: k, "value"),
        (lambda d, k, w: (w * d + k).item(), "no-gradient"),
        (lambda d, k, w: None, "no-return"),
        (lambda d, k, w: ..., "open"),
    ],
)
def test_exercise_4(answer: Callable[..., object], expected: str) -> None:
    nb06.exercise_4(answer)
    assert found() == expected


@pytest.mark.parametrize(
    ("answer", "figures"),
    [
        (lambda d, k, w: d + k, ["2", "0.5", "1"]),
        (lambda d, k, w: w * (d + k), ["2", "1", "2"]),
        (lambda d, k, w: k, ["2", "0", "1", "1"]),
    ],
)
def test_exercise_4_tells_the_ranks_and_the_weights(
    answer: Callable[..., object], figures: list[str]
) -> None:
    nb06.exercise_4(answer)
    assert re.findall(r"\d+(?:\.\d+)?", check.outcomes[-1].message) == figures
