"""Likelihoods: densities against torch, noise of every kind, and targets that do not fit."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import spnb
from spnb.maths import likelihoods
from spnb.maths.models import BayesianModel


def too_late(x: Tensor, generator: torch.Generator) -> Tensor:
    """An augmentation that says that a step was begun before the mistake was noticed."""
    raise AssertionError("a step was begun")


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
        ("categorical", torch.zeros(1, 4, 3), torch.tensor([0, 1, 2, 3]), "from 0 to 3, .* 0 to 2"),
        ("categorical", torch.zeros(1, 3, 3), torch.tensor([0, -1, 2]), r"from -1 .*missing=-1"),
        ("categorical", torch.zeros(1, 4, 3), torch.ones(4).bool(), "2 classes .* 3 logits"),
        ("categorical", torch.zeros(1, 4, 1), torch.zeros(4).int(), "one logit.*Bernoulli"),
        ("categorical", torch.zeros(1, 4), torch.zeros(4).int(), "gives one number for a row"),
        ("categorical", torch.zeros(1, 4, 3), torch.zeros(4, 3).int(), r"ask for \(4,\)"),
        ("categorical", torch.zeros(1, 4, 3), torch.zeros(1).int(), r"ask for \(4,\)"),
        ("categorical", torch.zeros(1, 4, 3, 5, 6), torch.zeros(4, 5, 6).int(), r"dim=-3"),
        ("categorical", torch.zeros(1, 4, 3, 7), torch.zeros(4, 1, 7).int(), r"dim=-2"),
        ("heteroscedastic", torch.zeros(1, 4, 2), torch.zeros(4, 2), r"ask for \(4, 1\)"),
        ("heteroscedastic", torch.zeros(1, 4), torch.zeros(4), "gives one number for a row"),
        ("normal", torch.zeros(1, 4, 6), torch.zeros(4), r"ask for \(4, 3\)"),
        ("normal", torch.zeros(1, 4, 6), torch.zeros(3, 4), r"ask for \(4, 3\)"),
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


@pytest.mark.parametrize(
    ("likelihood", "predictions", "y"),
    [
        (likelihoods.Categorical(), torch.randn(3, 4, 5), torch.tensor([0, 4, 2, 1])),
        (likelihoods.Normal(0.5), torch.randn(3, 4, 1), torch.randn(4, 1)),
        (likelihoods.Normal(0.5), torch.randn(3, 4), torch.randn(4)),
        (likelihoods.HeteroscedasticNormal(), torch.randn(3, 4, 2), torch.randn(4, 1)),
        (
            likelihoods.named(lambda p: dist.Poisson(p.exp())),
            torch.randn(3, 4, 1),
            torch.ones(4, 1),
        ),
        (
            likelihoods.named(lambda p: dist.Normal(p, 1.0).to_event(1)),
            torch.randn(3, 4, 1),
            torch.randn(4, 1),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_column_is_the_same_as_a_vector(
    likelihood: likelihoods.Likelihood, predictions: Tensor, y: Tensor
) -> None:
    expected = likelihood.log_likelihood(predictions, y)
    for shaped in (y.reshape(4), y.reshape(4, 1), y.reshape(4, 1, 1)):
        assert torch.equal(likelihood.targets(shaped, predictions[:1]), y)
        assert torch.equal(likelihood.log_likelihood(predictions, shaped), expected)
        assert torch.equal(
            likelihood.encode(shaped, predictions), likelihood.encode(y, predictions)
        )
        total = likelihood.total_nll(predictions, shaped)
        torch.testing.assert_close(total, -expected.sum())


def test_what_would_broadcast_is_refused_by_every_way_to_a_density() -> None:
    """y [4] against predictions [4, 4], which torch would compare row by column."""
    predictions, y = torch.randn(2, 4, 4), torch.randn(4)
    for likelihood in (likelihoods.Normal(1.0), likelihoods.named(lambda p: dist.Laplace(p, 1.0))):
        for judge in (likelihood.log_likelihood, likelihood.total_nll):
            with pytest.raises(ValueError, match=r"y has shape \(4,\) .* ask for \(4, 4\)"):
                judge(predictions, y)
        for objective in (spnb.EnergyScore(), spnb.EnsembleEnergyScore(), spnb.GaussianMoments()):
            with pytest.raises(ValueError, match=r"y has shape \(4,\)|is a Laplace"):
                objective.losses(predictions, y, likelihood)
    with pytest.raises(ValueError, match=r"y has shape \(4, 3\)"):
        likelihoods.Categorical().log_likelihood(torch.randn(4, 4, 3), torch.zeros(4, 3).long())


INTEGERS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]
INTEGERS += [getattr(torch, name) for name in ("uint16", "uint32", "uint64")]


@pytest.mark.parametrize("dtype", [*INTEGERS, torch.bool])
def test_labels_of_every_integer_type_are_the_same(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    classes = 2 if dtype == torch.bool else 3
    posterior = spnb.MeanField(BayesianModel(nn.Linear(4, classes)))
    x, y = torch.randn(20, 4), torch.arange(20) % classes
    for objective in (spnb.ELBO(), spnb.EnergyScore(), spnb.EnsembleEnergyScore()):
        options = {"objective": objective, "num_samples": 2}
        fitted, expected = (
            spnb.fit(posterior, (x, labels), **options, validation=(x, labels)).history
            for labels in (y.to(dtype), y)
        )
        assert fitted.loss == expected.loss
        assert fitted.epochs[-1].scores == expected.epochs[-1].scores
    assert spnb.score(posterior, (x, y.to(dtype))) == spnb.score(posterior, (x, y))
    draws = spnb.predict(posterior, x, num_samples=4)
    likelihood = posterior.model.likelihood
    curves = [spnb.scores.reliability(draws, labels, likelihood) for labels in (y.to(dtype), y)]
    assert torch.equal(curves[0].accuracy, curves[1].accuracy)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float64])
def test_truth_values_are_targets_of_a_bernoulli(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = BayesianModel(nn.Linear(4, 1), likelihood=lambda p: dist.Bernoulli(logits=p))
    x, y = torch.randn(20, 4), (torch.arange(20) % 2).to(dtype)
    fitted = spnb.fit(spnb.MeanField(model), (x, y), num_samples=2, validation=(x, y))
    found = spnb.score(fitted.posterior, (x, y), num_samples=8)
    p = spnb.predict(fitted.posterior, x, num_samples=8).sigmoid().mean(0).squeeze(-1)
    truth = y.float()
    assert found["rmse"] == pytest.approx((p - truth).square().mean().sqrt().item())
    assert found["nll"] == pytest.approx(nn.functional.binary_cross_entropy(p, truth).item())
    assert set(found) == {"rmse", "nll", "ensemble_energy_score"}
    trace = pyro.poutine.trace(model).get_trace(x, y)  # the Pyro model takes them as well
    assert trace.nodes["y"]["fn"].log_prob(trace.nodes["y"]["value"]).shape == (20,)


@pytest.mark.parametrize("y", [["a", "b"] * 4, np.array(["a", "b"] * 4), [["a"], ["b"]] * 4])
def test_words_are_no_labels(y: object) -> None:
    posterior = spnb.MeanField(BayesianModel(nn.Linear(4, 2)))
    with pytest.raises(TypeError, match=r"y holds strings such as 'a': number the classes.*unique"):
        spnb.fit(posterior, (torch.randn(8, 4), y))
    y = np.unique(np.ravel(y), return_inverse=True)[1]  # as it says
    spnb.fit(posterior, (torch.randn(8, 4), y), num_samples=1)


class Squeezed(nn.Module):
    """A net that returns [B] where most return [B, 1]."""

    def __init__(self, dim: int | None) -> None:
        super().__init__()
        self.linear, self.dim = nn.Linear(2, 1), dim

    def forward(self, x: Tensor) -> Tensor:
        out = self.linear(x)
        return out.squeeze() if self.dim is None else out.squeeze(self.dim)


@pytest.mark.parametrize("likelihood", ["normal", likelihoods.Normal(0.3)])
@pytest.mark.parametrize("rows", [2, 5, 65])
@pytest.mark.parametrize("dim", [-1, None])
def test_a_net_of_one_number_a_row_needs_no_dimension_for_it(
    likelihood: str | likelihoods.Likelihood, rows: int, dim: int | None
) -> None:
    """Batches of 4, the last of which may hold one row; the same run as with [B, 1]."""
    net = Squeezed(dim)
    plain = nn.Sequential(nn.Linear(2, 1))
    plain[0].load_state_dict(net.linear.state_dict())
    x, y = torch.randn(rows, 2), torch.randn(rows)
    runs = []
    for each, target in ((net, y), (plain, y.unsqueeze(1)), (net, y.unsqueeze(1))):
        posterior = spnb.MeanField(BayesianModel(each, likelihood=likelihood))
        options = {"num_samples": 2, "batch_size": 4}
        fitted = spnb.fit(posterior, (x, target), **options, validation=(x, target))
        draws = spnb.predict(fitted.posterior, x, num_samples=2, batch_size=4)
        scores = fitted.history.epochs[-1].scores
        runs.append((fitted.history.loss, list(scores.values()), draws.flatten(1)))
    for run in (runs[0], runs[2]):
        for found, expected in zip(run, runs[1], strict=True):
            torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected))


# -- several labels an item ---------------------------------------------------------------------


class Pixels(nn.Module):
    """Logits of 3 classes for each of 4 x 5 pixels, with the classes last or in dimension 1."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.conv, self.first = nn.Conv2d(2, 3, 1), first

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        return out if self.first else out.movedim(1, -1)


