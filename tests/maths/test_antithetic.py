"""Antithetic pairs: opposite noise, the same distribution, unbiased and calmer gradients.

And scores that compare samples with each other, which must leave partners out.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import spnb
from spnb.maths import scores
from spnb.maths.energy import independent_pairs
from spnb.maths.likelihoods import Likelihood, Normal
from spnb.parallel.keyed import Key
from tests.run.problems import problem, relative


def antithetic() -> tuple[spnb.MeanField, tuple[torch.Tensor, torch.Tensor]]:
    posterior, data = problem()
    return spnb.MeanField(posterior.model, init_scale=0.3, antithetic=True), data


def test_a_pair_is_mirrored_at_the_means() -> None:
    posterior, _ = antithetic()
    draws, key = posterior.draw(range(6), Key(0)), Key(0)
    torch.testing.assert_close(draws[0::2] + draws[1::2], 2 * posterior.loc.expand(3, -1))
    assert (draws[0] - draws[2]).abs().min() > 0
    torch.testing.assert_close(posterior.draw([5], key)[0], draws[5])


def test_each_sample_is_distributed_as_before() -> None:
    posterior, _ = antithetic()
    draws = posterior.draw(range(20_000), Key(1)).detach()
    error = ((draws.mean(0) - posterior.loc) / 0.3).abs().max()
    assert error < 1e-6  # pairs cancel
    torch.testing.assert_close(draws.std(0), posterior.scale.detach(), rtol=0.03, atol=0)
    cubes = (((draws[::2] - posterior.loc) / 0.3) ** 3).mean(0)  # one of each pair: no skew
    assert cubes.abs().max() < 6 * (15 / 10_000) ** 0.5


def test_gradients_are_unbiased_and_those_of_the_means_are_calmer() -> None:
    calm, data = antithetic()
    plain = spnb.MeanField(calm.model, init_scale=0.3)
    objective = spnb.ELBO(temperature=0.0)

    def many(posterior: spnb.MeanField) -> dict[str, torch.Tensor]:
        found = [
            spnb.gradients(posterior, data, objective=objective, num_samples=4, step=t)
            for t in range(300)
        ]
        return {name: torch.stack([g[name] for g in found]) for name in ("loc", "rho")}

    calm_found, plain_found = many(calm), many(plain)
    for name in ("loc", "rho"):
        error = (calm_found[name].mean(0) - plain_found[name].mean(0)).norm()
        noise = (calm_found[name].var(0) + plain_found[name].var(0)).div(300).sum().sqrt()
        assert error < 2 * noise
    ratio = {name: (calm_found[name].var(0).sum() / plain_found[name].var(0).sum()).item()
             for name in ("loc", "rho")}  # fmt: skip
    assert ratio["loc"] < 0.6
    assert 0.7 < ratio["rho"] < 2.5


def test_both_ways_of_evaluating_draw_the_same() -> None:
    posterior, data = antithetic()
    alone = spnb.gradients(posterior, data, num_samples=5)
    several = spnb.gradients(posterior, data, num_samples=5, samples_in_flight=2)
    assert relative(several, alone) <= 1e-12


def pairs_of_noise(samples: int, items: int, seed: int = 0) -> Tensor:
    """Standard normal numbers ``[S, N, 1]``, 2k + 1 the opposite of 2k; a last one may be alone."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn((samples + 1) // 2, items, 1, generator=generator, dtype=torch.float64)
    return torch.stack([drawn, -drawn], 1).flatten(0, 1)[:samples]


