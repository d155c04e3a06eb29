"""Scores of forecasts: against quadrature, bisection by scipy, draws, and the normal's own CRPS."""

from __future__ import annotations

import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm
from torch import Tensor

from spnb.maths import scores
from spnb.maths.likelihoods import Categorical, HeteroscedasticNormal, Likelihood, Normal

NOISY = HeteroscedasticNormal()
ENERGIES = (scores.energy_score, scores.ensemble_energy_score)
LEVELS = (0.01, 0.05, 0.5, 0.9, 0.999)


def problem(samples: int = 4, items: int = 6, places: int = 3) -> tuple[Tensor, Tensor]:
    """Means and log-scales ``[S, N, 2 D]`` of samples that differ much, and targets ``[N, D]``."""
    generator = torch.Generator().manual_seed(3)
    means = 2 * torch.randn(samples, items, places, generator=generator, dtype=torch.float64)
    logs = torch.randn(samples, items, places, generator=generator, dtype=torch.float64) / 2
    targets = 2 * torch.randn(items, places, generator=generator, dtype=torch.float64)
    return torch.cat([means, logs], -1), targets


def parts(draws: Tensor, item: int, place: int) -> tuple[np.ndarray, np.ndarray]:
    """Means and scales ``[S]`` of one target."""
    half = draws.shape[-1] // 2
    one = draws[:, item]
    return one[:, place].numpy(), one[:, half + place].exp().numpy()


def cdf(z: float, means: np.ndarray, scales: np.ndarray) -> float:
    """The mixture's distribution function, by scipy."""
    return float(norm.cdf(z, means, scales).mean())


def crps_by_quadrature(y: float, means: np.ndarray, scales: np.ndarray) -> float:
    """Squared distance of the distribution function from a step at y, integrated by scipy."""
    low, high = min(y, *(means - 9 * scales)), max(y, *(means + 9 * scales))
    below = quad(lambda z: cdf(z, means, scales) ** 2, low, y, epsabs=1e-10, limit=200)
    above = quad(lambda z: (1 - cdf(z, means, scales)) ** 2, y, high, epsabs=1e-10, limit=200)
    return below[0] + above[0]


def quantile_by_scipy(level: float, means: np.ndarray, scales: np.ndarray) -> float:
    """Where the mixture's distribution function takes a value."""
    return brentq(lambda z: cdf(z, means, scales) - level, -60, 60, xtol=1e-12)


@pytest.mark.parametrize("samples", [1, 4])
def test_the_crps_is_its_integral(samples: int) -> None:
    draws, targets = problem(samples)
    found = scores.crps(draws, targets, NOISY)
    assert found.shape == targets.shape
    for item, place in ((0, 0), (3, 1), (5, 2)):
        exact = crps_by_quadrature(targets[item, place].item(), *parts(draws, item, place))
        assert found[item, place].item() == pytest.approx(exact, abs=1e-7)


def test_the_crps_of_equal_samples_is_that_of_one_normal() -> None:
    draws, targets = problem(samples=1)
    means, scales = draws[0].chunk(2, -1)
    z = (targets - means) / scales.exp()
    unit = torch.distributions.Normal(0.0, 1.0)
    density = unit.log_prob(z).exp()
    closed = scales.exp() * (z * (2 * unit.cdf(z) - 1) + 2 * density - 1 / math.sqrt(math.pi))
    for size in (1, 7):
        found = scores.crps(draws.expand(size, -1, -1), targets, NOISY)
        torch.testing.assert_close(found, closed, rtol=1e-12, atol=1e-12)


def test_the_crps_is_that_of_many_draws() -> None:
    """A tolerance of four standard errors, which the mean of the samples' own CRPS misses."""
    draws, targets = problem(items=1, places=1)
    generator = torch.Generator().manual_seed(4)
    size = 200_000
    means, logs = draws[:, 0].T
    drawn = []
    for _ in range(2):
        which = torch.randint(len(draws), (size,), generator=generator)
        noise = torch.randn(size, generator=generator, dtype=torch.float64)
        drawn.append(means[which] + logs.exp()[which] * noise)
    terms = (drawn[0] - targets).abs() - (drawn[0] - drawn[1]).abs().unsqueeze(0) / 2
    error = (terms.std() / math.sqrt(size)).item()
    found = scores.crps(draws, targets, NOISY).item()
    assert found == pytest.approx(terms.mean().item(), abs=4 * error)
    each = torch.stack([scores.crps(d[None], targets, NOISY) for d in draws]).mean().item()
    assert abs(each - found) > 20 * error


