"""Scores of class probabilities, and how far they may be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spnb.maths.likelihoods import Likelihood
from spnb.maths.scores.density import predictive_nll
from spnb.maths.scores.targets import fitted

CALIBRATION_BINS = 15


def classification(draws: Tensor, targets: Tensor, likelihood: Likelihood) -> dict[str, float]:
    """Accuracy, negative log-likelihood, Brier score and expected calibration error.

    Args:
        draws: logits ``[S, N, C]``, or ``[S, N, ..., C]`` where an item has several labels.
        targets: classes ``[N, ...]``.
        likelihood: the categorical likelihood.

    Returns:
        ``accuracy``, ``brier`` (0 to 2) and ``ece`` (15 bins) over all labels that are there, and
        ``nll`` (nats) of an item.
    """
    probabilities, labels = _labelled(draws, targets, likelihood)
    one_hot = nn.functional.one_hot(labels, probabilities.shape[-1])
    return {
        "accuracy": (probabilities.argmax(-1) == labels).double().mean().item(),
        "nll": predictive_nll(draws, targets, likelihood),
        "brier": (probabilities - one_hot).square().sum(-1).mean().item(),
        "ece": _calibration_error(probabilities, labels),
    }


def _labelled(draws: Tensor, targets: Tensor, likelihood: Likelihood) -> tuple[Tensor, Tensor]:
    """Probabilities ``[M, C]`` of the model average, and labels ``[M]``, where there is a label."""
    targets, observed = fitted(draws, targets, likelihood)
    probabilities = likelihood.mean(draws).mean(0)
    if observed is None:
        return probabilities.flatten(0, -2), targets.flatten()
    return probabilities[observed], targets[observed]


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
        accuracy: share of the labels for which it was right, ``[K]``.
        count: number of labels, ``[K]``.
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
        draws: logits ``[S, N, C]``, or ``[S, N, ..., C]`` where an item has several labels.
        targets: classes ``[N, ...]``; those that are missing are left out.
        likelihood: the categorical likelihood.
        bins: equal parts of the confidences from 0 to 1; empty ones are left out.

    Raises:
        ValueError: ``bins`` is not positive.
    """
    if bins < 1:
        raise ValueError(f"bins={bins} must be at least 1.")
    probabilities, targets = _labelled(draws, targets, likelihood)
    confidence, named = probabilities.double().max(-1)
    # A bin holds its lower edge but not its upper one; the last holds both.
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=draws.device)
    number = torch.bucketize(confidence, edges[1:-1], right=True)
    count = number.bincount(minlength=bins)
    filled = count > 0

    def mean(values: Tensor) -> Tensor:
        return (number.bincount(values.double(), bins) / count)[filled]

    return Reliability(mean(confidence), mean(named == targets), count[filled])
