r"""Scores of forecasts of real targets: of the mixture of S distributions, target by target.

Draws ``[S, N, ...]`` are the parameters of the likelihood. The predictive distribution of one
target is the mixture

.. math:: F(y) = \frac{1}{S} \sum_s F_s(y)

of the samples' distributions, so it holds the spread within the samples (aleatoric) and the spread
between them (epistemic). All is computed in double precision. A score of a target that is missing
is nan.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin as Distribution
from torch import Tensor

from spnb.maths.likelihoods import Likelihood, unwrapped
from spnb.maths.scores.targets import blanked, fitted

HALVINGS = 40
"""Of the interval that holds a quantile: what is left is 1e-12 of its width."""
PAIRS = 1_000_000
"""Pairs of samples that are compared at once: about 8 MB a term."""


def crps(draws: Tensor, targets: Tensor, likelihood: Likelihood) -> Tensor:
    r"""Continuous ranked probability score of each target, in its unit: smaller is better.

    .. math:: \int (F(z) - 1[z \ge y])^2 dz = \frac{1}{S} \sum_s A(y - m_s, v_s)
              - \frac{1}{2 S^2} \sum_{s, s'} A(m_s - m_{s'}, v_s + v_{s'}),

    .. math:: A(m, v) = m (2 \Phi(m / \sqrt v) - 1) + 2 \sqrt v \varphi(m / \sqrt v)

    with mean and variance :math:`m_s, v_s` of sample s (Grimit et al. 2006, doi
    10.1256/qj.05.235; computed by scoringrules). It is exact for the mixture of these S: nothing is
    drawn from it, and the samples need not be independent, so that antithetic pairs need no
    correction. (`energy_score` estimates what it tends to as S grows.) Its time grows with the
    square of S. For a point forecast it would be the absolute error.

    Args:
        draws: parameters of the likelihood ``[S, N, ...]``.
        targets: ``[N, ...]``.
        likelihood: a likelihood with normal noise.

    Returns:
        One score a target, the shape of the targets, float64; nan where it is missing.

    Raises:
        ValueError: the likelihood has no normal noise, or the targets do not fit.
    """
    # Slow to import, so only where it is used.
    from scoringrules import crps_mixnorm

    parts = normal_parts(draws, likelihood)
    if parts is None:
        raise ValueError(
            f"The CRPS is known for mixtures of normals; the likelihood is a "
            f"{type(likelihood(draws)).__name__}. Use likelihoods.Normal or "
            "HeteroscedasticNormal, or the pinball loss."
        )
    targets, observed = fitted(draws, targets, likelihood)
    means, scales = (part.detach().flatten(1).T.cpu() for part in parts)  # [N ..., S]
    truth = targets.detach().double().flatten().cpu()
    rows = max(1, PAIRS // len(draws) ** 2)
    portions = zip(truth.split(rows), means.split(rows), scales.split(rows), strict=True)
    # In numpy: with torch the constants of scoringrules have single precision.
    found = [
        torch.from_numpy(crps_mixnorm(*(part.numpy() for part in portion), backend="numpy"))
        for portion in portions
    ]
    return blanked(torch.cat(found).view(targets.shape).to(targets.device), observed)


def pit(draws: Tensor, targets: Tensor, likelihood: Likelihood) -> Tensor:
    """Share of the predictive below each target, ``[N, ...]`` float64; nan where it is missing.

    The probability integral transform: uniform from 0 to 1 where forecasts are calibrated
    (Gneiting et al., 2007, *Probabilistic forecasts, calibration and sharpness*).

    Args:
        draws: parameters of the likelihood ``[S, N, ...]``.
        targets: ``[N, ...]``.
        likelihood: a likelihood whose distribution has a ``cdf``.

    Raises:
        ValueError: it has none, or the targets do not fit.
    """
    targets, observed = fitted(draws, targets, likelihood)
    _, filled, _ = likelihood.match(draws[:1], targets)
    below = _function("cdf", components(draws, likelihood), filled.double())
    return blanked(below.mean(0), observed)


def quantiles(draws: Tensor, likelihood: Likelihood, levels: Sequence[float]) -> Tensor:
    """Quantiles of the predictive, ``[Q, N, ...]`` float64, in the unit of the targets.

    By bisection: a quantile of a mixture lies between the smallest and the largest of its parts'.

    Args:
        draws: parameters of the likelihood ``[S, N, ...]``.
        likelihood: a likelihood whose distribution has a ``cdf`` and its inverse, ``icdf``.
        levels: Q probabilities between 0 and 1.

    Raises:
        ValueError: a level is not between 0 and 1, or the distribution lacks one of the two.
    """
    for level in levels:
        _share(level)
    parts = components(draws, likelihood)
    found = []
    for level in levels:
        ends = _function("icdf", parts, draws.new_tensor(level, dtype=torch.float64))
        low, high = ends.min(0)[0], ends.max(0)[0]
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            below = _function("cdf", parts, middle).mean(0) < level
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        found.append((low + high) / 2)
    return torch.stack(found)


def coverage(draws: Tensor, targets: Tensor, likelihood: Likelihood, level: float = 0.9) -> Tensor:
    """Share of the items whose target lies in the central interval, by place within an item.

    Of the items that have a target there; nan where none has.

    Args:
        draws: parameters of the likelihood ``[S, N, ...]``.
        targets: ``[N, ...]``.
        likelihood: a likelihood whose distribution has a ``cdf``.
        level: probability of the interval between the quantiles ``(1 - level) / 2`` and
            ``(1 + level) / 2``; what the share should be.

    Returns:
        ``[...]``, the shape of one item, float64; its mean is the share of all targets, unless
        some are missing.

    Raises:
        ValueError: the level is not between 0 and 1, the distribution has no ``cdf``, or the
            targets do not fit.
    """
    return covered(draws, targets, likelihood, level).nanmean(0)


def covered(draws: Tensor, targets: Tensor, likelihood: Likelihood, level: float) -> Tensor:
    """1 where a target lies in the central interval, 0 where not, nan where it is missing.

    Arguments as for `coverage`.
    """
    # Within an interval of equal tails is where the distance from the middle is small enough.
    outside = 2 * (pit(draws, targets, likelihood) - 0.5).abs()
    return blanked((outside <= _share(level)).double(), ~outside.isnan())


def sharpness(draws: Tensor, likelihood: Likelihood, level: float = 0.9) -> Tensor:
    """Mean width of the central interval, in the unit of the targets, by place within an item.

    Of two forecasts with the right `coverage` the narrower one says more.

    Args:
        draws: parameters of the likelihood ``[S, N, ...]``.
        likelihood: as for `quantiles`.
        level: as for `coverage`.

    Returns:
        ``[...]``, the shape of one item, float64.

    Raises:
        ValueError: the level is not between 0 and 1, or as for `quantiles`.
    """
    tail = (1 - _share(level)) / 2
    low, high = quantiles(draws, likelihood, (tail, 1 - tail))
    return (high - low).mean(0)


def pinball(
    draws: Tensor, targets: Tensor, likelihood: Likelihood, levels: Sequence[float]
) -> Tensor:
    r"""Pinball loss of the predictive's quantiles, ``[Q, N, ...]``, in the unit of the targets.

    .. math:: \ell_\tau = (\tau - 1[y < q_\tau]) (y - q_\tau)

    Twice its integral over all levels is the CRPS (Gneiting & Ranjan 2011). It is nan where the
    target is missing.

    Args:
        draws: parameters of the likelihood ``[S, N, ...]``.
        targets: ``[N, ...]``.
        likelihood: as for `quantiles`.
        levels: Q probabilities between 0 and 1.

    Raises:
        ValueError: the targets do not fit, or as for `quantiles`.
    """
    targets, observed = fitted(draws, targets, likelihood)
    errors = targets.double() - quantiles(draws, likelihood, levels)
    shares = errors.new_tensor(levels).view(-1, *[1] * (errors.dim() - 1))
    return blanked(torch.maximum(shares * errors, (shares - 1) * errors), observed)


def components(draws: Tensor, likelihood: Likelihood) -> Distribution:
    """The samples' distributions, with one batch element a target, ``[S, N, ...]``.

    Args:
        draws: parameters of the likelihood ``[S, N, ...]``.
        likelihood: the model's likelihood.
    """
    return unwrapped(likelihood(draws.double()))


def normal_parts(draws: Tensor, likelihood: Likelihood) -> tuple[Tensor, Tensor] | None:
    """Means and standard deviations ``[S, N, ...]`` of normal noise; None if it is another."""
    distribution = components(draws, likelihood)
    if isinstance(distribution, torch.distributions.Normal):
        return distribution.loc, distribution.scale
    return None


def _function(name: str, parts: Distribution, at: Tensor) -> Tensor:
    try:
        value: Tensor = getattr(parts, name)(at)
        return value
    except NotImplementedError as error:
        raise ValueError(
            f"torch knows no {name} of a {type(parts).__name__} distribution, which is needed here:"
            " take a likelihood with normal noise, or a score that needs none, such as "
            "spnb.scores.predictive_nll."
        ) from error


def _share(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level={level} must lie between 0 and 1, both excluded.")
    return level
