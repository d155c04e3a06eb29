"""The exercise checks of notebook 09, *Weather: a Bayesian Swin*."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spnb.maths.models import BayesianModel
from spnb.maths.posteriors import MeanField
from spnb.parallel.layout import Layout
from spnb.run.optimizer import adam
from spnb.teach.check import Wrong, close, exercise


@exercise
def exercise_1(area_rmse: Callable[[Tensor, Tensor], Any]) -> str:
    """A root mean squared error in which every square kilometre counts the same."""
    latitude = torch.tensor([75.0, 45.0, 15.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    error = torch.randn(4, 3, 5, generator=generator, dtype=torch.float64)
    error[:, 0] *= 5  # most wrong in the north, where cells are small
    weight = torch.deg2rad(latitude).cos()
    share = (weight / weight.mean()).unsqueeze(1)
    right = (error.square() * share).mean().sqrt()
    degrees = latitude.cos()
    mistakes = [
        (
            error.square().mean().sqrt(),
            "not-weighted",
            "all rows count the same: those near the pole are smaller",
        ),
        (
            (error.square() * weight.unsqueeze(1)).mean().sqrt(),
            "weights-not-normalised",
            "the weights have no mean of 1: divide them by their mean, or the error is no longer "
            "in kelvin",
        ),
        ((error.square() * share).mean(), "no-square-root", "the square root is missing"),
        (
            (error * share).square().mean().sqrt(),
            "errors-weighted",
            "weigh the squares, not the errors",
        ),
        (
            (error.square() * (degrees / degrees.mean()).unsqueeze(1)).mean().sqrt(),
            "degrees",
            "`cos` wants radians: `torch.deg2rad(latitude)`",
        ),
        (
            (error.abs() * share).mean(),
            "absolute-not-squared",
            "squares are wanted, not absolute values",
        ),
    ]
    close(area_rmse(error.clone(), latitude.clone()), right, mistakes, what="your error")
    return "a square kilometre in Canada counts as much as one in Cuba"


@exercise
def exercise_2(spread_over_error: Callable[[Tensor, Tensor], Any]) -> str:
    """Spread over error of a small ensemble."""
    generator = torch.Generator().manual_seed(2)
    members = torch.randn(3, 500, generator=generator, dtype=torch.float64)
    truth = torch.randn(500, generator=generator, dtype=torch.float64)
    variance = members.var(0).mean()
    error = (members.mean(0) - truth).square().mean()
    right = (4 / 3 * variance / error).sqrt()
    mistakes = [
        (
            (variance / error).sqrt(),
            "ensemble-factor-missing",
            "the factor (S + 1) / S is missing: the mean of S members is itself off",
        ),
        (
            (4 / 3 * members.var(0, correction=0).mean() / error).sqrt(),
            "divided-by-s",
            "the variance of few members must be divided by S - 1",
        ),
        ((error / (4 / 3 * variance)).sqrt(), "inverted", "that is error over spread"),
        (4 / 3 * variance / error, "no-square-root", "the square root is missing"),
        (
            math.sqrt(4 / 3) * members.std(0).mean() / error.sqrt(),
            "deviations-averaged",
            "average the variances, then take the root",
        ),
    ]
    close(spread_over_error(members.clone(), truth.clone()), right, mistakes, what="your ratio")
    return f"{float(right):.2f}: truth and members come from one distribution, so it is near 1"


@exercise
def exercise_3(state_bytes: Callable[[int, int], Any]) -> str:
    """Bytes of parameters, gradients and optimiser, against those of a real run."""
    net = nn.Sequential(nn.Linear(30, 20), nn.Tanh(), nn.Linear(20, 5))
    posterior = MeanField(BayesianModel(net))
    for parameter in posterior.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser = adam(posterior, 1e-3)
    optimiser.step()
    moments = sum(
        value.nbytes
        for state in optimiser.state.values()
        for name, value in state.items()
        if name.startswith("exp_avg")
    )
    trained = sum(p.nbytes for p in posterior.parameters())
    weights = sum(p.numel() for p in net.parameters())
    right = 2 * trained + moments
    mistakes = [
        (
            4 * 4 * weights,
            "plain-network",
            "that is a plain network's: each weight has a mean *and* a scale",
        ),
        (right - moments, "moments-missing", "Adam keeps two moments of each trained number"),
        (right - moments / 2, "one-moment", "Adam keeps *two* moments of each trained number"),
        (right - trained, "gradient-missing", "the gradients are missing"),
        (
            right / 4,
            "numbers-not-bytes",
            "that is how many numbers there are: each takes itemsize bytes",
        ),
    ]
    close(state_bytes(weights, 4), right, mistakes, what=f"your bytes for {weights} weights")
    close(state_bytes(weights, 8), 2 * right, what="your bytes in double precision")
    return f"a real posterior with Adam holds exactly that: {right:,} bytes for {weights} weights"


@exercise
def exercise_4(choose: Callable[[Mapping[Layout, float], float], Any]) -> str:
    """The layout that fits and gives each rank the fewest samples."""
    totals = {Layout(1, 8): 90.0, Layout(2, 4): 55.0, Layout(4, 2): 38.0, Layout(8, 1): 30.0}
    for limit, right in ((100.0, Layout(1, 8)), (60.0, Layout(2, 4)), (40.0, Layout(4, 2))):
        answer = choose(dict(totals), limit)
        if not isinstance(answer, Layout):
            raise Wrong("not-a-layout", f"a layout is wanted, not {answer!r}")
        if totals[answer] > limit:
            raise Wrong(
                "does-not-fit", f"{answer} needs {totals[answer]:g} GB, and the card has {limit:g}"
            )
        if answer != right:
            raise Wrong(
                "fewer-data-ranks",
                f"on a card of {limit:g} GB {right} fits, too, and has more data ranks",
            )
    if choose(dict(totals), 10.0) is not None:
        raise Wrong("nothing-fits", "on a card of 10 GB nothing fits: return None")
    return "memory decides first, and then what you would like best"
