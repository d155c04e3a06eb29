"""Likelihoods: densities against torch, noise of every kind, and targets that do not fit."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from spnb.maths import likelihoods
from spnb.maths.models import BayesianModel


def test_categorical_matches_cross_entropy() -> None:
    logits, y = torch.randn(3, 5, 4), torch.randint(0, 4, (5,))
    found = likelihoods.Categorical().log_likelihood(logits, y)
    expected = torch.stack(
        [-nn.functional.cross_entropy(row, y, reduction="none") for row in logits]
    )
    torch.testing.assert_close(found, expected)


def test_items_of_several_dimensions_are_summed() -> None:
    predictions, y = torch.randn(3, 5, 2, 4), torch.randn(5, 2, 4)
    found = likelihoods.Normal(0.5).log_likelihood(predictions, y)
    assert found.shape == (3, 5)
    expected = dist.Normal(predictions, 0.5).log_prob(y).sum((-1, -2))
    torch.testing.assert_close(found, expected)


def test_learned_noise_is_attached_to_the_means() -> None:
    model = BayesianModel(nn.Linear(2, 3), likelihood=likelihoods.Normal(init_scale=0.25))
    assert [site.name for site in model.deterministic] == ["likelihood.log_scale"]
    point = model.flatten(model.deterministic)
    weights = model.flatten(model.drawn).unsqueeze(0)
    predictions = model.predict(weights, point, torch.randn(5, 2))
    assert predictions.shape == (1, 5, 6)
    torch.testing.assert_close(model.likelihood(predictions).stddev, torch.full((1, 5, 3), 0.25))


def test_noise_with_a_prior_is_a_drawn_parameter() -> None:
    noise = likelihoods.Normal(dist.LogNormal(-1.0, 0.5))
    model = BayesianModel(nn.Linear(2, 1), likelihood=noise)
    site = model.drawn[-1]
    assert site.name == "likelihood.log_scale"
    assert isinstance(site.prior, dist.Normal)
    assert site.prior.loc.item() == -1.0


def test_any_positive_prior_of_the_noise_becomes_one_of_its_logarithm() -> None:
    prior = dist.HalfNormal(2.0)
    model = BayesianModel(nn.Linear(2, 1), likelihood=likelihoods.Normal(prior))
    log_scale = torch.tensor(-0.7)
    expected = prior.log_prob(log_scale.exp()) + log_scale
    torch.testing.assert_close(model.drawn[-1].prior.log_prob(log_scale), expected)


def test_heteroscedastic_noise_is_predicted() -> None:
    predictions = torch.randn(2, 4, 6)
    distribution = likelihoods.HeteroscedasticNormal()(predictions)
    torch.testing.assert_close(distribution.mean, predictions[..., :3])
    torch.testing.assert_close(distribution.stddev, predictions[..., 3:].exp())


def test_a_heteroscedastic_net_has_an_even_number_of_outputs() -> None:
    with pytest.raises(ValueError, match="this one gives 3"):
        likelihoods.HeteroscedasticNormal()(torch.zeros(1, 2, 3))


def test_means_and_log_scales_of_fields_are_stacked_along_their_channels() -> None:
    predictions = torch.randn(2, 5, 6, 3, 4)  # samples, items, means and log-scales of three leads
    fields = likelihoods.HeteroscedasticNormal(dim=-3)
    distribution = fields(predictions)
    torch.testing.assert_close(distribution.mean, predictions[:, :, :3])
    torch.testing.assert_close(distribution.stddev, predictions[:, :, 3:].exp())
    y = torch.randn(5, 3, 3, 4)
    fields.check(predictions[:1], y)
    last = likelihoods.HeteroscedasticNormal()
    moved = predictions.movedim(2, -1)
    torch.testing.assert_close(
        fields.log_likelihood(predictions, y), last.log_likelihood(moved, y.movedim(1, -1))
    )
    with pytest.raises(ValueError, match="this one gives 5"):
        fields(predictions[:, :, :5])


def test_a_dimension_counted_from_the_front_is_refused() -> None:
    with pytest.raises(ValueError, match="dim=2 must be negative"):
        likelihoods.HeteroscedasticNormal(dim=2)


def test_any_callable_is_a_likelihood() -> None:
    poisson = likelihoods.named(lambda predictions: dist.Poisson(predictions.exp()))
    predictions, y = torch.randn(3, 5, 1), torch.poisson(torch.ones(5, 1))
    expected = dist.Poisson(predictions.exp()).log_prob(y).sum(-1)
    torch.testing.assert_close(poisson.log_likelihood(predictions, y), expected)
    torch.testing.assert_close(poisson.mean(predictions), predictions.exp())


@pytest.mark.parametrize(
    ("likelihood", "predictions", "y", "message"),
    [
        ("categorical", torch.zeros(1, 4, 3), torch.zeros(4), "integers"),
        ("categorical", torch.zeros(1, 4, 3), torch.tensor([0, 1, 2, 3]), "from 0 to 3"),
        ("heteroscedastic", torch.zeros(1, 4, 2), torch.zeros(4), r"ask for \(4, 1\)"),
    ],
)
def test_targets_that_do_not_fit(
    likelihood: str, predictions: torch.Tensor, y: torch.Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        likelihoods.named(likelihood).check(predictions, y)


def test_unknown_likelihoods_are_refused() -> None:
    with pytest.raises(ValueError, match="none of categorical"):
        likelihoods.named("gaussian")
    with pytest.raises(TypeError, match="is a int"):
        likelihoods.named(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'known' must be"):
        likelihoods.Normal("known")
    with pytest.raises(ValueError, match="scale=0"):
        likelihoods.Normal(0)


@pytest.mark.parametrize("name", ["categorical", "normal", "heteroscedastic"])
def test_divergences_are_torchs(name: str) -> None:
    torch.manual_seed(0)
    likelihood, p, q = likelihoods.named(name), torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    expected = torch.distributions.kl_divergence(likelihood(p), likelihood(q)).sum()
    torch.testing.assert_close(likelihood.divergence(p, q), expected)


def test_a_divergence_that_torch_does_not_know_is_named() -> None:
    likelihood = likelihoods.named(lambda predictions: dist.StudentT(3.0, predictions, 1.0))
    with pytest.raises(ValueError, match="no KL divergence between two StudentT distributions"):
        likelihood.divergence(torch.zeros(1, 2), torch.zeros(1, 2))
