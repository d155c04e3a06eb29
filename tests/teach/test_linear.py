"""The exact posterior of a linear model, against a sum over a grid of all its parameters."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import nn

import spnb
from spnb.teach.linear import exact_linear

PRIOR = dist.LogNormal(-0.5, 1.0)


def model_and_data(rows: int) -> tuple[spnb.BayesianModel, tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    x = 0.3 + torch.randn(rows, 1, generator=generator)
    y = 0.8 * x - 0.4 + 0.6 * torch.randn(rows, 1, generator=generator)
    net = nn.Linear(1, 1)
    return spnb.BayesianModel(net, spnb.priors.fan_in(0.7), spnb.likelihoods.Normal(PRIOR)), (x, y)


def test_mean_and_covariance_are_those_of_a_grid() -> None:
    """Slope, intercept and noise of 12 rows, in 10^6 places."""
    model, (x, y) = model_and_data(12)
    axes = [torch.linspace(*ends, 100).double() for ends in ((-3, 3), (-3, 3), (-3, 3))]
    slope, shift, log_noise = torch.meshgrid(*axes, indexing="ij")
    log_density = (
        dist.Normal(0, 0.7).log_prob(slope)
        + dist.Normal(0, 0.7).log_prob(shift)
        + dist.Normal(-0.5, 1.0).log_prob(log_noise)
    )
    for one, value in zip(x.double(), y.double(), strict=True):
        log_density += dist.Normal(slope * one + shift, log_noise.exp()).log_prob(value)
    share = log_density.flatten().softmax(0)
    places = torch.stack([slope, shift, log_noise], -1).reshape(-1, 3)
    mean = share @ places
    covariance = (places - mean).T @ ((places - mean) * share.unsqueeze(1))
    drawn = exact_linear(model, (x, y), num_draws=40_000).draws.double()
    error = covariance.diagonal().sqrt() / 40_000**0.5
    assert bool(((drawn.mean(0) - mean).abs() < 4 * error).all())
    torch.testing.assert_close(drawn.T.cov(), covariance, rtol=0.03, atol=2e-3)


def test_a_seed_names_the_draws_and_few_are_some_of_them() -> None:
    model, data = model_and_data(30)
    one, same, other = (exact_linear(model, data, 5, seed).draws for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert one.shape == (5, 3)


def test_targets_without_noise_are_met() -> None:
    """The noise is then as small as the prior lets it be, and nothing overflows."""
    model, (x, _) = model_and_data(50)
    drawn = exact_linear(model, (x, 0.5 * x), 100)
    predicted = spnb.predict(drawn, x, num_samples=100)
    assert predicted is not None
    torch.testing.assert_close(predicted[..., 0].mean(0), 0.5 * x[:, 0], rtol=1e-3, atol=1e-3)
