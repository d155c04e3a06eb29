"""The scores that suit a likelihood, by name: what `spnb.score` reports."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from spnb.maths.likelihoods import Categorical, Likelihood, UnknownMoment
from spnb.maths.scores.classes import classification
from spnb.maths.scores.density import predictive_nll
from spnb.maths.scores.energy import energy_score, ensemble_energy_score
from spnb.maths.scores.forecasts import covered, crps, normal_parts
from spnb.maths.scores.targets import fitted, mean_observed


def regression(
    draws: Tensor, targets: Tensor, likelihood: Likelihood, antithetic: bool = False
) -> dict[str, float]:
    """Root mean squared error, negative log-likelihood and more.

    Args:
        draws: predictions ``[S, N, ...]``.
        targets: ``[N, ...]``.
        likelihood: the model's likelihood.
        antithetic: whether samples 2k and 2k + 1 are partners of opposite noise, as those of a
            posterior with ``antithetic=True`` are.

    Returns:
        ``nll`` in nats. Where the likelihood has a mean, ``rmse`` and ``ensemble_energy_score``
        (fair; of the samples' means, so of the epistemic spread alone) in units of the targets.
        Where the noise is normal also ``energy_score`` (fair; of the predictive) and ``crps``, the
        mean over all targets in their units, both of both kinds of spread, and ``coverage_90``, the
        share of the targets within the central interval of 90 %. A single antithetic pair has no
        energy scores, because it holds no two independent samples. All are means over the targets
        that are not missing.
    """
    nll = predictive_nll(draws, targets, likelihood)
    targets, observed = fitted(draws, targets, likelihood)
    try:
        mean = likelihood.mean(draws).mean(0)
    except UnknownMoment:
        return {"nll": nll}
    found = {"rmse": mean_observed((mean - targets).square(), observed).sqrt().item(), "nll": nll}
    seen = draws, targets, likelihood
    normal = normal_parts(draws, likelihood) is not None
    comparable = not antithetic or len(draws) != 2
    if normal and comparable:
        found["energy_score"] = energy_score(*seen, antithetic).nanmean().item()
    if comparable:
        found["ensemble_energy_score"] = ensemble_energy_score(*seen, antithetic).nanmean().item()
    if normal:
        found["crps"] = crps(*seen).nanmean().item()
        found["coverage_90"] = covered(*seen, 0.9).nanmean().item()
    return found


def evaluate(
    draws: Tensor, targets: Tensor, likelihood: Likelihood, antithetic: bool = False
) -> dict[str, float]:
    """The scores that suit the likelihood: `classification`, `regression`, or ``nll`` alone.

    It is ``nll`` alone where nothing else is known: of a likelihood that has only a
    ``log_likelihood``, or one of its own that may leave out some targets. Arguments as for
    `regression`.
    """
    with torch.no_grad():
        if not likelihood.has_distribution:
            return {"nll": predictive_nll(draws, targets, likelihood)}
        if likelihood.hides_missing:
            warnings.warn(
                f"{type(likelihood).__name__} has a log_likelihood of its own, which may leave out "
                "some targets, so that nll is all that can be told. For the other scores define "
                "its observed(targets): the mask of those that count, or None for all.",
                stacklevel=2,
            )
            return {"nll": predictive_nll(draws, targets, likelihood)}
        if isinstance(likelihood, Categorical):
            return classification(draws, targets, likelihood)
        return regression(draws, targets, likelihood, antithetic)
