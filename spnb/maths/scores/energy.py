"""Energy scores of the model average, with the noise of the likelihood and without."""

from __future__ import annotations

import torch
from torch import Tensor

from spnb.maths.likelihoods import Likelihood
from spnb.maths.objectives import EnergyScore, EnsembleEnergyScore, Objective
from spnb.maths.scores.targets import blanked, fitted

NUMBERS = 4_000_000
"""Distances and numbers of draws that are held at once: about 32 MB a term."""
SEED = 0
"""Of the targets that a score draws: the same draws have the same score."""


def energy_score(
    draws: Tensor, targets: Tensor, likelihood: Likelihood, antithetic: bool = False
) -> Tensor:
    """Fair energy score of the predictive distribution of each item (`spnb.EnergyScore`).

    Args:
        draws: parameters of the likelihood ``[S, N, ...]``. One sample is scored for its own
            predictive.
        targets: ``[N, ...]``.
        likelihood: a likelihood of classes or with normal noise. For several numbers an item with
            normal noise each sample draws one target, always by the same noise.
        antithetic: whether samples 2k and 2k + 1 are partners of opposite noise, as those of a
            posterior with ``antithetic=True`` are; they are never compared with each other.

    Returns:
        ``[N]`` in the unit of the targets, float64; nan where the whole item is missing.

    Raises:
        ValueError: the predictive is not known, the targets do not fit, or there is one antithetic
            pair alone.
    """
    return _scored(EnergyScore(), draws, targets, likelihood, antithetic)


def ensemble_energy_score(
    draws: Tensor, targets: Tensor, likelihood: Likelihood, antithetic: bool = False
) -> Tensor:
    """Fair energy score of the samples' means as an ensemble (`spnb.EnsembleEnergyScore`).

    Args:
        draws: parameters of the likelihood ``[S, N, ...]``. Of one sample it is the distance of
            its mean.
        targets: ``[N, ...]``.
        likelihood: a likelihood with a mean.
        antithetic: as for `energy_score`.

    Returns:
        ``[N]`` in the unit of the targets, float64; nan where the whole item is missing.

    Raises:
        ValueError: the likelihood has no mean, the targets do not fit, or there is one antithetic
            pair alone.
    """
    return _scored(EnsembleEnergyScore(), draws, targets, likelihood, antithetic)


def _scored(
    objective: Objective, draws: Tensor, targets: Tensor, likelihood: Likelihood, antithetic: bool
) -> Tensor:
    targets, observed = fitted(draws, targets, likelihood)
    if antithetic:
        objective = objective.for_pairs([len(draws)])
    generator = torch.Generator().manual_seed(SEED)

    def noise(like: Tensor, copies: int) -> Tensor:
        shape = (copies * len(like), *like.shape[1:])
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(like.device)

    objective = objective.at_step(noise)
    size = len(draws)
    rows = max(1, NUMBERS // (size * (size + draws.shape[2:].numel())))
    parts = zip(draws.split(rows, 1), targets.split(rows), strict=True)
    with torch.no_grad():
        found = [objective.losses(part.double(), truth, likelihood) for part, truth in parts]
    return blanked(
        torch.cat(found), None if observed is None else observed.reshape(len(targets), -1).any(1)
    )
