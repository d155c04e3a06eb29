"""The exercise checks of notebook 08, *Time series: tomorrow's electricity*."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spnb.teach.check import Wrong, close, exercise


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@exercise
def exercise_1(crps_of_draws: Callable[[Tensor, float], Any]) -> str:
    """The fair estimate of the CRPS from draws."""
    for number in (5, 2, 40):
        z = 50 + 3 * torch.randn(number, generator=_generator(number), dtype=torch.float64)
        y = 50.0
        far = (z - y).abs().mean()
        apart = (z[:, None] - z[None, :]).abs()
        fair = far - apart.sum() / (2 * number * (number - 1))
        mistakes = [
            (
                far - apart.mean() / 2,
                "self-pairs",
                "you divided the pairs by 2 S²: that counts S distances of a draw from itself, so "
                "the score is too large for few draws. Divide by 2 S (S - 1)",
            ),
            (
                far,
                "pairs-missing",
                "the second part is missing: draws may be apart from each other",
            ),
            (
                far - 2 * (far - fair),
                "pairs-not-halved",
                "the pairs count twice too much: halve their mean",
            ),
            (
                far + (far - fair),
                "pairs-added",
                "the second part is subtracted: it forgives the draws",
            ),
            (
                (z.mean() - y).abs(),
                "error-of-mean",
                "that is the error of the mean: the truth from *each* draw",
            ),
            (
                number * far - apart.sum() / (2 * (number - 1)),
                "samples-not-averaged",
                "take the mean over the draws",
            ),
        ]
        close(crps_of_draws(z.clone(), y), fair, mistakes, what=f"your score of {number} draws")
    many = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(2000.0) + 0.5) / 2000).double()
    close(crps_of_draws(many, 0.0), 0.2337, rtol=0.01, what="your score of a normal forecast")
    return "on average it is the area itself, however few draws there are"


@exercise
def exercise_2(residual_scale: Callable[[Tensor, Tensor], Any]) -> str:
    """Noise for a point forecast from its past errors."""
    point = torch.randn(5, 24, generator=_generator(2), dtype=torch.float64)
    errors = 1 + torch.randn(9, 24, generator=_generator(3), dtype=torch.float64)
    squares = errors.square()
    mistakes = [
        (
            errors.std(0).expand_as(point),
            "standard-deviation",
            "that is the standard deviation: it forgets that these forecasts are too high on "
            "average. Square the errors themselves",
        ),
        (
            errors.std(0, correction=0).expand_as(point),
            "mean-error-dropped",
            "the mean error has to count, too",
        ),
        (
            squares.mean().sqrt().expand_as(point),
            "all-dimensions",
            "each hour of the day has a noise of its own",
        ),
        (
            squares.mean(0).expand_as(point),
            "no-square-root",
            "that is the variance: the square root is missing",
        ),
        (
            errors.abs().mean(0).expand_as(point),
            "absolute-not-squared",
            "square the errors, do not take their size",
        ),
    ]
    answer = residual_scale(point.clone(), errors.clone())
    if isinstance(answer, Tensor) and answer.shape == (24,):
        raise Wrong(
            "not-expanded",
            "the 24 numbers may be right, but each of the N days wants them: `expand_as`",
        )
    close(answer, squares.mean(0).sqrt().expand_as(point), mistakes, what="your scale")
    return "now any point forecast is a probabilistic one, as honest as its past errors"


@exercise
def exercise_3(share_within: Callable[[Tensor, Tensor, Tensor], Any]) -> str:
    """Coverage by hour of the day."""
    truth = torch.randn(40, 24, generator=_generator(4), dtype=torch.float64)
    low = -1.5 + 0.5 * torch.rand(40, 24, generator=_generator(5), dtype=torch.float64)
    high = low + 2.5
    inside = (truth >= low) & (truth <= high)
    shares = inside.double().mean(0)
    answer = share_within(low, high, truth)
    mistakes = [
        (
            (truth >= low).double().mean(0),
            "lower-edge-only",
            "the truth may also lie above the interval",
        ),
        (
            (truth <= high).double().mean(0),
            "upper-edge-only",
            "the truth may also lie below the interval",
        ),
        (1 - shares, "share-outside", "that is the share outside"),
        (
            inside.double().sum(0),
            "count-not-share",
            "that is how many days there are: take the share",
        ),
    ]
    if torch.is_tensor(answer) and answer.shape == (40,):
        raise Wrong(
            "wrong-dimension",
            "you took the mean over the hours: over the days is wanted, `mean(0)`",
        )
    if torch.is_tensor(answer) and answer.dim() == 0:
        raise Wrong(
            "all-dimensions",
            "that is one number for all hours; each hour of the day wants its own",
        )
    close(answer, shares, mistakes, what="your share")
    return "an average of 90 % can hide a morning peak that is always missed"


@exercise
def exercise_4(two_parts: Callable[[Tensor, Tensor], Any]) -> str:
    """Aleatoric and epistemic standard deviation."""
    means = torch.randn(6, 10, generator=_generator(6), dtype=torch.float64)
    scales = 0.3 + torch.rand(6, 10, generator=_generator(7), dtype=torch.float64)
    answer = two_parts(means.clone(), scales.clone())
    if not (isinstance(answer, tuple | list) and len(answer) == 2):
        raise Wrong("not-a-pair", "two tensors are wanted: `return aleatoric, epistemic`")
    aleatoric, epistemic = scales.square().mean(0), means.var(0, correction=0)
    close(
        answer[0],
        aleatoric.sqrt(),
        [
            (
                scales.mean(0),
                "deviations-averaged",
                "variances are averaged, not standard deviations",
            ),
            (aleatoric, "no-square-root", "that is the variance: the square root is missing"),
            (
                epistemic.sqrt(),
                "swapped-parts",
                "that is the epistemic part: the order is aleatoric, epistemic",
            ),
        ],
        what="your aleatoric part",
    )
    close(
        answer[1],
        epistemic.sqrt(),
        [
            (
                means.std(0),
                "divided-by-s-minus-1",
                "you divided by S - 1: then the two parts do not add up to the variance of the "
                "mixture. `correction=0`",
            ),
            (epistemic, "no-square-root", "that is the variance: the square root is missing"),
            ((aleatoric + epistemic).sqrt(), "total-spread", "that is the whole spread"),
        ],
        what="your epistemic part",
    )
    return "their squares add up to the variance of the whole forecast"
