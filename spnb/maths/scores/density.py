"""The log score: how much density the model average gave to what happened."""

from __future__ import annotations

import math

from torch import Tensor

from spnb.maths.likelihoods import Likelihood
from spnb.maths.scores.targets import mean_observed


def predictive_nll(draws: Tensor, targets: Tensor, likelihood: Likelihood) -> float:
    """Mean negative log of the mean predictive density, in nats.

    Args:
        draws: parameters of the likelihood ``[S, N, ...]``.
        targets: ``[N, ...]``; the density of an item is that of all its observed dimensions
            together. An item without any is left out.
        likelihood: the model's likelihood.

    Raises:
        ValueError: the targets do not fit, or the likelihood does not give a density for each item.
    """
    targets = likelihood.targets(targets, draws[:1])
    observed = likelihood.observed(targets)
    logs = likelihood.log_likelihood(draws, targets)
    if logs.shape != draws.shape[:2]:
        raise ValueError(
            f"{type(likelihood).__name__}.log_likelihood gave {tuple(logs.shape)} for "
            f"{draws.shape[0]} samples and {draws.shape[1]} items; it must give one number for "
            "each."
        )
    items = None if observed is None else observed.reshape(len(observed), -1).any(1)
    return mean_observed(math.log(len(draws)) - logs.logsumexp(0), items).item()
