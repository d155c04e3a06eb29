"""Regression in closed form: against its covariance, and against `spnb.fit`."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch

import spnb
from spnb.teach.features import Features, draw_weights

X = torch.tensor([-2.0, -1.0, -0.5, 1.0, 2.0]).double()
Y = torch.sin(X)
OPTIONS = {"prior_scale": 1.5, "noise": 0.3}


def precision(features: Features) -> torch.Tensor:
    phi, units = features(X), len(features.slopes)
    return phi.T @ phi / 0.09 + torch.eye(units).double() * units / 1.5**2


@pytest.mark.parametrize("method", ["prior", "mean field", "exact"])
def test_moments_are_those_of_the_closed_form(method: str) -> None:
    features = Features.drawn(units=5)
    draws = draw_weights(features, X, Y, method=method, num_samples=40_000, **OPTIONS)
    inverse = torch.linalg.inv(precision(features))
    covariance = {
        "prior": torch.eye(5).double() * 1.5**2 / 5,
        "mean field": torch.diag(1 / precision(features).diagonal()),
        "exact": inverse,
    }[method]
    mean = inverse @ features(X).T @ Y / 0.09 if method != "prior" else torch.zeros(5).double()
    torch.testing.assert_close(draws.mean(0), mean, atol=0.02, rtol=0)
    torch.testing.assert_close(draws.T.cov(), covariance, atol=0.02, rtol=0.04)
    few = draw_weights(features, X, Y, method=method, num_samples=3, **OPTIONS)
    torch.testing.assert_close(few, draws[:3])


def test_mean_field_is_what_fit_finds() -> None:
    features = Features.drawn(units=5)
    net = torch.nn.Linear(5, 1, bias=False).double()
    prior = dist.Normal(0.0, 1.5 / 5**0.5)
    model = spnb.BayesianModel(net, prior=prior, likelihood=spnb.likelihoods.Normal(0.3))
    fitted = spnb.fit(
        spnb.MeanField(model, init_scale=0.1, antithetic=True),
        (features(X), Y.unsqueeze(1)),
        num_samples=16,
        batch_size=5,
        epochs=1500,
        learning_rate=0.02,
        schedule="cosine",
    ).posterior
    mean = torch.linalg.inv(precision(features)) @ features(X).T @ Y / 0.09
    torch.testing.assert_close(fitted.loc.detach(), mean, atol=0.02, rtol=0)
    wanted = 1 / precision(features).diagonal().sqrt()
    torch.testing.assert_close(fitted.scale.detach(), wanted, atol=0, rtol=0.05)


def test_without_data_the_posterior_is_the_prior() -> None:
    none = torch.empty(0)
    found = [
        draw_weights(Features.drawn(), none, none, method=m, num_samples=4, **OPTIONS)
        for m in ("prior", "mean field", "exact")
    ]
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])
