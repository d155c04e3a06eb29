"""The scores that suit a likelihood, by name: what `spnb.score` reports."""

from __future__ import annotations

import torch
from torch import Tensor

from spnb.maths.likelihoods import Categorical, Likelihood
from spnb.maths.objectives import EnergyScore
from spnb.maths.scores.classes import classification
from spnb.maths.scores.density import predictive_nll
from spnb.maths.scores.forecasts import coverage, crps, normal_parts


def regression(draws: Tensor, targets: Tensor, likelihood: Likelihood) -> dict[str, float]:
    """Root mean squared error, negative log-likelihood and more.

    Args:
        draws: predictions ``[S, N, ...]``.
        targets: ``[N, ...]``.
        likelihood: a likelihood with a mean.

    Returns:
        ``rmse`` in units of the targets, ``nll`` in nats, ``energy_score`` (fair; of the samples'
        means, so of the epistemic spread alone) in units of the targets. Where the noise is normal
        also ``crps``, the mean over all targets in their units, of both kinds of spread, and
        ``coverage_90``, the share of the targets within the central interval of 90 %.
    """
    mean = likelihood.mean(draws).mean(0)
    energy = EnergyScore().losses(draws, targets, likelihood)
    found = {
        "rmse": (mean - targets).square().mean().sqrt().item(),
        "nll": predictive_nll(draws, targets, likelihood),
        "energy_score": energy.mean().item(),
    }
    if normal_parts(draws, likelihood) is not None:
        found["crps"] = crps(draws, targets, likelihood).mean().item()
        found["coverage_90"] = coverage(draws, targets, likelihood, 0.9).mean().item()
    return found


def evaluate(draws: Tensor, targets: Tensor, likelihood: Likelihood) -> dict[str, float]:
    """The scores that suit the likelihood: `classification` or `regression`."""
    with torch.no_grad():
        if isinstance(likelihood, Categorical):
            return classification(draws, targets, likelihood)
        return regression(draws, targets, likelihood)
