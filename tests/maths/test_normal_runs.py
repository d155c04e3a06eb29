"""Closed-form divergences over runs: against torch's own, in parts, and their gradients."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.distributions import kl_divergence

import spnb
from spnb.maths.posteriors.normal_runs import normal_runs


def elementwise(name: str, p: torch.Tensor) -> dist.Normal:
    torch.manual_seed(len(name))
    return dist.Normal(torch.randn(p.shape).double(), torch.rand(p.shape).double() + 0.5)


def laplace(name: str, p: torch.Tensor) -> dist.TorchDistribution:
    return dist.Laplace(0.0, 1.0) if name == "0.bias" else dist.Normal(0.5, 2.0)


PRIORS = {
    "one for all": (dist.Normal(0.5, 2.0), 1),
    "standard": (dist.Normal(0.0, 1.0), 1),
    "by layer": (spnb.priors.fan_in(2.0), 4),
    "by element": (elementwise, 4),
    "not all normal": (laplace, 2),
}


def posterior_with(prior: spnb.priors.Prior) -> spnb.MeanField:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    posterior = spnb.MeanField(spnb.BayesianModel(net, prior=prior), init_scale=0.3)
    with torch.no_grad():
        posterior.rho += torch.randn_like(posterior.rho)
    return posterior


@pytest.mark.parametrize("name", PRIORS)
def test_the_divergence_is_torchs_and_its_gradient_autograds(name: str) -> None:
    prior, runs = PRIORS[name]
    posterior = posterior_with(prior)
    assert len(normal_runs(posterior.model.drawn)) == runs
    loc, scale = (p.detach().requires_grad_() for p in posterior.prepare())
    expected = torch.stack(
        [
            kl_divergence(dist.Normal(mu, sigma).to_event(), p)
            for (mu, sigma), p in zip(
                zip(
                    posterior.model.unflatten(loc, posterior.model.drawn).values(),
                    posterior.model.unflatten(scale, posterior.model.drawn).values(),
                    strict=True,
                ),
                posterior.model.priors().values(),
                strict=True,
            )
        ]
    ).sum()
    by_loc, by_scale = torch.autograd.grad(expected, (loc, scale))
    torch.testing.assert_close(posterior.divergence((loc, scale)), expected)
    for parts in (1, 2, 3, 40):
        leaves = tuple(p.detach().requires_grad_() for p in (loc, scale))
        for leaf in leaves:
            leaf.grad = torch.ones_like(leaf)
        total = torch.zeros(())
        for part in range(parts):
            total = total + posterior.add_divergence(leaves, part, parts, 0.25)
        torch.testing.assert_close(total, expected)
        torch.testing.assert_close(leaves[0].grad, 1 + 0.25 * by_loc)
        torch.testing.assert_close(leaves[1].grad, 1 + 0.25 * by_scale)


def test_the_general_way_agrees() -> None:
    posterior = posterior_with(spnb.priors.fan_in())
    results = []
    for way in (spnb.MeanField.add_divergence, spnb.Posterior.add_divergence):
        leaves = tuple(p.detach().requires_grad_() for p in posterior.prepare())
        for leaf in leaves:
            leaf.grad = torch.zeros_like(leaf)
        results.append((way(posterior, leaves, 1, 3, 0.5), leaves[0].grad, leaves[1].grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
