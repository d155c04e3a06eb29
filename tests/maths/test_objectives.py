"""Objectives against formulas and limits: all are plain functions of all samples."""

from __future__ import annotations

import math
from collections.abc import Callable

import pyro.distributions as dist
import pytest
import torch
from scoringrules import crps_mixnorm, crps_normal
from torch import Tensor, nn

import spnb
from spnb.maths.energy import StepNoise
from spnb.maths.likelihoods import Categorical, HeteroscedasticNormal, Likelihood, Normal
from spnb.maths.models import BayesianModel
from spnb.maths.objectives import (
    ELBO,
    AlphaDivergence,
    EnergyScore,
    EnsembleEnergyScore,
    GaussianMoments,
    Objective,
    PlainAveraging,
    PredictiveNLL,
)
from spnb.parallel.keyed import Key

torch.manual_seed(0)
LOGITS = torch.randn(6, 5, 4, dtype=torch.float64)
CLASSES = torch.randint(0, 4, (5,))
MEANS = torch.randn(6, 5, 2, dtype=torch.float64)
REALS = torch.randn(5, 2, dtype=torch.float64)


def too_late(x: Tensor, generator: torch.Generator) -> Tensor:
    """An augmentation that says that a step was begun before the mistake was noticed."""
    raise AssertionError("a step was begun")


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


def test_the_energy_score_of_the_ensemble_is_its_double_sum() -> None:
    found = EnsembleEnergyScore().losses(MEANS, REALS, Normal(1.0))
    error = (MEANS - REALS).norm(dim=-1).mean(0)
    pairs = (MEANS[:, None] - MEANS[None]).norm(dim=-1).sum((0, 1))
    torch.testing.assert_close(found, error - pairs / (2 * 6 * 5))


@pytest.mark.parametrize("objective", [EnergyScore(), EnsembleEnergyScore()])
def test_the_energy_score_of_one_number_needs_no_dimension_for_it(objective: Objective) -> None:
    found = objective.losses(MEANS[..., 0], REALS[:, 0], Normal(1.0))
    torch.testing.assert_close(found, objective.losses(MEANS[..., :1], REALS[:, :1], Normal(1)))


def test_the_energy_score_of_the_ensemble_is_unbiased_at_small_s() -> None:
    """CRPS of a standard normal at 0 is 2 phi(0) - 1/sqrt(pi) = 0.234; the plain estimate with
    four samples is 0.374."""
    draws = torch.randn(4, 40_000, 1, dtype=torch.float64)
    target = torch.zeros(40_000, 1, dtype=torch.float64)
    true = 2 / math.sqrt(2 * math.pi) - 1 / math.sqrt(math.pi)
    fair = EnsembleEnergyScore().losses(draws, target, Normal(1.0)).mean().item()
    assert fair == pytest.approx(true, abs=0.006)
    plain = draws.abs().mean() - (draws[:, None] - draws[None]).abs().mean() / 2
    assert plain.item() == pytest.approx(0.374, abs=0.006)


def test_one_member_has_no_spread_and_equal_members_a_gradient() -> None:
    one = EnsembleEnergyScore().losses(MEANS[:1], REALS, Normal(1.0))
    torch.testing.assert_close(one, (MEANS[0] - REALS).norm(dim=-1))
    equal = MEANS[:1].expand(3, -1, -1).clone().requires_grad_()
    EnsembleEnergyScore().losses(equal, REALS, Normal(1.0)).sum().backward()
    assert torch.isfinite(equal.grad).all()


@pytest.mark.parametrize("objective", [EnergyScore(), EnsembleEnergyScore()])
def test_the_energy_score_of_perfect_classes_is_zero(objective: Objective) -> None:
    perfect = torch.full((3, 5, 4), -50.0).scatter(2, CLASSES.expand(3, 5)[..., None], 50.0)
    found = objective.losses(perfect, CLASSES, Categorical())
    torch.testing.assert_close(found, torch.zeros(5), atol=1e-6, rtol=0)


# -- the energy score of the predictive ---------------------------------------------------------

STACKED = torch.cat([MEANS[..., :1], 0.3 * MEANS[..., 1:]], -1)  # mean and log-scale of one number