def test_the_crps_is_the_same_in_small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    draws, targets = problem()
    whole = scores.crps(draws, targets, NOISY)
    monkeypatch.setattr("spnb.maths.scores.forecasts.PAIRS", 5 * len(draws) ** 2)
    torch.testing.assert_close(scores.crps(draws, targets, NOISY), whole, rtol=0, atol=1e-14)


def test_single_precision_draws_are_scored_in_double() -> None:
    draws, targets = (t.float() for t in problem(samples=3))
    for found in (scores.crps(draws, targets, NOISY), scores.pit(draws, targets, NOISY)):
        assert found.dtype == torch.float64
    doubled = scores.crps(draws.double(), targets.double(), NOISY)
    torch.testing.assert_close(scores.crps(draws, targets, NOISY), doubled, rtol=1e-12, atol=0)


@pytest.mark.parametrize("samples", [1, 4])
def test_quantiles_invert_the_mixture(samples: int) -> None:
    draws, _ = problem(samples)
    found = scores.quantiles(draws, NOISY, LEVELS)
    assert found.shape == (5, 6, 3)
    for item, place in ((0, 0), (2, 2)):
        for level, value in zip(LEVELS, found[:, item, place].tolist(), strict=True):
            exact = quantile_by_scipy(level, *parts(draws, item, place))
            assert value == pytest.approx(exact, abs=1e-6)


def test_coverage_is_the_share_between_the_quantiles() -> None:
    draws, targets = problem(items=500)
    for level in (0.5, 0.9):
        low, high = scores.quantiles(draws, NOISY, ((1 - level) / 2, (1 + level) / 2))
        inside = ((low <= targets) & (targets <= high)).double().mean(0)
        assert torch.equal(scores.coverage(draws, targets, NOISY, level), inside)
        torch.testing.assert_close(scores.sharpness(draws, NOISY, level), (high - low).mean(0))


def test_targets_from_the_mixture_are_covered_as_often_as_promised() -> None:
    draws, _ = problem(items=20_000, places=1)
    which = torch.arange(20_000) % len(draws)
    means, logs = draws[which, torch.arange(20_000)].chunk(2, -1)
    generator = torch.Generator().manual_seed(5)
    targets = torch.normal(means, logs.exp(), generator=generator)
    for level in (0.5, 0.9):
        found = scores.coverage(draws, targets, NOISY, level).item()
        assert found == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / 20_000))
    shares = scores.pit(draws, targets, NOISY)
    assert shares.var().item() == pytest.approx(1 / 12, rel=0.03)  # uniform
    # The spread within the samples alone promises too much: the samples' means differ as well.
    narrow = torch.cat([means, logs], -1).unsqueeze(0)
    narrow[..., 0] = draws[..., 0].mean(0)
    assert scores.coverage(narrow, targets, NOISY).item() < 0.8


def test_the_pinball_loss_integrates_to_half_the_crps() -> None:
    draws, targets = problem()
    middles = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    losses = scores.pinball(draws, targets, NOISY, middles.tolist())
    assert losses.shape == (1000, 6, 3)
    expected = scores.crps(draws, targets, NOISY)
    torch.testing.assert_close(2 * losses.mean(0), expected, rtol=1e-3, atol=1e-3)


def test_any_distribution_with_a_cdf_has_quantiles() -> None:
    likelihood = Likelihood(lambda p: dist.Laplace(p, 2.0).to_event(1))
    draws = torch.tensor([[[0.0, 1.0]], [[0.0, 5.0]]])
    found = scores.quantiles(draws, likelihood, (0.5, 0.9))
    exact = dist.Laplace(0.0, 2.0).icdf(torch.tensor(0.9)).item()
    assert found[1, 0, 0].item() == pytest.approx(exact, abs=1e-6)
    assert found[0, 0, 1].item() == pytest.approx(3.0, abs=1e-6)


