"""Priors: shapes, supports, precision, and the ready-made rules."""

from __future__ import annotations

import math

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from spnb.maths import priors
from spnb.maths.models import BayesianModel


def parameter(*shape: int, dtype: torch.dtype = torch.float64) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape, dtype=dtype))


def test_a_scalar_is_expanded_and_independent_over_elements() -> None:
    resolved = priors.resolve(dist.Normal(0.0, 2.0), "w", parameter(3, 4))
    assert resolved.batch_shape == ()
    assert resolved.event_shape == (3, 4)
    expected = 12 * dist.Normal(0.0, 2.0).log_prob(torch.tensor(1.0))
    torch.testing.assert_close(resolved.log_prob(torch.ones(3, 4)).float(), expected)


def test_one_of_the_parameters_shape_is_taken_as_it_is() -> None:
    scales = torch.tensor([1.0, 2.0, 3.0])
    resolved = priors.resolve(dist.Normal(torch.zeros(3), scales), "b", parameter(3))
    torch.testing.assert_close(resolved.base_dist.scale, scales.double())
    assert resolved.event_shape == (3,)


def test_a_joint_distribution_stays_joint() -> None:
    joint = dist.MultivariateNormal(torch.zeros(3), torch.eye(3) + 0.5)
    assert priors.resolve(joint, "b", parameter(3)).event_shape == (3,)


def test_a_prior_takes_the_precision_of_the_parameter() -> None:
    for prior in (dist.Normal(0.0, 0.1), dist.StudentT(3.0), priors.scale_mixture()):
        resolved = priors.resolve(prior, "w", parameter(2, 2))
        assert resolved.sample().dtype == torch.float64


def test_a_wrong_shape_is_refused_with_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"'w' has shape \(5,\), the parameter \(3, 4\)"):
        priors.resolve(dist.Normal(torch.zeros(5), 1.0), "w", parameter(3, 4))


def test_half_a_line_is_refused() -> None:
    for prior in (dist.HalfNormal(1.0), dist.LogNormal(0.0, 1.0), dist.Uniform(-1.0, 1.0)):
        with pytest.raises(ValueError, match="whole line"):
            priors.resolve(prior, "w", parameter(3))


def test_a_rule_that_returns_no_distribution_is_refused() -> None:
    with pytest.raises(TypeError, match="'w' is a float"):
        priors.resolve(lambda name, p: 1.0, "w", parameter(3))


def test_fan_in_keeps_the_variance_of_a_sum() -> None:
    rule = priors.fan_in(gain=1.5)
    linear = priors.resolve(rule, "0.weight", parameter(7, 100))
    assert linear.base_dist.scale[0, 0].item() == pytest.approx(1.5 / 10)
    convolution = priors.resolve(rule, "0.weight", parameter(8, 4, 3, 3))
    assert convolution.base_dist.scale.max().item() == pytest.approx(1.5 / math.sqrt(36))
    gain = priors.resolve(rule, "norm.weight", parameter(5))
    assert gain.base_dist.loc[0].item() == 1.0
    bias = priors.resolve(rule, "0.bias", parameter(5))
    assert (bias.base_dist.loc[0].item(), bias.base_dist.scale[0].item()) == (0.0, 1.5)


def test_the_scale_mixture_has_the_density_of_its_formula() -> None:
    mixture = priors.scale_mixture(weight=0.25, wide=1.0, narrow=0.1)
    w = torch.tensor(0.3)
    expected = 0.25 * dist.Normal(0.0, 1.0).log_prob(w).exp()
    expected = expected + 0.75 * dist.Normal(0.0, 0.1).log_prob(w).exp()
    torch.testing.assert_close(mixture.log_prob(w).exp(), expected)


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.0])
def test_a_mixture_needs_two_components(weight: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        priors.scale_mixture(weight=weight)


def test_fan_in_needs_a_positive_gain() -> None:
    with pytest.raises(ValueError, match="gain=0"):
        priors.fan_in(gain=0)


def test_priors_follow_the_model_to_another_precision() -> None:
    for prior in (dist.Normal(0.0, 1.0), priors.scale_mixture()):
        model = BayesianModel(nn.Linear(2, 2), prior=prior).double()
        assert all(site.prior.sample().dtype == torch.float64 for site in model.drawn)


def test_one_number_stays_one_number_on_the_way() -> None:
    """Priors of 200 million weights would otherwise take 1.6 GB on a GPU."""
    model = BayesianModel(nn.Linear(30, 20), prior=priors.fan_in()).double()
    for site in model.drawn:
        scale = site.prior.base_dist.scale
        assert scale.shape == site.shape and scale.dtype == torch.float64
        assert scale.unique().numel() == 1
        assert scale.untyped_storage().nbytes() == 8


def test_a_prior_that_fits_is_not_made_anew() -> None:
    prior, weights = dist.Normal(torch.zeros(2), 1.0), torch.zeros(2)
    assert priors.like(prior, weights) is prior
    assert priors.like(prior, weights.double()).loc.dtype == torch.float64
