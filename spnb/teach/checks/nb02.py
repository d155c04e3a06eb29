"""The exercise checks of notebook 02, *What a sample costs*."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spnb.teach.attempt import NotAttempted, attempted
from spnb.teach.check import Wrong, close, equal, exercise
from spnb.teach.explore.budget import group_means, nll


@exercise
def exercise_1(bill: Callable[[float, float, float, float], Any]) -> str:
    """Offset and slope of a bill, from two of its entries."""
    for offset, each, few, many in ((2.0, 3.0, 2, 10), (0.5, 1.25, 4, 32)):
        first, last = offset + each * few, offset + each * many
        answer = _pair(bill(few, first, many, last), "offset, per_sample")
        through_zero = last / many
        mistakes = [
            (
                (each, offset),
                "swapped-parts",
                "you return the two in the other order: the offset comes first",
            ),
            (
                (last - through_zero * many, through_zero),
                "through-zero",
                "time / S hands the offset to the samples: divide the *difference* of the times "
                "by the difference of the samples",
            ),
            (
                (first, each),
                "offset-is-first-time",
                "the offset is the time with no sample at all, not the first time",
            ),
            (
                (first - each, each),
                "one-sample-off",
                "you took the cost of one sample off the first time; it has more samples than one",
            ),
            (
                (first, last - first),
                "difference-not-divided",
                "the difference of the times is the cost of all samples between: divide it by how "
                "many they are",
            ),
            (
                (first - few / each, 1 / each),
                "inverted",
                "that is samples a millisecond; milliseconds a sample is asked for",
            ),
        ]
        close(answer, (offset, each), mistakes, what="(offset, per_sample)")
    return "what every step pays, and what every sample adds"


@exercise
def exercise_2(largest_samples: Callable[[int, int, int, int], Any]) -> str:
    """How many samples fit, all of them in flight."""
    for budget, base, each, ranks in ((100, 31, 8, 4), (64, 10, 9, 3), (50, 20, 10, 1)):
        fits = (budget - base) // each
        exact = (budget - base) / each
        case = f"{ranks} ranks of {budget} MB, {base} MB base, {each} MB a sample"
        mistakes = [
            (
                ranks * (budget // each),
                "base-missing",
                f"{case}: each rank needs its base as well, before the first sample",
            ),
            (
                (ranks * (budget - base)) // each,
                "memory-pooled",
                f"{case}: you divided the memory of all ranks together, but no sample can lie on "
                "two ranks: round down on each",
            ),
            (
                (ranks * budget - base) // each,
                "base-once",
                f"{case}: every rank has a base of its own, not only the first",
            ),
            (
                ranks * math.ceil(exact),
                "rounded-up",
                f"{case}: rounded up, the last sample no longer fits: round down",
            ),
            (
                ranks * exact,
                "not-whole",
                f"{case}: there are only whole samples: round down on each rank",
            ),
            (fits, "one-rank", f"{case}: that is what fits on one rank"),
            (
                0,
                "zero",
                f"{case}: nothing fits? Take the base off, then divide by the size of a sample",
            ),
        ]
        equal(largest_samples(budget, base, each, ranks), ranks * fits, mistakes, what=case)
    return "each rank fills its own memory, so S grows with the ranks"


@exercise
def exercise_3(samples_worth: Callable[[float, float, float], Any]) -> str:
    """The S from which the batch's noise dominates."""
    cases = ((3.0, 1.0, 0.5), (2.0, 0.5, 0.1), (3.0, 2.0, 0.3), (0.2, 1.0, 0.5))
    for sample, batch, share in cases:
        case = f"sample_sd = {sample:g}, batch_sd = {batch:g}, share = {share:g}"

        squares = sample**2 / batch**2
        exact = squares * (1 - share) / share
        mistakes = [
            (
                _whole(sample / batch * (1 - share) / share),
                "not-squared",
                f"{case}: variances add up, standard deviations do not: square them",
            ),
            (
                _whole(squares / share),
                "not-of-total",
                f"{case}: the share is that of the *total* variance, samples and batch together",
            ),
            (
                _whole(squares * share / (1 - share)),
                "batch-share",
                f"{case}: your share is that of the batch; the samples' share is asked for",
            ),
            (
                _whole((sample / batch * (1 - share) / share) ** 2),
                "share-squared",
                f"{case}: the share is one of variances, so it must not be squared as well",
            ),
            (
                math.floor(exact),
                "rounded-down",
                f"{case}: S must be a whole number, at least 1, rounded *up*",
            ),
            (exact, "not-whole", f"{case}: S must be a whole number, at least 1, rounded *up*"),
        ]
        equal(samples_worth(sample, batch, share), _whole(exact), mistakes, what=case)
    return "beyond that S, a larger batch is the better buy"


