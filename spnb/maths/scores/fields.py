r"""Scores of fields on a grid whose cells differ in area.

Draws ``[S, N, ..., H, W]`` are the parameters of the likelihood, targets ``[N, ..., H, W]``; what
stands between the items and the grid, such as lead times, is scored place by place. With weights
:math:`a` of mean 1, such as the cosine of the latitude, the mean over the cells of the earth's
surface is the mean of :math:`a` times the values. Cells whose target is missing are left out, with
their weight.
"""

from __future__ import annotations

from torch import Tensor

from spnb.maths.energy import independent_pairs
from spnb.maths.likelihoods import Likelihood
from spnb.maths.scores.targets import fitted, mean_observed

GRID = (-2, -1)


def weighted_rmse(draws: Tensor, targets: Tensor, likelihood: Likelihood, area: Tensor) -> Tensor:
    """Root mean squared error of the model average, in the unit of the targets.

    Args:
        draws: parameters of the likelihood ``[S, N, ...]``.
        targets: ``[N, ..., H, W]``.
        likelihood: a likelihood with a mean.
        area: weights of mean 1, ``[H, 1]`` or ``[H, W]``.

    Returns:
        ``[...]``, over all items and cells.

    Raises:
        ValueError: the weights do not have the mean 1.
    """
    targets, observed = fitted(draws, targets, likelihood)
    errors = (likelihood.mean(draws).mean(0) - targets).square()
    return _mean(errors, observed, area).sqrt()


def spread_skill(
    draws: Tensor,
    targets: Tensor,
    likelihood: Likelihood,
    area: Tensor,
    noise: bool = True,
    antithetic: bool = False,
) -> Tensor:
    r"""Spread of the predictive over the error of its mean; 1 where it is calibrated.

    .. math:: \sqrt{\Big\langle \frac{S + 1}{S} s^2 + \frac{1}{S} \sum_s v_s \Big\rangle} \Big/
              \sqrt{\big\langle (\bar m - y)^2 \big\rangle}

    with the unbiased variance :math:`s^2` of the samples' means, their own variances :math:`v_s`,
    and means over items and cells. The mean of S samples is itself off by :math:`s^2 / S`, hence
    the factor (Fortin et al. 2014, *Why should ensemble spread match the RMSE of the ensemble
    mean?*, doi 10.1175/JHM-D-14-0008.1; there without the :math:`v_s`). Below 1: too sure.

    The mean of antithetic pairs scatters less than that of independent samples, so each pair is
    treated as a cluster. The variance of one sample, :math:`\tau^2`, is estimated by half the mean
    squared difference of samples of different pairs. With w, half the mean squared difference of
    partners, the covariance within a pair is :math:`\tau^2 - w`, and the mean of S samples with K
    pairs has the variance :math:`\tau^2 / S + 2 K (\tau^2 - w) / S^2`; the spread is the sum of
    both. All of these estimates are unbiased.

    Args:
        draws: parameters of the likelihood ``[S, N, ...]``.
        targets: ``[N, ..., H, W]``.
        likelihood: a likelihood with a mean, and with a variance if there is noise.
        area: weights of mean 1, ``[H, 1]`` or ``[H, W]``.
        noise: whether the spread holds the noise of the targets; without it that of the samples
            is left, zero if there is one.
        antithetic: whether samples 2k and 2k + 1 are partners of opposite noise, as those of a
            posterior with ``antithetic=True`` are; a last one may be alone.

    Returns:
        ``[...]``, one ratio for each lead time.

    Raises:
        ValueError: the weights do not have the mean 1, the likelihood has no mean or variance, or
            there is one antithetic pair, which does not tell the spread.
    """
    targets, observed = fitted(draws, targets, likelihood)
    means = likelihood.mean(draws)
    size = len(means)
    if antithetic and size > 1:
        variance = _spread_of_pairs(means)
    else:
        variance = (size + 1) / size * means.var(0, correction=min(1, size - 1))
    if noise:
        variance = variance + likelihood.variance(draws).mean(0)
    errors = (means.mean(0) - targets).square()
    return _mean(variance, observed, area).sqrt() / _mean(errors, observed, area).sqrt()


def _spread_of_pairs(means: Tensor) -> Tensor:
    """Variance of a sample, plus that of the mean of all, from antithetic pairs ``[S, ...]``."""
    size, pairs = len(means), len(means) // 2
    number = len(independent_pairs(size, antithetic=True)[0])
    partners = (means[:-1:2] - means[1::2]).square().sum(0)
    of_all = size * (means - means.mean(0)).square().sum(0)  # squared differences of all pairs
    variance = (of_all - partners) / number / 2
    covariance = variance - partners / pairs / 2
    return variance + variance / size + 2 * pairs * covariance / size**2


def anomaly_correlation(
    draws: Tensor, targets: Tensor, likelihood: Likelihood, area: Tensor, climatology: Tensor
) -> Tensor:
    r"""Correlation of forecast and observed departures from the climatology, -1 to 1.

    .. math:: \frac{\sum a f o}{\sqrt{\sum a f^2 \sum a o^2}}, \qquad
              f = \bar m - c, \quad o = y - c

    with sums over the cells of one field, then the mean over the items, as in WeatherBench 2
    (Rasp et al. 2024, arXiv 2308.15560). The departures are not centred again.

    Args:
        draws: parameters of the likelihood ``[S, N, ...]``.
        targets: ``[N, ..., H, W]``.
        likelihood: a likelihood with a mean.
        area: weights of mean 1, ``[H, 1]`` or ``[H, W]``.
        climatology: what is usual at the time, broadcast to the targets.

    Returns:
        ``[...]``, one correlation for each lead time.

    Raises:
        ValueError: the weights do not have the mean 1.
    """
    targets, observed = fitted(draws, targets, likelihood)
    forecast = likelihood.mean(draws).mean(0) - climatology
    truth = targets - climatology

    def over_grid(values: Tensor) -> Tensor:
        there = values if observed is None else values.where(observed, 0)
        return (_checked(area) * there).sum(GRID)

    sizes = over_grid(forecast.square()) * over_grid(truth.square())
    found = over_grid(forecast * truth) / sizes.sqrt()
    return mean_observed(found, None if observed is None else observed.flatten(-2).any(-1), 0)


def _mean(values: Tensor, observed: Tensor | None, area: Tensor) -> Tensor:
    """Mean over items and the cells that were observed, ``[N, ..., H, W] -> [...]``."""
    weights, over = _checked(area), (0, *GRID)
    if observed is None:
        return (weights * values).mean(over)
    return (weights * values.where(observed, 0)).sum(over) / (weights * observed).sum(over)


def _checked(area: Tensor) -> Tensor:
    mean = area.mean().item()
    if not abs(mean - 1) < 1e-5:
        raise ValueError(
            f"The area weights have mean {mean:g}: divide them by it, so that a weighted error "
            "keeps its unit."
        )
    return area