@pytest.mark.parametrize("samples", [3, 4, 5, 8])
def test_partners_are_never_compared(samples: int) -> None:
    found = list(
        zip(*(i.tolist() for i in independent_pairs(samples, antithetic=True)), strict=True)
    )
    every = [(s, t) for t in range(samples) for s in range(t)]
    assert sorted(found) == sorted(pair for pair in every if pair[0] // 2 != pair[1] // 2)
    with pytest.raises(ValueError, match="One antithetic pair cannot tell .* at least 3"):
        independent_pairs(2, antithetic=True)


@pytest.mark.parametrize("samples", [3, 4, 5, 8])
@pytest.mark.parametrize(
    ("objective", "noise"), [(spnb.EnsembleEnergyScore(), 0.0), (spnb.EnergyScore(), 0.6)]
)
def test_the_best_spread_is_the_right_one(
    samples: int, objective: spnb.Objective, noise: float
) -> None:
    """Targets N(0, 1), forecasts σ ε (plus noise): the slope of the score is zero where the
    forecast's variance is 1. With partners compared σ would be 1.36 at S = 4, 1.13 at S = 8."""
    items = 60_000
    target = torch.randn(items, 1, generator=torch.Generator().manual_seed(1)).double()
    likelihood = Normal(noise or 1.0)

    def slope(objective: spnb.Objective) -> tuple[float, float]:
        sigma = torch.full((items, 1), math.sqrt(1 - noise**2), dtype=torch.float64)
        sigma.requires_grad_()
        members = sigma * pairs_of_noise(samples, items)
        objective.losses(members, target, likelihood).sum().backward()
        return sigma.grad.mean().item(), sigma.grad.std().item() / math.sqrt(items)

    found, error = slope(objective.for_pairs([samples]))
    assert abs(found) < 4 * error
    naive, error = slope(objective)
    assert naive < -10 * error  # it asks for more spread


@pytest.mark.parametrize("objective", [spnb.EnergyScore(), spnb.EnsembleEnergyScore()])
def test_a_pair_alone_has_no_energy_score(objective: spnb.Objective) -> None:
    def too_late(x: Tensor, generator: torch.Generator) -> Tensor:
        raise AssertionError("a step was begun")

    posterior, data = antithetic()
    options = {"objective": objective, "augment": too_late}
    for wrapped in (objective, spnb.PlainAveraging(objective)):
        with pytest.raises(ValueError, match="use num_samples=4"):
            spnb.fit(posterior, data, num_samples=2, **options | {"objective": wrapped})
    with pytest.raises(ValueError, match="groups of 3, 2 samples, which cut antithetic pairs"):
        spnb.PlainAveraging(objective).for_pairs([3, 2])
    for sizes in ([2, 2], [3, 3, 2]):
        enough = 4 * len(sizes)
        with pytest.raises(ValueError, match=f"use num_samples={enough}"):
            spnb.PlainAveraging(objective).for_pairs(sizes)
        spnb.PlainAveraging(objective).for_pairs(spnb.Layout(len(sizes)).sizes("sample", enough))
    spnb.PlainAveraging(objective).for_pairs([4, 3])
    spnb.PlainAveraging(spnb.PredictiveNLL()).for_pairs([3, 2])  # compares no samples


def test_training_knows_of_the_pairs() -> None:
    """The gradient of `fit` is that of the objective which leaves partners out."""
    posterior, data = antithetic()
    found = spnb.gradients(
        posterior, data, objective=spnb.EnergyScore(temperature=0), num_samples=5
    )
    draws = posterior.draw(range(5), Key(0).fold("weights", 0))
    predictions = posterior.model.predict(draws, posterior.point, data[0])
    objective = spnb.EnergyScore(temperature=0).for_pairs([5])
    loss = objective.losses(predictions, data[1], posterior.model.likelihood).mean()
    expected = torch.autograd.grad(loss, [posterior.loc, posterior.rho])
    assert relative(found, dict(zip(("loc", "rho"), expected, strict=True))) <= 1e-12


@pytest.mark.parametrize("samples", [3, 4, 5, 8])
@pytest.mark.parametrize("noise", [0.0, 1.5])
def test_the_spread_of_a_calibrated_forecast_is_its_error(samples: int, noise: float) -> None:
    """Forecasts μ + ε in pairs, targets μ + ε' + noise. Taken for independent samples they would
    seem to spread too much, by sqrt((S + 1) / (S - 1)) without noise and with even S."""
    cells = (4000, 4, 5)
    count = math.prod(cells)
    generator = torch.Generator().manual_seed(2)
    centre, strange, other = torch.randn(3, *cells, generator=generator, dtype=torch.float64)
    draws = centre + pairs_of_noise(samples, count).view(samples, *cells)
    target = centre + other + noise * strange
    area = torch.ones(4, 1, dtype=torch.float64)
    seen = draws, target, Normal(noise or 1.0), area, noise > 0
    found = scores.spread_skill(*seen, antithetic=True).item()
    assert found == pytest.approx(1, abs=4 / math.sqrt(count))  # both variances scatter by 2 / N
    naive = scores.spread_skill(*seen).item()
    if not noise and samples % 2 == 0:
        assert naive == pytest.approx(math.sqrt((samples + 1) / (samples - 1)), rel=0.02)
    assert naive > found + 0.01
    alone = scores.spread_skill(draws[:1], *seen[1:], antithetic=True)
    torch.testing.assert_close(alone, scores.spread_skill(draws[:1], *seen[1:]))
    with pytest.raises(ValueError, match="One antithetic pair"):
        scores.spread_skill(draws[:2], *seen[1:], antithetic=True)


def test_the_spread_of_even_numbers_is_that_of_the_pairs_as_clusters() -> None:
    """Mean square deviation plus twice the variance of the mean, which K pair means tell."""
    draws = pairs_of_noise(6, 20).view(6, 1, 4, 5) + 0.3 * torch.randn(6, 1, 4, 5).double()
    middles = (draws[::2] + draws[1::2]) / 2
    expected = draws.var(0, correction=0) + 2 * middles.var(0) / 3
    target = torch.zeros(1, 4, 5, dtype=torch.float64)
    area = torch.ones(4, 1, dtype=torch.float64)
    found = scores.spread_skill(draws, target, Normal(1.0), area, noise=False, antithetic=True)
    skill = scores.weighted_rmse(draws, target, Normal(1.0), area)
    torch.testing.assert_close(found, expected.mean().sqrt() / skill)


def test_scores_of_a_posterior_know_of_its_pairs() -> None:
    torch.manual_seed(0)
    model = spnb.BayesianModel(nn.Linear(3, 1).double(), likelihood=Normal(0.3))
    posterior = spnb.MeanField(model, init_scale=0.5, antithetic=True)
    x, y = torch.randn(50, 3, dtype=torch.float64), torch.randn(50, 1, dtype=torch.float64)
    found = spnb.score(posterior, (x, y), num_samples=4)
    draws = spnb.predict(posterior, x, num_samples=4)
    for name, score in (
        ("energy_score", scores.energy_score),
        ("ensemble_energy_score", scores.ensemble_energy_score),
    ):
        expected = score(draws, y, model.likelihood, antithetic=True).mean().item()
        assert found[name] == pytest.approx(expected, rel=1e-12)
        assert abs(found[name] - score(draws, y, model.likelihood).mean().item()) > 1e-3
    fitted = spnb.fit(posterior, (x, y), num_samples=4, validation=(x, y))
    told = fitted.history.epochs[-1].scores
    assert told == pytest.approx(spnb.score(fitted.posterior, (x, y), num_samples=4))
    pair = spnb.score(posterior, (x, y), num_samples=2)  # which tells the rest, but not these two
    assert set(found) - set(pair) == {"energy_score", "ensemble_energy_score"}
    laplace = Likelihood(lambda p: torch.distributions.Laplace(p, 1.0))
    assert set(scores.evaluate(draws[:2], y, laplace, antithetic=True)) == {"rmse", "nll"}
