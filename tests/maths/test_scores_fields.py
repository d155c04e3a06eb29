"""Scores of fields: against scikit-learn's weights, calibrated ensembles, and plain cosines."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_squared_error
from torch import Tensor

from spnb.maths import scores
from spnb.maths.likelihoods import HeteroscedasticNormal, Normal

HEIGHT, WIDTH, LEADS = 8, 6, 2
STACKED = HeteroscedasticNormal(dim=-3)


def area() -> Tensor:
    """Rows from 75 to 15 degrees north: their cells differ by a factor of nearly four."""
    weights = torch.linspace(75, 15, HEIGHT, dtype=torch.float64).deg2rad().cos()
    return (weights / weights.mean()).unsqueeze(1)


def ensemble(samples: int, items: int, noise: float) -> tuple[Tensor, Tensor]:
    """Samples' fields ``[S, N, 2 L, H, W]`` and targets that are one more such sample, with noise.

    The second lead is twice as uncertain, and its errors grow towards the pole.
    """
    generator = torch.Generator().manual_seed(6)
    shape = (samples + 1, items, LEADS, HEIGHT, WIDTH)
    means = torch.randn(shape, generator=generator, dtype=torch.float64)
    means *= torch.tensor([1.0, 2.0]).view(LEADS, 1, 1) / area()
    means += torch.randn(shape[1:], generator=generator, dtype=torch.float64)  # the weather
    strange = torch.randn(shape[1:], generator=generator, dtype=torch.float64)
    logs = torch.full_like(means, math.log(noise))
    return torch.cat([means, logs], 2)[1:], means[0] + noise * strange


def test_the_error_is_weighted_by_area() -> None:
    draws, targets = ensemble(4, 30, 0.5)
    found = scores.weighted_rmse(draws, targets, STACKED, area())
    mean = draws[:, :, :LEADS].mean(0)
    for lead in range(LEADS):
        rows = [v[:, lead].movedim(1, 0).reshape(HEIGHT, -1).T for v in (targets, mean)]
        squares = mean_squared_error(*rows, multioutput=area()[:, 0])
        assert found[lead].item() == pytest.approx(math.sqrt(squares), rel=1e-12)
        unweighted = (mean - targets)[:, lead].square().mean().sqrt().item()
        assert abs(unweighted / found[lead].item() - 1) > 0.1


@pytest.mark.parametrize("samples", [1, 2, 5, 20])
@pytest.mark.parametrize("noise", [0.1, 2.0])
def test_a_calibrated_ensemble_of_any_size_has_the_ratio_one(samples: int, noise: float) -> None:
    """A tolerance of 3 %, which the ratio without its correction misses: 18 % at S = 2."""
    draws, targets = ensemble(samples, 400, noise)
    ratio = scores.spread_skill(draws, targets, STACKED, area())
    assert ratio.shape == (LEADS,)
    if samples > 1:
        torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0.03, atol=0)
    else:  # one sample knows of the noise alone
        error = scores.weighted_rmse(draws, targets, STACKED, area())
        torch.testing.assert_close(ratio, noise / error)


def test_the_spread_between_samples_is_fortins() -> None:
    draws, targets = ensemble(3, 50, 0.5)
    ratio = scores.spread_skill(draws, targets, STACKED, area(), noise=False)
    members = draws[:, :, :LEADS].numpy()
    weights = np.broadcast_to(area().numpy(), (HEIGHT, WIDTH))
    for lead in range(LEADS):
        variance = members[:, :, lead].var(0, ddof=1)
        errors = (members[:, :, lead].mean(0) - targets[:, lead].numpy()) ** 2
        spread, skill = (np.average(v.mean(0), weights=weights) for v in (variance, errors))
        expected = math.sqrt(4 / 3) * math.sqrt(spread / skill)
        assert ratio[lead].item() == pytest.approx(expected, rel=1e-12)
    alone = scores.spread_skill(draws[:1], targets, STACKED, area(), noise=False)
    assert alone.tolist() == [0.0, 0.0]


def test_anomaly_correlation_is_a_correlation_of_departures() -> None:
    draws, targets = ensemble(4, 10, 0.5)
    climatology = torch.full((LEADS, HEIGHT, WIDTH), 0.3, dtype=torch.float64)
    equal = torch.ones(HEIGHT, 1, dtype=torch.float64)

    def found(weights: Tensor, targets: Tensor) -> Tensor:
        return scores.anomaly_correlation(draws, targets, STACKED, weights, climatology)

    mean = draws[:, :, :LEADS].mean(0)
    cosines = torch.nn.functional.cosine_similarity(
        (mean - climatology).flatten(2), (targets - climatology).flatten(2), dim=-1
    )
    torch.testing.assert_close(found(equal, targets), cosines.mean(0))
    assert not torch.allclose(found(area(), targets), cosines.mean(0), rtol=1e-3)
    # Weights as repeated cells: twice the area is the same as the cell twice.
    rows = torch.tensor([2, 1, 1, 1, 1, 1, 1, 0])
    once = [v.repeat_interleave(rows, -2) for v in (mean - climatology, targets - climatology)]
    twice = torch.nn.functional.cosine_similarity(*(v.flatten(2) for v in once), dim=-1)
    torch.testing.assert_close(found(rows.double().unsqueeze(1), targets), twice.mean(0))
    assert found(area(), mean).tolist() == pytest.approx([1, 1])
    assert found(area(), 2 * climatology - mean).tolist() == pytest.approx([-1, -1])


def test_any_likelihood_with_a_mean_will_do() -> None:
    draws, targets = ensemble(3, 5, 0.5)
    means = draws[:, :, 0]
    found = scores.spread_skill(means, targets[:, 0], Normal(0.5), area())
    expected = scores.spread_skill(draws, targets, STACKED, area())[0]
    torch.testing.assert_close(found, expected)


def test_areas_in_another_unit_are_refused() -> None:
    draws, targets = ensemble(2, 2, 0.5)
    with pytest.raises(ValueError, match="mean 2"):
        scores.weighted_rmse(draws, targets, STACKED, 2 * area())
