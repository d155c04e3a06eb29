r"""Scores of fields on a grid whose cells differ in area.

Draws ``[S, N, ..., H, W]`` are the parameters of the likelihood, targets ``[N, ..., H, W]``; what
stands between the items and the grid, such as lead times, is scored place by place. With weights
:math:`a` of mean 1, such as the cosine of the latitude, the mean over the cells of the earth's
surface is the mean of :math:`a` times the values.
"""

from __future__ import annotations

from torch import Tensor

from spnb.maths.likelihoods import Likelihood

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
    mean = likelihood.mean(draws).mean(0)
    return _mean((mean - targets).square(), area).sqrt()


def spread_skill(
    draws: Tensor, targets: Tensor, likelihood: Likelihood, area: Tensor, noise: bool = True
) -> Tensor:
    r"""Spread of the predictive over the error of its mean; 1 where it is calibrated.

    .. math:: \sqrt{\Big\langle \frac{S + 1}{S} s^2 + \frac{1}{S} \sum_s v_s \Big\rangle} \Big/
              \sqrt{\big\langle (\bar m - y)^2 \big\rangle}

    with the unbiased variance :math:`s^2` of the samples' means, their own variances :math:`v_s`,
    and means over items and cells. The mean of S samples is itself off by :math:`s^2 / S`, hence
    the factor (Fortin et al. 2014, *Why should ensemble spread match the RMSE of the ensemble
    mean?*, doi 10.1175/JHM-D-14-0008.1; there without the :math:`v_s`). Below 1: too sure.

    Args:
        draws: parameters of the likelihood ``[S, N, ...]``.
        targets: ``[N, ..., H, W]``.
        likelihood: a likelihood with a mean, and with a variance if there is noise.
        area: weights of mean 1, ``[H, 1]`` or ``[H, W]``.
        noise: whether the spread holds the noise of the targets; without it that of the samples
            is left, zero if there is one.

    Returns:
        ``[...]``, one ratio for each lead time.

    Raises:
        ValueError: the weights do not have the mean 1.
    """
    means = likelihood.mean(draws)
    size = len(means)
    variance = (size + 1) / size * means.var(0, correction=min(1, size - 1))
    if noise:
        variance = variance + likelihood(draws).variance.mean(0)
    return _mean(variance, area).sqrt() / weighted_rmse(draws, targets, likelihood, area)


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
    forecast = likelihood.mean(draws).mean(0) - climatology
    observed = targets - climatology

    def over_grid(values: Tensor) -> Tensor:
        return (_checked(area) * values).sum(GRID)

    sizes = over_grid(forecast.square()) * over_grid(observed.square())
    return (over_grid(forecast * observed) / sizes.sqrt()).mean(0)


def _mean(values: Tensor, area: Tensor) -> Tensor:
    """Mean over items and cells, ``[N, ..., H, W] -> [...]``."""
    return (_checked(area) * values).mean((0, *GRID))


def _checked(area: Tensor) -> Tensor:
    mean = area.mean().item()
    if not abs(mean - 1) < 1e-5:
        raise ValueError(
            f"The area weights have mean {mean:g}: divide them by it, so that a weighted error "
            "keeps its unit."
        )
    return area
