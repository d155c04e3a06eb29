"""The mean-field posterior: keyed draws, divergences, gradients of scales."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from spnb.maths import priors
from spnb.maths.models import BayesianModel
from spnb.maths.posteriors import MeanField
from spnb.parallel.keyed import Key


def mean_field(prior: priors.Prior | None = None, init_scale: float = 0.3) -> MeanField:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    return MeanField(BayesianModel(net, prior=prior), init_scale=init_scale)


def test_it_starts_at_the_net_with_the_asked_scale() -> None:
    for init_scale in (1e-4, 0.02, 3.0, 50.0):
        posterior = mean_field(init_scale=init_scale)
        torch.testing.assert_close(posterior.scale, torch.full_like(posterior.loc, init_scale))
    assert torch.equal(posterior.loc[:12].view(4, 3), posterior.model.net[0].weight)


def test_a_sample_does_not_depend_on_its_company() -> None:
    posterior, key = mean_field(), Key(7).fold("weights", 3)
    together = posterior.draw([0, 1, 2, 5], key)
    assert torch.equal(together[3:], posterior.draw([5], key))
    assert torch.equal(together[[2, 0]], posterior.draw([2, 0], key))


def test_draws_have_the_moments_of_the_posterior() -> None:
    posterior = mean_field()
    draws = posterior.draw(range(20_000), Key(1))
    error = (draws.mean(0) - posterior.loc).abs().max() / 0.3
    assert error < 5 / 20_000**0.5
    torch.testing.assert_close(draws.std(0), posterior.scale, rtol=0.03, atol=0)


def test_the_closed_divergence_is_the_known_formula() -> None:
    posterior = mean_field(dist.Normal(0.5, 2.0))
    mu, sigma = posterior.loc, posterior.scale
    expected = (2.0 / sigma).log() + (sigma**2 + (mu - 0.5) ** 2) / 8 - 0.5
    found = posterior.divergence(posterior.prepare())
    torch.testing.assert_close(found, expected.sum())
    assert not posterior.estimates


def test_the_sampled_divergence_tends_to_the_integral() -> None:
    posterior = mean_field(priors.scale_mixture(0.5, 1.0, 0.1))
    prepared = posterior.prepare()
    assert posterior.divergence(prepared).item() == 0.0
    with torch.no_grad():
        weights = posterior.draw(range(4000), Key(0))
        values = BayesianModel.unflatten(weights, posterior.model.drawn)
        found = posterior.sampled_divergence(values, prepared)
    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    width = grid[1] - grid[0]
    density = priors.scale_mixture(0.5, 1.0, 0.1)
    total = 0.0
    for mu, sigma in zip(posterior.loc, posterior.scale, strict=True):
        q = dist.Normal(mu, sigma)
        integrand = q.log_prob(grid).exp() * (q.log_prob(grid) - density.log_prob(grid))
        total += (integrand.sum() * width).item()
    standard_error = found.std().item() / 4000**0.5
    assert abs(found.mean().item() - total) < 4 * standard_error


def test_closed_and_sampled_parts_add_up() -> None:
    def rule(name: str, p: torch.Tensor) -> dist.TorchDistribution:
        return priors.scale_mixture() if name == "0.weight" else dist.Normal(0.0, 1.0)

    mixed, plain = mean_field(rule), mean_field(dist.Normal(0.0, 1.0))
    closed = mixed.divergence(mixed.prepare()).item()
    whole = plain.divergence(plain.prepare()).item()
    assert 0 < closed < whole
    weights = mixed.draw([0, 1], Key(0))
    values = BayesianModel.unflatten(weights, mixed.model.drawn)
    assert mixed.sampled_divergence(values, mixed.prepare()).shape == (2,)


def test_a_label_names_the_parameter_of_an_element() -> None:
    posterior = mean_field()
    assert posterior.label("loc", 0) == "'0.weight' (loc)"
    assert posterior.label("rho", 12) == "'0.bias' (rho)"
    with pytest.raises(IndexError):
        posterior.label("loc", 10_000)


def test_the_initial_scale_is_positive() -> None:
    with pytest.raises(ValueError, match="init_scale=0"):
        mean_field(init_scale=0)
