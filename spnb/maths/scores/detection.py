"""How unsure a model is, and how well that tells inputs of another kind from those it knows."""

from __future__ import annotations

import torch
from torch import Tensor

from spnb.maths.likelihoods import Categorical, Likelihood


def predictive_entropy(draws: Tensor, likelihood: Likelihood) -> Tensor:
    r"""Entropy of the model average in nats, ``[N]``: uncertainty of both kinds.

    .. math:: H\Big[\frac{1}{S} \sum_s p(y \mid x, w_s)\Big]

    Args:
        draws: logits ``[S, N, C]``, or ``[S, N, ..., C]`` where an item has several labels; then
            each has its own, ``[N, ...]``.
        likelihood: the categorical likelihood.

    Raises:
        ValueError: the likelihood has no classes.
    """
    return torch.special.entr(_probabilities(draws, likelihood).mean(0)).sum(-1)


def mutual_information(draws: Tensor, likelihood: Likelihood) -> Tensor:
    r"""What the samples disagree on, in nats, ``[N]``: epistemic uncertainty alone.

    .. math:: H\Big[\frac{1}{S} \sum_s p_s\Big] - \frac{1}{S} \sum_s H[p_s]

    The information that the target holds on the weights (Houlsby et al., arXiv 1112.5745), for
    the mixture of these S samples, independent or not. Zero where there is but one.

    Args:
        draws: logits ``[S, N, C]``, or ``[S, N, ..., C]`` where an item has several labels; then
            each has its own, ``[N, ...]``.
        likelihood: the categorical likelihood.

    Raises:
        ValueError: the likelihood has no classes.
    """
    within = torch.special.entr(_probabilities(draws, likelihood)).sum(-1).mean(0)
    # Never negative but for rounding, by Jensen's inequality.
    return (predictive_entropy(draws, likelihood) - within).clamp_min(0)


def auroc(known: Tensor, unknown: Tensor) -> float:
    """Probability that an item of the unknown kind scores higher than a known one.

    The area under the receiver operating characteristic: 1 is perfect, 0.5 is chance. A tie counts
    half.

    Args:
        known: scores of items like those of the training, such as entropies, ``[N]``.
        unknown: scores of items of another kind, ``[M]``.

    Raises:
        ValueError: one of them is empty, or holds a nan.
    """
    if not len(known) or not len(unknown):
        raise ValueError(
            f"There are {len(known)} known and {len(unknown)} unknown scores; give some of both."
        )
    values = torch.cat([known, unknown])
    if values.isnan().any():
        raise ValueError(f"{int(values.isnan().sum())} of the {len(values)} scores are nan.")
    known, unknown = values.split([len(known), len(unknown)])  # of one type by now
    known = known.sort().values
    below, up_to = (torch.searchsorted(known, unknown, right=right) for right in (False, True))
    return (below + up_to).double().mean().item() / (2 * len(known))


def _probabilities(draws: Tensor, likelihood: Likelihood) -> Tensor:
    """Class probabilities ``[S, N, C]``, in double precision: small differences are wanted."""
    if not isinstance(likelihood, Categorical):
        raise ValueError(
            f"The entropy of classes needs a categorical likelihood, not a "
            f"{type(likelihood).__name__}; for real targets see spnb.scores.spread_skill."
        )
    return likelihood.mean(draws.double())
