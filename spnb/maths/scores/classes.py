"""Scores of class probabilities, and how far they may be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spnb.maths.likelihoods import Likelihood
from spnb.maths.scores.density import predictive_nll

CALIBRATION_BINS = 15


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


@dataclass(frozen=True)
class Reliability:
    """The points of a reliability diagram, one a bin that holds anything.

    Attributes:
        confidence: mean probability of the class that was named, ``[K]``.
        accuracy: share of the items in which it was right, ``[K]``.
        count: number of items, ``[K]``.
    """

    confidence: Tensor
    accuracy: Tensor
    count: Tensor


def reliability(
    draws: Tensor, targets: Tensor, likelihood: Likelihood, bins: int = CALIBRATION_BINS
) -> Reliability:
    """How often the model is right, by how sure it is (Guo et al., arXiv 1706.04599).

    The mean distance of accuracy and confidence, weighted by the counts, is the expected
    calibration error of `classification`.

    Args:
        draws: logits ``[S, N, C]``.
        targets: classes ``[N]``.
        likelihood: the categorical likelihood.
        bins: equal parts of the confidences from 0 to 1; empty ones are left out.

    Raises:
        ValueError: ``bins`` is not positive.
    """
    if bins < 1:
        raise ValueError(f"bins={bins} must be at least 1.")
    confidence, named = likelihood.mean(draws).mean(0).double().max(-1)
    # A bin holds its lower edge but not its upper one, as in torchmetrics.
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=draws.device)
    number = torch.bucketize(confidence, edges[1:-1], right=True)
    count = number.bincount(minlength=bins)
    filled = count > 0

    def mean(values: Tensor) -> Tensor:
        return (number.bincount(values.double(), bins) / count)[filled]

    return Reliability(mean(confidence), mean(named == targets), count[filled])
