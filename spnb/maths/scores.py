"""Scores of the Bayesian model average: of the mean predictive over all samples.

Each takes the draws ``[S, N, ...]`` of *all* samples. Scoring each process' own samples and
averaging the scores would be the score of another, smaller ensemble.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spnb.maths.likelihoods import Categorical, Likelihood
from spnb.maths.objectives import EnergyScore

CALIBRATION_BINS = 15


def predictive_nll(draws: Tensor, targets: Tensor, likelihood: Likelihood) -> float:
    """Mean negative log of the mean predictive density, in nats."""
    logs = likelihood.log_likelihood(draws, targets)
    return -(logs.logsumexp(0) - math.log(len(draws))).mean().item()


def classification(draws: Tensor, targets: Tensor, likelihood: Likelihood) -> dict[str, float]:
    """Accuracy, negative log-likelihood, Brier score and expected calibration error.

    Args:
        draws: logits ``[S, N, C]``.
        targets: classes ``[N]``.
        likelihood: the categorical likelihood.

    Returns:
        ``accuracy``, ``nll`` (nats), ``brier`` (0 to 2), ``ece`` (15 bins, from torchmetrics).
    """
    # Takes seconds to import, so only where it is used.
    from torchmetrics.functional.classification import multiclass_calibration_error

    probabilities = likelihood.mean(draws).mean(0)
    errors = (probabilities - likelihood.encode(targets, draws)).square()
    return {
        "accuracy": (probabilities.argmax(-1) == targets).double().mean().item(),
        "nll": predictive_nll(draws, targets, likelihood),
        "brier": errors.sum(-1).mean().item(),
        "ece": multiclass_calibration_error(
            probabilities, targets, probabilities.shape[-1], n_bins=CALIBRATION_BINS
        ).item(),
    }


def regression(draws: Tensor, targets: Tensor, likelihood: Likelihood) -> dict[str, float]:
    """Root mean squared error, negative log-likelihood and energy score.

    Args:
        draws: predictions ``[S, N, ...]``.
        targets: ``[N, ...]``.
        likelihood: a likelihood with a mean.

    Returns:
        ``rmse`` in units of the targets, ``nll`` in nats, ``energy_score`` (fair; of the samples'
        means, so of the epistemic spread alone) in units of the targets.
    """
    mean = likelihood.mean(draws).mean(0)
    energy = EnergyScore().losses(draws, targets, likelihood)
    return {
        "rmse": (mean - targets).square().mean().sqrt().item(),
        "nll": predictive_nll(draws, targets, likelihood),
        "energy_score": energy.mean().item(),
    }


def evaluate(draws: Tensor, targets: Tensor, likelihood: Likelihood) -> dict[str, float]:
    """The scores that suit the likelihood."""
    with torch.no_grad():
        if isinstance(likelihood, Categorical):
            return classification(draws, targets, likelihood)
        return regression(draws, targets, likelihood)