@pytest.mark.parametrize("samples", [1, 2, 6])
def test_the_energy_score_of_noisy_numbers_is_their_fair_crps(samples: int) -> None:
    """By scoringrules: E|X - y| from the CRPS of one normal, the pairs from that of the mixture."""
    draws, y = STACKED[:samples], REALS[:, :1]
    means, scales = (part.squeeze(-1).numpy() for part in (draws[..., :1], draws[..., 1:].exp()))
    within = scales / math.sqrt(math.pi)  # half the mean distance of two targets of one sample
    error = (crps_normal(y[:, 0].numpy(), means, scales) + within).mean(0)
    mixture = crps_mixnorm(y[:, 0].numpy(), means.T, scales.T)
    pairs = 2 * samples**2 * (error - mixture) - 2 * within.sum(0)  # over all s != s'
    spread = pairs / (samples * (samples - 1)) / 2 if samples > 1 else within[0]
    found = EnergyScore().losses(draws, y, HeteroscedasticNormal())
    torch.testing.assert_close(found, torch.from_numpy(error - spread))


def test_the_energy_score_of_noisy_classes_is_its_sum_over_one_hot_vectors() -> None:
    p, corners = LOGITS.softmax(-1), torch.eye(4, dtype=torch.float64)
    distance = torch.cdist(corners, corners)
    error = torch.einsum("sbk,kb->b", p, distance[:, CLASSES]) / 6
    pairs = torch.einsum("sbk,tbl,kl->stb", p, p, distance)
    pairs[torch.arange(6), torch.arange(6)] = 0
    found = EnergyScore().losses(LOGITS, CLASSES, Categorical())
    torch.testing.assert_close(found, error - pairs.sum((0, 1)) / (2 * 6 * 5))
    own = Likelihood(lambda logits: dist.Categorical(logits=logits))
    torch.testing.assert_close(EnergyScore().losses(LOGITS, CLASSES, own), found)


def test_the_energy_score_of_one_sample_of_classes_is_its_brier_score() -> None:
    found = EnergyScore().losses(LOGITS[:1], CLASSES, Categorical())
    brier = (LOGITS[0].softmax(-1) - nn.functional.one_hot(CLASSES, 4)).square().sum(-1)
    torch.testing.assert_close(found, brier / math.sqrt(2))


@pytest.mark.parametrize("samples", [1, 2, 5])
def test_the_energy_score_of_several_noisy_numbers_is_unbiased(samples: int) -> None:
    """Forecasts N(0, I / 2) + noise N(0, I / 2) of three numbers at (1, 0, 0), against many draws;
    with one sample the forecast is the noise around its mean."""
    size = 40_000
    means = torch.randn(samples, size, 3, dtype=torch.float64) / math.sqrt(2)
    target = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).expand(size, 3)
    found = EnergyScore().losses(means, target, Normal(math.sqrt(0.5)))
    x, other = torch.randn(2, 400_000, 3, dtype=torch.float64)
    apart = (x - other).norm(dim=-1) * (1 if samples > 1 else math.sqrt(0.5))
    exact = (x - target[0]).norm(dim=-1) - apart / 2
    error = math.sqrt(found.var().item() / size + exact.var().item() / len(exact))
    assert abs(found.mean() - exact.mean()).item() < 4 * error
    without = EnsembleEnergyScore().losses(means, target, Normal(1.0)).mean()
    assert abs(without - exact.mean()).item() > 10 * error


def test_noise_belongs_to_sample_and_row() -> None:
    """Of a batch of 5 rows, a part of the rows, and a part of the samples."""
    like = torch.zeros(6, 5, 2, dtype=torch.float64)
    key = Key(3).fold("objective", 7)
    whole = StepNoise(key, range(6), range(5), 5).part(slice(None))(like, 1)
    part = StepNoise(key, range(2, 5), range(1, 4), 5).part(slice(1, None))(like[2:5, 1:4], 1)
    assert torch.equal(part, whole[2:5, 2:4])
    again = StepNoise(Key(3).fold("objective", 8), range(6), range(5), 5).part(slice(None))(like, 1)
    assert (again - whole).abs().min() > 0
    assert len(whole.unique()) == whole.numel()


