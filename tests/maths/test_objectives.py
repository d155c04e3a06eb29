"""Objectives against formulas and limits: all are plain functions of all samples."""

from __future__ import annotations

import math

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from spnb.maths.likelihoods import Categorical, Normal
from spnb.maths.objectives import (
    ELBO,
    AlphaDivergence,
    EnergyScore,
    GaussianMoments,
    Objective,
    PlainAveraging,
    PredictiveNLL,
)

torch.manual_seed(0)
LOGITS = torch.randn(6, 5, 4, dtype=torch.float64)
CLASSES = torch.randint(0, 4, (5,))
MEANS = torch.randn(6, 5, 2, dtype=torch.float64)
REALS = torch.randn(5, 2, dtype=torch.float64)


def test_predictive_nll_is_the_log_of_the_mean_probability() -> None:
    probability = LOGITS.softmax(-1).mean(0)[torch.arange(5), CLASSES]
    found = PredictiveNLL().losses(LOGITS, CLASSES, Categorical())
    torch.testing.assert_close(found, -probability.log())


def test_alpha_tends_to_the_elbo_and_bounds_are_ordered() -> None:
    likelihood = Categorical()
    elbo = ELBO().losses(LOGITS, CLASSES, likelihood)
    nearly = AlphaDivergence(1e-6).losses(LOGITS, CLASSES, likelihood)
    torch.testing.assert_close(nearly, elbo, rtol=1e-5, atol=1e-5)
    half = AlphaDivergence(0.5).losses(LOGITS, CLASSES, likelihood)
    nll = PredictiveNLL().losses(LOGITS, CLASSES, likelihood)
    assert (nll < half).all() and (half < elbo).all()


def test_the_energy_score_is_its_double_sum() -> None:
    found = EnergyScore().losses(MEANS, REALS, Normal(1.0))
    error = (MEANS - REALS).norm(dim=-1).mean(0)
    pairs = (MEANS[:, None] - MEANS[None]).norm(dim=-1).sum((0, 1))
    torch.testing.assert_close(found, error - pairs / (2 * 6 * 5))


def test_the_energy_score_of_one_number_needs_no_dimension_for_it() -> None:
    found = EnergyScore().losses(MEANS[..., 0], REALS[:, 0], Normal(1.0))
    torch.testing.assert_close(found, EnergyScore().losses(MEANS[..., :1], REALS[:, :1], Normal(1)))


def test_the_energy_score_is_unbiased_at_small_s() -> None:
    """CRPS of a standard normal at 0 is 2 phi(0) - 1/sqrt(pi) = 0.234; the plain estimate with
    four samples is 0.374."""
    draws = torch.randn(4, 40_000, 1, dtype=torch.float64)
    target = torch.zeros(40_000, 1, dtype=torch.float64)
    true = 2 / math.sqrt(2 * math.pi) - 1 / math.sqrt(math.pi)
    fair = EnergyScore().losses(draws, target, Normal(1.0)).mean().item()
    assert fair == pytest.approx(true, abs=0.006)
    plain = draws.abs().mean() - (draws[:, None] - draws[None]).abs().mean() / 2
    assert plain.item() == pytest.approx(0.374, abs=0.006)


def test_one_sample_has_no_spread_and_equal_samples_a_gradient() -> None:
    one = EnergyScore().losses(MEANS[:1], REALS, Normal(1.0))
    torch.testing.assert_close(one, (MEANS[0] - REALS).norm(dim=-1))
    equal = MEANS[:1].expand(3, -1, -1).clone().requires_grad_()
    EnergyScore().losses(equal, REALS, Normal(1.0)).sum().backward()
    assert torch.isfinite(equal.grad).all()


def test_the_energy_score_of_classes_compares_probabilities() -> None:
    perfect = torch.full((3, 5, 4), -50.0).scatter(2, CLASSES.expand(3, 5)[..., None], 50.0)
    found = EnergyScore().losses(perfect, CLASSES, Categorical())
    torch.testing.assert_close(found, torch.zeros(5), atol=1e-6, rtol=0)


def test_gaussian_moments_are_those_of_the_mixture() -> None:
    found = GaussianMoments().losses(MEANS, REALS, Normal(0.3))
    variance = 0.3**2 + MEANS.var(0, correction=0)
    fitted = dist.Normal(MEANS.mean(0), variance.sqrt())
    torch.testing.assert_close(found, -fitted.log_prob(REALS).sum(-1))


def test_gaussian_moments_of_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="PredictiveNLL"):
        GaussianMoments().losses(LOGITS, CLASSES, Categorical())


def test_a_users_function_is_an_objective() -> None:
    def margin(predictions: Tensor, targets: Tensor) -> Tensor:
        return -predictions.mean(0)[torch.arange(5), targets]

    objective = Objective(margin, temperature=0.5)
    assert objective.temperature == 0.5 and not objective.linear_in_samples
    torch.testing.assert_close(
        objective.losses(LOGITS, CLASSES, Categorical()), margin(LOGITS, CLASSES)
    )


def test_plain_averaging_wraps_and_says_so() -> None:
    objective = PlainAveraging(PredictiveNLL(temperature=0.5))
    assert objective.temperature == 0.5 and objective.local
    assert repr(objective) == "PlainAveraging(PredictiveNLL(temperature=0.5))"


@pytest.mark.parametrize("alpha", [0, 0.0, math.nan, math.inf])
def test_alpha_zero_is_the_elbo(alpha: float) -> None:
    with pytest.raises(ValueError, match="ELBO"):
        AlphaDivergence(alpha)


def test_bad_objectives_are_refused() -> None:
    with pytest.raises(ValueError, match="temperature=-1"):
        ELBO(temperature=-1)
    with pytest.raises(TypeError, match="give a callable"):
        Objective("nll")  # type: ignore[arg-type]
