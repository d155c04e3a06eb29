"""The exercise checks of notebook 10, *One axis, many methods*."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from spnb.maths.likelihoods import Normal
from spnb.maths.models import BayesianModel
from spnb.maths.posteriors import Posterior
from spnb.parallel.keyed import Key
from spnb.parallel.layout import Layout
from spnb.parallel.pool import WorkerPool
from spnb.run.training import fit
from spnb.teach.check import Wrong, close, exercise


@exercise
def exercise_1(thinned: Callable[[Tensor, Tensor, float], Any]) -> str:
    """Weights of a layer, some of whose input units are left out."""
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    there = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    right = weight * there / 0.75
    mistakes = [
        (
            weight * there,
            "not-rescaled",
            "the units that stay must make up for the others: divide by 1 - rate",
        ),
        (
            weight * there / 0.25,
            "divided-by-rate",
            "divide by the share that stays, 1 - rate, not by the rate",
        ),
        (weight * (1 - there) / 0.75, "inverted-mask", "1 means that a unit is there"),
        (
            weight * there * 0.75,
            "multiplied-not-divided",
            "divide by 1 - rate: the mean over all masks is then the weight",
        ),
    ]
    close(thinned(weight.clone(), there.clone(), 0.25), right, mistakes, what="your weights")
    return "whole columns are zero: the unit is missing for all that listen to it"


@exercise
def exercise_2(langevin: Callable[[Tensor, Tensor, float, int, Tensor], Any]) -> str:
    """One step of stochastic-gradient Langevin dynamics, and where many of them lead."""
    generator = torch.Generator().manual_seed(3)
    weights, gradient, noise = torch.randn(3, 8, generator=generator, dtype=torch.float64)
    eta, rows = 0.02, 50
    spread = math.sqrt(2 * eta / rows)
    still = weights - eta * gradient
    mistakes = [
        (
            still,
            "noise-missing",
            "the noise is missing: this is gradient descent, and ends in one point",
        ),
        (
            still + 2 * eta / rows * noise,
            "no-square-root",
            "2 η / N is the variance of the noise: take the root",
        ),
        (
            still + math.sqrt(2 * eta) * noise,
            "not-divided-by-n",
            "the loss is a mean over N rows: divide by N",
        ),
        (
            still + math.sqrt(eta / rows) * noise,
            "factor-two-missing",
            "the variance is *two* η / N",
        ),
        (weights + eta * gradient + spread * noise, "uphill", "down the gradient, not up"),
    ]
    found = langevin(weights.clone(), gradient.clone(), eta, rows, noise.clone())
    close(found, still + spread * noise, mistakes, what="your step")
    # 500 walkers in a bowl of curvature 1 for each of N rows: the posterior has variance 1 / N.
    walkers = torch.zeros(500, dtype=torch.float64)
    for _ in range(400):
        noise = torch.randn(500, generator=generator, dtype=torch.float64)
        walkers = langevin(walkers, walkers, eta, rows, noise)
    return (
        f"500 walkers in a bowl spread by {walkers.std():.3f}, and the posterior's standard "
        f"deviation is {rows**-0.5:.3f}: the walk visits weights as often as the posterior says"
    )


@exercise
def exercise_3(model_average: Callable[[Tensor], Any]) -> str:
    """Class probabilities of a model average, from the logits of its samples."""
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(5, 7, 4, generator=generator, dtype=torch.float64)
    votes = torch.nn.functional.one_hot(logits.argmax(-1), 4).double().mean(0)
    mistakes = [
        (
            logits.mean(0).softmax(-1),
            "mean-of-logits",
            "that averages the logits: average what each sample believes",
        ),
        (votes, "votes", "those are the samples' votes; each has more to say than its favourite"),
        (
            logits.softmax(0).mean(0),
            "softmax-over-samples",
            "softmax goes over the classes, the last dimension",
        ),
    ]
    answer = model_average(logits.clone())
    if torch.is_tensor(answer) and answer.shape == (5, 4):
        raise Wrong(
            "wrong-dimension",
            "you averaged over the images: average over the samples, dimension 0",
        )
    close(answer, logits.softmax(-1).mean(0), mistakes, what="your probabilities")
    return "a mixture of what the samples believe: every method here predicts so"


@exercise
def exercise_4(method: type[Posterior], pool: WorkerPool) -> str:
    """A method with one width: its samples, and its training in two layouts."""
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(24, 3, generator=generator, dtype=torch.float64)
    y = x.sum(1, keepdim=True) + 0.3 * torch.randn(24, 1, generator=generator, dtype=torch.float64)
    net = torch.nn.Linear(3, 1).double()
    with torch.no_grad():
        net.weight.zero_()
        net.bias.zero_()
    posterior = method(BayesianModel(net, dist.Normal(0, 1), Normal(0.3)))
    _judge_draws(posterior)
    options: dict[str, Any] = {"num_samples": 4, "epochs": 150, "learning_rate": 0.05}
    options["schedule"] = "cosine"
    alone = fit(posterior, (x, y), **options).posterior
    both = pool.run(fit, posterior, (x, y), layout=Layout(sample=2), **options)[0].posterior
    gaps = [
        (mine - theirs).abs().max().item()
        for mine, theirs in zip(alone.parameters(), both.parameters(), strict=True)
    ]
    if max(gaps) > 1e-9:
        raise Wrong(
            "layouts-differ",
            f"one process and two workers train to parameters that differ by {max(gaps):.1g}: the "
            "noise of a sample may depend on its number and the key alone",
        )
    _, width = alone.prepare()
    inverse = (x.T @ x / 0.09 + torch.eye(3)).diagonal()
    precision = torch.cat([inverse, torch.tensor([24 / 0.09 + 1])])  # and that of the bias
    close(width, precision.mean().rsqrt(), rtol=0.25, what="the trained width")
    return (
        f"trained on two workers to what one process finds, within {max(gaps):.0e}; the width is "
        f"{width.item():.3f}, and the best one for this data {precision.mean().rsqrt():.3f}"
    )


def _judge_draws(posterior: Posterior) -> None:
    """Samples belong to their numbers, and are standard normal noise, widened and moved."""
    key, many = Key(5), range(4000)
    loc, width = posterior.prepare()
    drawn = posterior.draw([3, 0, 5], key)
    if not torch.is_tensor(drawn) or drawn.shape != (3, len(loc)):
        shape = tuple(drawn.shape) if torch.is_tensor(drawn) else type(drawn).__name__
        raise Wrong(
            "shape-of-draws", f"three sample numbers give {shape} where (3, {len(loc)}) is wanted"
        )
    if not torch.equal(drawn, posterior.draw([3, 0, 5], key)):
        raise Wrong(
            "noise-not-from-key",
            "asked twice, the same samples differ: take the noise from the key's generator",
        )
    if torch.equal(drawn[0], drawn[1]):
        raise Wrong("equal-samples", "all samples are equal: fold the sample's number into the key")
    if not torch.equal(drawn[1], posterior.draw([0], key)[0]):
        raise Wrong(
            "place-not-number",
            "sample 0 differs when it is asked for alone: use s, not its place in the list",
        )
    noise = (posterior.draw(many, key) - loc) / width
    if abs(noise.mean()) > 0.05 or abs(noise.std() - 1) > 0.05:
        raise Wrong(
            "not-standard-normal",
            f"loc and width taken away, your samples have mean {noise.mean():.2f} and standard "
            f"deviation {noise.std():.2f}; standard normal noise has 0 and 1",
        )