def test_noise_is_drawn_anew_in_each_step() -> None:
    """A single point has no other random numbers."""
    posterior = spnb.Point(BayesianModel(nn.Linear(2, 3).double(), likelihood="normal"))
    data = torch.randn(8, 2).double(), torch.randn(8, 3).double()
    options = {"objective": EnergyScore(), "num_samples": 1}
    first, again, second = (
        spnb.gradients(posterior, data, **options, step=step)["loc"] for step in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert (first - second).abs().min() > 1e-4


@pytest.mark.parametrize("targets", [1, 3])
def test_training_with_the_energy_score_finds_the_noise(targets: int) -> None:
    """Noise of 0.3, believed to be 1.0 at the start; the residuals of least squares tell it."""
    torch.manual_seed(1)
    x = torch.randn(400, 2, dtype=torch.float64)
    y = x @ torch.randn(2, targets, dtype=torch.float64) + 0.3 * torch.randn(400, targets).double()
    model = BayesianModel(nn.Linear(2, targets).double(), likelihood=Normal(init_scale=1.0))
    fitted = spnb.fit(
        spnb.MeanField(model, init_scale=0.01), (x, y), objective=EnergyScore(temperature=0.0),
        num_samples=4, batch_size=100, epochs=150, learning_rate=0.02, schedule="cosine",
    )  # fmt: skip
    ones = torch.cat([x, torch.ones(400, 1)], 1)
    residuals = y - ones @ torch.linalg.lstsq(ones, y).solution
    expected = residuals.square().mean().sqrt().item()
    assert fitted.posterior.point.exp().item() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    ("likelihood", "kind"),
    [
        (lambda p: dist.Poisson(p.exp()), "Poisson"),
        (lambda p: dist.StudentT(3.0, p, 1.0), "StudentT"),
    ],
)
def test_the_energy_score_of_other_noise_is_refused_at_the_start(
    likelihood: Callable[[Tensor], dist.Distribution], kind: str
) -> None:
    posterior = spnb.MeanField(BayesianModel(nn.Linear(2, 1), likelihood=likelihood))
    data = torch.randn(8, 2), torch.ones(8, 1)
    with pytest.raises(ValueError, match=f"is a {kind}: use spnb.EnsembleEnergyScore"):
        spnb.fit(posterior, data, objective=EnergyScore(), augment=too_late)
    spnb.fit(posterior, data, objective=EnsembleEnergyScore())


def test_gaussian_moments_are_those_of_the_mixture() -> None:
    found = GaussianMoments().losses(MEANS, REALS, Normal(0.3))
    variance = 0.3**2 + MEANS.var(0, correction=0)
    fitted = dist.Normal(MEANS.mean(0), variance.sqrt())
    torch.testing.assert_close(found, -fitted.log_prob(REALS).sum(-1))


def test_gaussian_moments_of_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="PredictiveNLL"):
        GaussianMoments().losses(LOGITS, CLASSES, Categorical())


@pytest.mark.parametrize("objective", [GaussianMoments(), EnsembleEnergyScore()])
def test_moments_that_a_distribution_does_not_have_are_refused(objective: Objective) -> None:
    cauchy = Likelihood(lambda p: dist.Cauchy(p, 1.0))
    with pytest.raises(ValueError, match="The mean of a Cauchy distribution is not known"):
        objective.losses(MEANS, REALS, cauchy)
    posterior = spnb.MeanField(BayesianModel(nn.Linear(2, 2), likelihood=cauchy))
    with pytest.raises(ValueError, match="Cauchy"):
        spnb.fit(posterior, (REALS, REALS), objective=objective, augment=too_late)


def test_a_users_function_is_an_objective() -> None:
    def margin(predictions: Tensor, targets: Tensor) -> Tensor:
        return -predictions.mean(0)[torch.arange(5), targets]

    objective = Objective(margin, temperature=0.5)
    assert objective.temperature == 0.5 and not objective.linear_in_samples
    torch.testing.assert_close(
        objective.losses(LOGITS, CLASSES, Categorical()), margin(LOGITS, CLASSES)
    )


def test_plain_averaging_hands_on_what_the_step_knows() -> None:
    like = torch.zeros(6, 5, 2, dtype=torch.float64)
    noise = StepNoise(Key(0), range(6), range(5), 5).part(slice(None))
    plain = EnergyScore().for_pairs([6]).at_step(noise).losses(MEANS, REALS, Normal(1.0))
    wrapped = PlainAveraging(EnergyScore()).for_pairs([6]).at_step(noise)
    assert wrapped.local and wrapped.antithetic
    assert torch.equal(wrapped.losses(MEANS, REALS, Normal(1.0)), plain)
    members = MEANS + noise(like, 1)
    assert torch.equal(
        plain, EnsembleEnergyScore().for_pairs([6]).losses(members, REALS, Normal(1))
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
