"""The exercise checks of notebook 12, *Your own model*."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from spnb.teach.check import Wrong, close, exercise
from spnb.teach.symptoms import Symptoms

SHAPES = {
    "enter.weight": (32, 30),
    "leave.weight": (2, 32),
    "conv.weight": (8, 3, 5, 5),
    "enter.bias": (32,),
}
TRUE_NAMES = {
    "exploding KL": "prior",
    "initial σ": "initial",
    "collapse": "collapse",
    "under-fitting": "under-fitting",
}
"""What the runs of the notebook that went wrong suffer from."""


@exercise
def exercise_1(my_prior: Callable[[str, Tensor], Any]) -> str:
    """A prior for each kind of parameter."""
    for name in ("norm.weight", "norm.bias"):
        if my_prior(name, torch.zeros(32)) is not None:
            raise Wrong(
                "prior-on-norm",
                f"'{name}' has a prior: it was to stay a number, so return None for it",
            )
    for name, shape in SHAPES.items():
        found = my_prior(name, torch.zeros(shape))
        if found is None:
            raise Wrong("no-return", f"'{name}' has no prior: is a `return` missing?")
        if not isinstance(found, Normal):
            raise Wrong(
                "not-normal", f"'{name}' has a {type(found).__name__} where a Normal is wanted"
            )
        inputs = math.prod(shape[1:])
        width = 1.0 if len(shape) == 1 else inputs**-0.5
        mistakes = [
            (
                shape[0] ** -0.5,
                "outputs-not-inputs",
                "count the inputs of a unit, not the outputs: `parameter[0]`",
            ),
            (
                1 / inputs,
                "variance-not-deviation",
                "Normal takes the standard deviation, 1/√n, not the variance",
            ),
            (
                shape[-1] ** -0.5,
                "kernel-width-alone",
                "a unit of a convolution has channels × height × width inputs",
            ),
            (
                1.0,
                "not-divided-by-root-n",
                "with n inputs, each of size 1, the sum would be of size √n: divide by it",
            ),
        ]
        if len(shape) == 1:
            mistakes = [(shape[0] ** -0.5, "bias-scaled", "a bias has no inputs: Normal(0, 1)")]
        close(found.stddev.max(), width, mistakes, what=f"the width for '{name}'")
        close(found.mean.abs().max(), 0.0, what=f"the mean for '{name}'")
    return "each unit is expected to be of size 1, however many inputs it has"


@exercise
def exercise_2(decide: Callable[[Tensor, Tensor], Any]) -> str:
    """The action with the least expected cost."""
    generator = torch.Generator().manual_seed(1)
    probabilities = torch.randn(9, 200, 2, generator=generator).mul(3).softmax(-1)
    costs = torch.tensor([[0.0, 4.0], [20.0, 0.0], [1.0, 1.0]])
    mean = probabilities.mean(0)
    votes = (probabilities @ costs.T).argmin(-1)
    mistakes = [
        (mean.argmax(-1), "likelier-class", "that is the likelier class; the costs play no part"),
        (
            (mean @ costs.T).argmax(-1),
            "dearest-action",
            "that is the dearest action: take the least cost",
        ),
        (
            votes.mode(0).values,
            "votes",
            "that is a vote of the samples: average what they believe first",
        ),
    ]
    answer = decide(probabilities.clone(), costs.clone())
    if torch.is_tensor(answer) and answer.shape == (200, 3):
        raise Wrong(
            "costs-not-actions",
            "those are the expected costs, [N, actions]: take the least of each row",
        )
    if torch.is_tensor(answer) and answer.shape == (9, 200):
        raise Wrong(
            "samples-not-averaged",
            "each sample decides for itself: average the samples first, dimension 0",
        )
    close(answer, (mean @ costs.T).argmin(-1), mistakes, what="your actions")
    return "to ask is worth its price where being wrong is dear and the network is in doubt"


@exercise
def exercise_3(kl_of_each: Callable[[Tensor, Tensor, Tensor], Any]) -> str:
    """The KL of each weight."""
    generator = torch.Generator().manual_seed(2)
    loc = torch.randn(50, generator=generator, dtype=torch.float64)
    scale, prior = 0.1 + torch.rand(2, 50, generator=generator, dtype=torch.float64)
    own, other = Normal(loc, scale), Normal(torch.zeros_like(loc), prior)
    right = kl_divergence(own, other)
    mistakes = [
        (kl_divergence(other, own), "reversed-kl", "that is the KL the other way round"),
        (right.sum(), "summed", "that is the sum: the KL of each weight is wanted"),
        (
            right + 0.5,
            "constant-missing",
            "the constant -1/2 is missing: the KL of equal normals must be zero",
        ),
        (
            right - 2 * (prior / scale).log(),
            "sign-of-logarithm",
            "the logarithm has the wrong sign",
        ),
        (
            (prior / scale).log() + (scale + loc**2) / (2 * prior**2) - 0.5,
            "posterior-width-not-squared",
            "the width of the posterior must be squared",
        ),
        (
            (prior / scale).log() + (scale**2 + loc**2) / (2 * prior) - 0.5,
            "prior-width-not-squared",
            "the width of the prior must be squared",
        ),
    ]
    close(kl_of_each(loc.clone(), scale.clone(), prior.clone()), right, mistakes, what="your KL")
    return "the sum over all weights is what the ELBO charges"


@exercise
def exercise_4(
    diagnose: Callable[[Symptoms, float], Any],
    troubles: Mapping[str, tuple[Symptoms, Symptoms]],
    chance: float,
) -> str:
    """The trouble of each run of the notebook, and the health of the mended ones."""
    for trouble, name in TRUE_NAMES.items():
        broken, mended = troubles[trouble]
        for symptoms, right in ((broken, name), (mended, "healthy")):
            found = diagnose(symptoms, chance)
            if found is None:
                raise Wrong("no-return", "your function returns nothing: is a `return` missing?")
            if found != right:
                raise Wrong(
                    f"missed-{right}",
                    f"a run whose first KL was {symptoms.kl_first:.3g} nats a weight, with "
                    f"{symptoms.wider:.0%} of the weights wider than the prior, "
                    f"{symptoms.like_prior:.0%} like it, and a data term of {symptoms.data:.2f} "
                    f"where chance is {chance:.2f}, you call '{found}'; it is '{right}'",
                )
    return f"{len(TRUE_NAMES)} troubles found, and nobody healthy was treated"
