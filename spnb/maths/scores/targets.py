"""Targets as a likelihood takes them, and means over those that were observed."""

from __future__ import annotations

import torch
from torch import Tensor

from spnb.maths.likelihoods import Likelihood


def fitted(draws: Tensor, targets: Tensor, likelihood: Likelihood) -> tuple[Tensor, Tensor | None]:
    """Targets in the type and shape of the likelihood, and which of them count (None: all).

    Args:
        draws: parameters of the likelihood ``[S, N, ...]``.
        targets: ``[N, ...]``.
        likelihood: the model's likelihood.

    Raises:
        NotImplementedError: the likelihood does not tell of each target what is needed.
        ValueError: the targets do not fit the draws.
    """
    likelihood.require_distribution("This score")
    targets = likelihood.targets(targets, draws[:1])
    return targets, likelihood.observed(targets)


def blanked(values: Tensor, observed: Tensor | None) -> Tensor:
    """Values of the targets ``[..., N, ...]``, nan where the target is missing."""
    return values if observed is None else values.where(observed, torch.nan)


def mean_observed(values: Tensor, observed: Tensor | None, dim: int | None = None) -> Tensor:
    """Mean over the targets that were observed; nan where there are none.

    Args:
        values: of the targets, of whatever value where these are missing.
        observed: which count; None: all.
        dim: over which dimension; None: all of them.
    """
    dims = tuple(range(values.dim())) if dim is None else dim
    return values.mean(dims) if observed is None else blanked(values, observed).nanmean(dims)
