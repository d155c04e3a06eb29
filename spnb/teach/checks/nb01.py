"""The exercise checks of notebook 01, *A weight is a distribution*."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spnb.parallel.keyed import Key
from spnb.teach.attempt import NotAttempted
from spnb.teach.check import Wrong, close, equal, exercise

COVER_90 = 1.645


@exercise
def exercise_1(share_plausible: Callable[[Tensor, float, float], Any]) -> str:
    """The share of prior functions that stay inside a range."""
    draws = torch.tensor(
        [[320.0, 330.0, 310.0], [250.0, 320.0, 320.0], [320.0, 320.0, 420.0], [200.0, 250.0, 400.0]]
    )
    inside = (draws > 300) & (draws < 340)
    close(
        share_plausible(draws, 300.0, 340.0),
        inside.all(1).double().mean(),
        [
            (
                inside.double().mean(),
                "weeks-counted",
                "you counted weeks; count whole functions: one bad week is"
                " enough to make a function implausible",
            ),
            (
                inside.any(1).double().mean(),
                "any-week",
                "you asked for *any* week inside the range; all of a"
                " function's weeks must lie in it",
            ),
            (
                inside.all(1).double().sum(),
                "count-not-share",
                "that is a count; divide by the number of functions",
            ),
            (
                inside.all(0).double().mean(),
                "wrong-dimension",
                "you judged weeks over all functions; judge functions"
                " over all weeks: the weeks are dimension 1",
            ),
            (
                (~inside.all(1)).double().mean(),
                "share-outside",
                "that is the share of implausible functions",
            ),
        ],
    )
    return "a prior can be judged before there are any data"


def _cloud() -> tuple[Tensor, Tensor]:
    """Means and standard deviations ``[6, 4]`` of six samples at four times."""
    generator = Key(1).fold("nb01").generator()
    means = 320 + torch.randn(6, 4, generator=generator)
    return means, 0.2 + torch.rand(6, 4, generator=generator)


@exercise
def exercise_2(split_variance: Callable[[Tensor, Tensor], Any]) -> str:
    """The law of total variance."""
    means, sds = _cloud()
    answer = split_variance(means, sds)
    if answer is ...:
        raise NotAttempted
    if not isinstance(answer, tuple | list):
        raise Wrong("not-a-pair", "return two things: epistemic, aleatoric")
    equal(len(answer), 2, what="the number of things you returned")
    epistemic, aleatoric = answer
    biased = (
        torch.is_tensor(epistemic)
        and epistemic.shape == (4,)
        and torch.allclose(epistemic, means.var(0, correction=0), rtol=1e-4)
    )  # dividing by S instead of S - 1 is right as well
    close(
        epistemic,
        means.var(0, correction=0 if biased else 1),
        [
            (
                means.std(0),
                "deviation-not-variance",
                "that is a standard deviation; variances add up, deviations do not",
            ),
            (
                means.var(1),
                "wrong-dimension",
                "you took the variance over the times; samples are dimension 0",
            ),
            (
                means.var(),
                "all-dimensions",
                "one number is too little: samples are dimension 0, keep the times",
            ),
            (
                sds.square().mean(0),
                "swapped-parts",
                "epistemic and aleatoric are in each other's place",
            ),
        ],
        what="the epistemic part",
    )
    close(
        aleatoric,
        sds.square().mean(0),
        [
            (
                sds.mean(0).square(),
                "square-of-mean",
                "you squared the mean; take the mean of the squares",
            ),
            (
                sds.mean(0),
                "deviations-averaged",
                "that is a mean standard deviation; square first, then average",
            ),
            (
                sds.square().sum(0),
                "samples-not-averaged",
                "you summed over the samples instead of averaging",
            ),
            (
                sds.var(0),
                "variance-of-noise",
                "that is how much the noise differs between samples, not the noise",
            ),
            (
                sds.square().mean(1),
                "wrong-dimension",
                "you averaged over the times; samples are dimension 0",
            ),
        ],
        what="the aleatoric part",
    )
    return "between the samples, within the samples; together the variance of the prediction"


@exercise
def exercise_3(coverage: Callable[[Tensor, float, Tensor], Any]) -> str:
    """The share of values inside the 90 % band."""
    generator = Key(2).fold("nb01").generator()
    means = torch.randn(16, 200, generator=generator)
    targets = 1.6 * torch.randn(200, generator=generator)
    noise = 0.8

    def share(sd: Tensor) -> Tensor:
        return ((targets - means.mean(0)).abs() < COVER_90 * sd).double().mean()

    epistemic, still = means.std(0), torch.full((200,), noise)
    total = (epistemic.square() + noise**2).sqrt()
    below = (targets < means.mean(0) + COVER_90 * total).double().mean()
    close(
        coverage(means, noise, targets),
        share(total),
        [
            (
                share(epistemic),
                "epistemic-alone",
                "your band is epistemic alone; a new measurement has noise too",
            ),
            (
                share(still),
                "noise-alone",
                "your band is the noise alone; the samples disagree as well",
            ),
            (
                share(epistemic + noise),
                "deviations-added",
                "you added standard deviations; add variances",
            ),
            (
                share(total / COVER_90),
                "one-deviation",
                "one standard deviation holds 68 %, not 90 %",
            ),
            (
                share(total.square()),
                "no-square-root",
                "you forgot the square root: that was a variance",
            ),
            (
                below,
                "upper-edge-only",
                "only the upper edge counts in yours; take the distance without its sign",
            ),
            (1 - share(total), "share-outside", "that is the share outside the band"),
            (
                share(total) * 200,
                "count-not-share",
                "that is a count; divide by the number of values",
            ),
        ],
        atol=0.6 / 200 / 2,
    )
    return "a band of 90 % should hold about 90 %, no less and no more"


@exercise
def exercise_4(samples_needed: Callable[[float, float], Any]) -> str:
    """How many samples a wanted Monte Carlo error takes."""
    cases = [(0.8, 0.1), (0.5, 0.07), (0.3, 0.5)]
    for spread, error in cases:
        exact = (spread / error) ** 2
        right = math.ceil(exact - 1e-9)
        mistakes = [
            (
                math.ceil(spread / error),
                "not-squared",
                "the error falls with the *root* of S: square the ratio",
            ),
            (
                math.floor(exact),
                "rounded-down",
                "you rounded down, which leaves the error just too large",
            ),
            (exact, "not-whole", "a number of samples is a whole number: round up"),
            (math.ceil((error / spread) ** 2), "inverted", "your ratio stands on its head"),
        ]
        what = f"your answer for a spread of {spread} and an error of {error}"
        known = [mistake for mistake in mistakes if mistake[0] != right]
        close(samples_needed(spread, error), right, known, what=what, rtol=0, atol=1e-9)
    return "half the error costs four times the samples"
