"""The log score: how much density the model average gave to what happened."""

from __future__ import annotations

import math

from torch import Tensor

from spnb.maths.likelihoods import Likelihood


def predictive_nll(draws: Tensor, targets: Tensor, likelihood: Likelihood) -> float:
    """Mean negative log of the mean predictive density, in nats.

    Args:
        draws: parameters of the likelihood ``[S, N, ...]``.
        targets: ``[N, ...]``; the density of an item is that of all its dimensions together.
        likelihood: the model's likelihood.
    """
    logs = likelihood.log_likelihood(draws, targets)
    return -(logs.logsumexp(0) - math.log(len(draws))).mean().item()