def test_the_table_of_real_targets_holds_what_the_noise_allows() -> None:
    draws, targets = problem()
    found = scores.evaluate(draws, targets, NOISY)
    energies = {"energy_score", "ensemble_energy_score"}
    assert set(found) == {"rmse", "nll", "crps", "coverage_90"} | energies
    assert found["crps"] == scores.crps(draws, targets, NOISY).mean().item()
    assert found["coverage_90"] == scores.coverage(draws, targets, NOISY).mean().item()
    mean = draws.chunk(2, -1)[0].mean(0)
    assert found["rmse"] == pytest.approx((mean - targets).square().mean().sqrt().item())
    laplace = Likelihood(lambda p: dist.Laplace(p, 1.0))
    known = Normal(0.5)
    means = draws[..., :3]
    found = scores.evaluate(means, targets, laplace)
    assert set(found) == {"rmse", "nll", "ensemble_energy_score"}
    assert "crps" in scores.evaluate(means, targets, known)


def test_one_target_an_item_without_a_dimension_of_its_own() -> None:
    draws, targets = problem()
    flat = scores.evaluate(draws[..., 0], targets[:, 0], Normal(0.5))
    column = scores.evaluate(draws[..., :1], targets[:, :1], Normal(0.5))
    assert flat == pytest.approx(column, rel=1e-12)


def test_what_has_no_such_score_is_refused() -> None:
    draws, targets = problem()
    with pytest.raises(ValueError, match="the likelihood is a Categorical"):
        scores.crps(draws, targets, Categorical())
    poisson = Likelihood(lambda p: dist.Poisson(p.exp()))
    counts = targets.abs().round()
    for run in (
        lambda: scores.quantiles(draws[..., :3], poisson, (0.5,)),
        lambda: scores.pit(draws[..., :3], counts, poisson),
        lambda: scores.coverage(draws[..., :3], counts, poisson),
        lambda: scores.sharpness(draws[..., :3], poisson),
        lambda: scores.pinball(draws[..., :3], counts, poisson, (0.5,)),
    ):
        with pytest.raises(ValueError, match="torch knows no i?cdf of a Poisson distribution"):
            run()
    with pytest.raises(ValueError, match="knows the predictive of classes and of normal noise"):
        scores.energy_score(draws[..., :3], counts, poisson)
    for level in (0.0, 1.0, 90.0):
        with pytest.raises(ValueError, match=f"level={level:g}"):
            scores.quantiles(draws, NOISY, (level,))
        with pytest.raises(ValueError, match="between 0 and 1"):
            scores.coverage(draws, targets, NOISY, level)


def test_targets_that_would_broadcast_are_brought_to_the_draws_or_refused() -> None:
    draws, targets = problem(places=1)
    expected = scores.evaluate(draws, targets, NOISY)
    assert scores.evaluate(draws, targets.squeeze(-1), NOISY) == expected
    square, column = torch.randn(4, 6, 6).double(), torch.randn(6).double()
    for score in (scores.evaluate, scores.crps, scores.pit, scores.energy_score):
        with pytest.raises(ValueError, match=r"y has shape \(6,\) .* ask for \(6, 6\)"):
            score(square, column, Normal(1.0))


@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("places", [1, 3])
def test_energy_scores_do_not_depend_on_the_portions(
    samples: int, places: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws, targets = problem(samples, items=50, places=places)
    whole = [score(draws, targets, NOISY) for score in ENERGIES]
    again = [score(draws, targets, NOISY) for score in ENERGIES]
    monkeypatch.setattr("spnb.maths.scores.energy.NUMBERS", 7 * samples * (samples + 2 * places))
    small = [score(draws, targets, NOISY) for score in ENERGIES]
    for found, same, portions in zip(whole, again, small, strict=True):
        assert found.shape == (50,) and found.dtype == torch.float64
        assert torch.equal(found, same)  # also where targets are drawn
        if places == 1 or found is whole[1]:
            torch.testing.assert_close(portions, found)


def test_the_energy_score_is_the_crps_of_more_and_more_samples() -> None:
    """The mixture of S is judged as it is by the CRPS, which a few samples make too large."""
    generator = torch.Generator().manual_seed(7)
    centre = torch.randn(4000, 1, generator=generator, dtype=torch.float64)
    y = centre + 1.2 * torch.randn(4000, 1, generator=generator, dtype=torch.float64)
    means = centre + torch.randn(200, 4000, 1, generator=generator, dtype=torch.float64)
    many = scores.crps(means[:, :500], y[:500], Normal(0.5)).mean()
    few = scores.energy_score(means[:3, :500], y[:500], Normal(0.5))
    error = few.std() / math.sqrt(500)
    assert abs(few.mean() - many) < 4 * error
    plain = scores.crps(means[:3], y, Normal(0.5)) - scores.energy_score(means[:3], y, Normal(0.5))
    assert plain.mean() > 0.05