@pytest.mark.parametrize("objective", [spnb.ELBO(), spnb.EnergyScore(), spnb.EnsembleEnergyScore()])
def test_classes_of_pixels_train_and_are_scored(objective: spnb.Objective) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(6, 2, 4, 5), torch.randint(0, 3, (6, 4, 5))
    last = Pixels(first=False)
    first = Pixels(first=True)
    first.load_state_dict(last.state_dict())
    runs = []
    for net, likelihood in (
        (last, likelihoods.Categorical()),
        (first, likelihoods.Categorical(dim=-3)),
    ):
        start = spnb.MeanField(BayesianModel(net, likelihood=likelihood), init_scale=0.3)
        options = {"objective": objective, "num_samples": 3, "validation": (x, y)}
        fitted = spnb.fit(start, (x, y), **options)
        draws = spnb.predict(fitted.posterior, x, num_samples=3)
        runs.append((fitted.history.loss, fitted.history.epochs[-1].scores, draws))
        found = spnb.score(fitted.posterior, (x, y.unsqueeze(1)), num_samples=3)  # as masks come
        logits = draws if likelihood.dim == -1 else draws.movedim(2, -1)
        p = logits.softmax(-1).mean(0)
        assert found["accuracy"] == pytest.approx((p.argmax(-1) == y).double().mean().item())
        one_hot = nn.functional.one_hot(y, 3)
        assert found["brier"] == pytest.approx((p - one_hot).square().sum(-1).mean().item())
        logs = logits.log_softmax(-1).gather(-1, y.expand(3, *y.shape)[..., None]).sum((2, 3, 4))
        expected = -(logs.logsumexp(0) - math.log(3)).mean().item()
        assert found["nll"] == pytest.approx(expected)
        flat = spnb.scores.classification(
            logits.flatten(1, 3), y.flatten(), likelihoods.Categorical()
        )
        assert found["ece"] == pytest.approx(flat["ece"])
        entropy = spnb.scores.predictive_entropy(draws, likelihood)
        assert entropy.shape == spnb.scores.mutual_information(draws, likelihood).shape == y.shape
        torch.testing.assert_close(
            entropy, torch.special.entr(p.double()).sum(-1), rtol=1e-5, atol=0
        )
    torch.testing.assert_close(torch.tensor(runs[0][0]), torch.tensor(runs[1][0]))
    assert runs[0][1] == pytest.approx(runs[1][1], rel=1e-5)
    posterior = spnb.MeanField(BayesianModel(first))
    with pytest.raises(ValueError, match=r"3 classes in dimension 1: use .*Categorical\(dim=-3\)"):
        spnb.fit(posterior, (x, y))


