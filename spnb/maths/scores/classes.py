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
        ``accuracy``, ``nll`` (nats), ``brier`` (0 to 2), ``ece`` (15 bins).
    """
    probabilities = likelihood.mean(draws).mean(0)
    errors = (probabilities - likelihood.encode(targets, draws)).square()
    return {
        "accuracy": (probabilities.argmax(-1) == targets).double().mean().item(),
        "nll": predictive_nll(draws, targets, likelihood),
        "brier": errors.sum(-1).mean().item(),
        "ece": _calibration_error(probabilities, targets),
    }


def _calibration_error(probabilities: Tensor, targets: Tensor) -> float:
    """Expected calibration error (Guo et al., arXiv 1706.04599), as torchmetrics counts it.

    Args:
        probabilities: of the classes, ``[N, C]``.
        targets: classes ``[N]``.
    """
    confidence, named = probabilities.max(-1)
    edges = torch.linspace(
        0, 1, CALIBRATION_BINS + 1, dtype=confidence.dtype, device=confidence.device
    )
    # A bin holds its lower edge but not its upper one, and exactly 1 is a bin of its own.
    number = torch.bucketize(confidence, edges[1:], right=True)
    surplus = (named == targets).double() - confidence.double()
    return number.bincount(surplus).abs().sum().item() / len(targets)


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
    calibration error of `classification`, which has one more bin for confidences of exactly 1.

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
    # A bin holds its lower edge but not its upper one; the last holds both.
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=draws.device)
    number = torch.bucketize(confidence, edges[1:-1], right=True)
    count = number.bincount(minlength=bins)
    filled = count > 0

    def mean(values: Tensor) -> Tensor:
        return (number.bincount(values.double(), bins) / count)[filled]

    return Reliability(mean(confidence), mean(named == targets), count[filled])