@exercise
def exercise_4(pairs: Callable[[Tensor], Any]) -> str:
    """Antithetic pairs out of half the noise."""
    noise = torch.randn(3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = torch.stack([noise, -noise], 1).flatten(0, 1)
    mistakes = [
        (
            torch.cat([noise, -noise]),
            "partners-apart",
            "the partners are right, but lie K rows apart: a rank with the first half of the "
            "samples would hold no pair at all",
        ),
        (noise.repeat_interleave(2, 0), "same-sign", "each row comes twice with the *same* sign"),
        (noise.repeat(2, 1), "same-sign", "the noise comes twice with the *same* sign"),
        (
            -expected,
            "opposite-first",
            "the pairs are right, but let the first of each keep its sign: row 2k is noise k",
        ),
        (
            torch.stack([noise, -noise], 1),
            "not-flattened",
            "the pairs are right: now flatten [K, 2, P] to [2K, P]",
        ),
        (noise, "opposites-missing", "that is the noise you were given; its opposites are missing"),
        (-noise, "noise-missing", "those are the opposites alone; the noise itself is missing"),
    ]
    answer = pairs(noise.clone())
    _name_by_shape(answer, expected, mistakes)
    close(answer, expected, mistakes, what="your noise")
    return "each row is standard normal by itself, and each pair adds up to zero"


@exercise
def exercise_5(
    group_scores: Callable[[Tensor, Tensor, int], Any], probabilities: Tensor, targets: Tensor
) -> str:
    """The NLL of each group of S draws, and the spread between the groups."""
    size = 8
    means = group_means(probabilities, size)
    expected = nll(means, targets)
    single = nll(probabilities[: len(means) * size], targets)
    chosen = probabilities[: len(means) * size, torch.arange(len(targets)), targets]
    strided = nll(probabilities[: len(means) * size].unflatten(0, (size, -1)).mean(0), targets)
    mistakes = [
        (
            single.unflatten(0, (-1, size)).mean(1),
            "mean-of-logs",
            "you averaged the NLL of single draws; average their *probabilities*, then score the "
            "average",
        ),
        (-expected, "sign", "the sign: NLL is the *negative* log-likelihood"),
        (
            strided,
            "strided-groups",
            "your groups take every G-th draw; neighbours belong together: "
            "`unflatten(0, (-1, size))`",
        ),
        (
            -chosen.mean(1).log().unflatten(0, (-1, size)).mean(1),
            "images-first",
            "you averaged over the images before the logarithm: average the draws first, the "
            "images last",
        ),
        (
            -chosen.unflatten(0, (-1, size)).mean((1, 2)).log(),
            "images-first",
            "you averaged over the images before the logarithm: average the draws first, the "
            "images last",
        ),
        (
            expected.mean(),
            "groups-averaged",
            "that is the mean over the groups: return one score for each group",
        ),
        (expected.std(), "spread", "that is the spread already: return one score for each group"),
        (
            nll(probabilities.mean(0, keepdim=True), targets),
            "one-group",
            "that is the score of all draws together: make groups of `size` first",
        ),
        (
            nll(probabilities, targets),
            "single-draws",
            "those are the scores of single draws: make groups first",
        ),
    ]
    answer = group_scores(probabilities.clone(), targets.clone(), size)
    _name_by_shape(answer, expected, mistakes)
    close(answer, expected, mistakes, what="your scores")
    return (
        f"NLL of {size} draws {expected.mean():.3f} ± {expected.std():.3f}; the mean NLL of single "
        f"draws is {single.mean():.3f}"
    )


def _whole(ratio: float) -> int:
    """The smallest whole number of samples that is not below a ratio, up to rounding errors."""
    return max(1, math.ceil(round(ratio, 9)))


def _name_by_shape(answer: Any, expected: Tensor, mistakes: list[tuple[Tensor, str, str]]) -> None:
    """Name a mistake that shows in the shape as well, which `close` would only call misshapen.

    Args:
        answer: what the learner's code gave.
        expected: what it should be.
        mistakes: known wrong values, each with its mistake's name and sentence.
    """
    if not isinstance(answer, Tensor) or answer.shape == expected.shape:
        return
    for wrong, mistake, sentence in mistakes:
        if answer.shape == wrong.shape and torch.allclose(answer.to(wrong), wrong):
            raise Wrong(mistake, sentence)


def _pair(answer: Any, names: str) -> tuple[float, float]:
    """Two numbers, or the sentence that says what came instead."""
    if answer is None:
        raise Wrong("no-return", "the function returns nothing: is a `return` missing?")
    if not attempted(answer):
        raise NotAttempted
    if not isinstance(answer, (tuple, list, Tensor)) or len(answer) != 2:
        raise Wrong("not-a-pair", f"two numbers are wanted: {names}")
    first, second = (float(value) for value in answer)
    return first, second