def test_the_energy_score_of_pixels_is_the_sum_of_theirs() -> None:
    logits, y = torch.randn(4, 3, 2, 5), torch.randint(0, 5, (3, 2))
    found = spnb.EnergyScore().losses(logits, y, likelihoods.Categorical())
    each = spnb.EnergyScore().losses(logits.flatten(1, 2), y.flatten(), likelihoods.Categorical())
    torch.testing.assert_close(found, each.view(3, 2).sum(1))


# -- likelihoods of one's own -------------------------------------------------------------------


class TwoTasks(likelihoods.Likelihood):
    """A class and a number for each item: [B, 2] against logits and a mean, [B, 4]."""

    def log_likelihood(self, predictions: Tensor, targets: Tensor) -> Tensor:
        label = targets[:, 0].long().expand(predictions.shape[:2])
        classes = dist.Categorical(logits=predictions[..., :3]).log_prob(label)
        return classes + dist.Normal(predictions[..., 3], 1.0).log_prob(targets[:, 1])


def test_a_likelihood_without_a_distribution_has_the_log_score_alone() -> None:
    posterior = spnb.MeanField(BayesianModel(nn.Linear(2, 4), likelihood=TwoTasks()))
    x, y = torch.randn(9, 2), torch.stack([torch.arange(9) % 3, torch.randn(9)], 1)
    fitted = spnb.fit(posterior, (x, y), num_samples=2, validation=(x, y))
    draws = spnb.predict(fitted.posterior, x, num_samples=4)
    logs = TwoTasks().log_likelihood(draws, y).logsumexp(0) - math.log(4)
    found = spnb.score(fitted.posterior, (x, y), num_samples=4)
    assert found == {"nll": pytest.approx(-logs.mean().item())}
    assert set(fitted.history.epochs[-1].scores) == {"nll"}
    for run in (
        lambda: spnb.fit(posterior, (x, y), objective=spnb.EnergyScore(), augment=too_late),
        lambda: spnb.fit(posterior, (x, y), objective=spnb.GaussianMoments(), augment=too_late),
        lambda: spnb.fit(spnb.Laplace(posterior.model), (x, y), augment=too_late),
        lambda: spnb.scores.crps(draws, y, TwoTasks()),
        lambda: pyro.poutine.trace(posterior.model).get_trace(x),
    ):
        with pytest.raises(NotImplementedError, match=r"TwoTasks .* define its forward"):
            run()


@pytest.mark.parametrize(
    "likelihood", [lambda p: dist.Cauchy(p, 1.0), lambda p: dist.StudentT(1.0, p, 1.0)]
)
def test_a_distribution_without_a_mean_has_the_log_score_alone(
    likelihood: Callable[[Tensor], dist.Distribution],
) -> None:
    posterior = spnb.MeanField(BayesianModel(nn.Linear(2, 1), likelihood=likelihood))
    x, y = torch.randn(9, 2), torch.randn(9)
    draws = spnb.predict(posterior, x, num_samples=4)
    logs = likelihood(draws).log_prob(y.unsqueeze(1)).squeeze(-1)
    expected = -(logs.logsumexp(0) - math.log(4)).mean().item()
    assert spnb.score(posterior, (x, y), num_samples=4) == {"nll": pytest.approx(expected)}


def test_a_curvature_that_is_not_known_is_refused_before_training() -> None:
    student = BayesianModel(nn.Linear(2, 1), likelihood=lambda p: dist.StudentT(3.0, p, 1.0))
    with pytest.raises(ValueError, match="no KL divergence between two StudentT"):
        spnb.fit(spnb.Laplace(student), (torch.randn(9, 2), torch.randn(9)), augment=too_late)


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
