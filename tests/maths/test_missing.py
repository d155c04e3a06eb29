"""Missing targets: they add nothing to losses, gradients and curvature, and no score sees them."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import spnb
from spnb.maths import scores
from spnb.maths.likelihoods import Categorical, HeteroscedasticNormal, Likelihood, Normal
from spnb.maths.models import BayesianModel
from spnb.maths.potential import potential

NAN = float("nan")
OBJECTIVES = [
    spnb.ELBO(),
    spnb.PredictiveNLL(),
    spnb.EnergyScore(),
    spnb.EnsembleEnergyScore(),
    spnb.GaussianMoments(),
]


def too_late(x: Tensor, generator: torch.Generator) -> Tensor:
    """An augmentation that says that a step was begun before the mistake was noticed."""
    raise AssertionError("a step was begun")


def gappy(*shape: int, mark: float = NAN) -> tuple[Tensor, Tensor, Tensor]:
    """Targets, the same with two fifths of them marked, and which are left; row 0 has none."""
    generator = torch.Generator().manual_seed(1)
    y = torch.randn(shape, generator=generator, dtype=torch.float64)
    there = torch.rand(shape, generator=generator) > 0.4
    there[0] = False
    return y, y.masked_fill(~there, mark), there


# -- densities ----------------------------------------------------------------------------------


def positive(p: Tensor) -> dist.Distribution:
    return dist.LogNormal(p, 1.0)


def counts(p: Tensor) -> dist.Distribution:
    return dist.Poisson(p.exp())


def shares(p: Tensor) -> dist.Distribution:
    return dist.Beta(p.exp(), 2.0)


@pytest.mark.parametrize(
    ("make", "mark", "of"),
    [
        (lambda m: Normal(0.3, missing=m), NAN, lambda y: y),
        (lambda m: Normal(0.3, missing=m), -99.9, lambda y: y),
        (lambda m: HeteroscedasticNormal(missing=m), NAN, lambda y: y),
        (lambda m: HeteroscedasticNormal(dim=-3, missing=m), NAN, lambda y: y),
        (lambda m: Likelihood(positive, missing=m), NAN, lambda y: y.exp()),
        (lambda m: Likelihood(counts, missing=m), -1, lambda y: y.abs().round()),
        (lambda m: Likelihood(counts, missing=m), NAN, lambda y: y.abs().round()),
        (lambda m: Likelihood(shares, missing=m), NAN, lambda y: y.sigmoid()),
        (lambda m: Likelihood(lambda p: dist.Bernoulli(logits=p), missing=m), -1, torch.gt),
    ],
)
def test_missing_targets_add_nothing(
    make: Callable[[float], Likelihood], mark: float, of: Callable[[Tensor], Tensor]
) -> None:
    """Value and gradient are those of the others, each judged by itself."""
    likelihood, (y, _, there) = make(mark), gappy(6, 2, 3)
    y = (y > 0).double() if of is torch.gt else of(y)
    known = y.masked_fill(~there, mark)
    extra = isinstance(likelihood, HeteroscedasticNormal)
    shape = [4, 6, 2, 3]
    if extra:
        shape[likelihood.dim] *= 2
    predictions = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    whole = make(None)(predictions).log_prob(y)
    expected = whole.masked_fill(~there, 0).flatten(2).sum(2)
    found = likelihood.log_likelihood(predictions, known)
    torch.testing.assert_close(found, expected)
    assert (found[:, 0] == 0).all()
    weights = torch.randn_like(found)
    gradients = [
        torch.autograd.grad((each * weights).sum(), predictions)[0] for each in (found, expected)
    ]
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(likelihood.total_nll(predictions, known), -expected.sum())


@pytest.mark.parametrize("mark", [-1, -100, 7])
def test_missing_labels_add_nothing(mark: int) -> None:
    """By torch's own cross entropy, which leaves labels out; per pixel, classes last or not."""
    logits = torch.randn(3, 6, 4, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 5, (6, 4)).masked_fill(~gappy(6, 4)[2], mark)
    expected = -torch.stack(
        [
            nn.functional.cross_entropy(
                each.movedim(-1, 1), labels, reduction="none", ignore_index=mark
            ).sum(1)
            for each in logits
        ]
    )
    for likelihood, given in (
        (Categorical(missing=mark), logits),
        (Categorical(missing=mark, dim=-2), logits.movedim(-1, -2)),
    ):
        for kind in (labels, labels.int()):
            found = likelihood.log_likelihood(given, kind)
            torch.testing.assert_close(found, expected)
            torch.testing.assert_close(likelihood.total_nll(given, kind), -expected.sum())
            gradients = [
                torch.autograd.grad(e.sum(), logits, retain_graph=True)[0]
                for e in (found, expected)
            ]
            torch.testing.assert_close(*gradients)


class Capped(Normal):
    """Which targets count is decided by the likelihood: those below 1."""

    def observed(self, targets: Tensor) -> Tensor:
        return targets < 1


def test_which_targets_count_may_be_a_rule_of_ones_own() -> None:
    y, _, _ = gappy(6, 2)
    predictions = torch.randn(3, 6, 2, dtype=torch.float64)
    expected = dist.Normal(predictions, 0.3).log_prob(y).masked_fill(y >= 1, 0).sum(2)
    torch.testing.assert_close(Capped(0.3).log_likelihood(predictions, y), expected)
    found = scores.evaluate(predictions, y, Capped(0.3))
    marked = scores.evaluate(predictions, y.masked_fill(y >= 1, NAN), Normal(0.3, missing=NAN))
    assert found == pytest.approx(marked, nan_ok=False)


# -- objectives and training --------------------------------------------------------------------


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("targets", [1, 3])
def test_losses_of_items_without_targets_are_zero_and_others_unchanged(
    objective: spnb.Objective, targets: int
) -> None:
    y, known, there = gappy(6, targets)
    there[1], known[1] = True, y[1]
    likelihood = HeteroscedasticNormal(missing=NAN)
    predictions = torch.randn(4, 6, 2 * targets, dtype=torch.float64, requires_grad=True)
    generator = torch.Generator()
    step = objective.at_step(
        lambda like, copies: torch.randn(
            like.shape, generator=generator.manual_seed(0), dtype=like.dtype
        )
    )
    found = step.losses(predictions, known, likelihood)
    full = step.losses(predictions, y, HeteroscedasticNormal())
    assert (found[~there.any(1)] == 0).all()
    torch.testing.assert_close(found[1], full[1])
    if targets == 3:  # an item of which one number is left is judged by that
        known[2] = torch.tensor([NAN, 0.5, NAN])
        kept = predictions[:, :, [1, 4]]
        alone = objective.losses(kept, torch.full((6, 1), 0.5).double(), HeteroscedasticNormal())[2]
        found = step.losses(predictions, known, likelihood)
        if not isinstance(objective, spnb.EnergyScore):  # drawn here, in closed form there
            torch.testing.assert_close(found[2], alone)
    (gradient,) = torch.autograd.grad(found.sum(), predictions)
    assert torch.isfinite(gradient).all()
    gone = ~torch.cat([~known.isnan()] * 2, 1)
    assert (gradient[:, gone] == 0).all()


@pytest.mark.parametrize("objective", [spnb.EnergyScore(), spnb.EnsembleEnergyScore()])
def test_losses_of_missing_labels_are_zero(objective: spnb.Objective) -> None:
    logits = torch.randn(4, 5, 3, requires_grad=True)
    labels = torch.tensor([0, -1, 2, -1, 1])
    found = objective.losses(logits, labels, Categorical(missing=-1))
    full = objective.losses(logits, labels.abs(), Categorical())
    torch.testing.assert_close(found, full.masked_fill(labels < 0, 0))
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert (gradient[:, labels < 0] == 0).all() and torch.isfinite(gradient).all()


def curve() -> tuple[Tensor, Tensor]:
    """120 rows of three curves with little noise."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(120, 1, generator=generator) * 4 - 2
    y = torch.sin(1.5 * x) + 0.1 * torch.randn(120, 1, generator=generator)
    return x, torch.cat([y, 2 * y, -y], 1)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 3))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_training_does_not_depend_on_how_missing_targets_are_marked(
    objective: spnb.Objective,
) -> None:
    x, y = curve()
    gone = torch.rand(y.shape, generator=torch.Generator().manual_seed(1)) < 0.4
    runs = []
    for mark in (NAN, -99.0, 1e6):
        likelihood = Normal(missing=mark)
        posterior = spnb.MeanField(BayesianModel(net(), likelihood=likelihood))
        data = x, y.masked_fill(gone, mark)
        options = {"objective": objective, "num_samples": 3, "validation": data, "epochs": 2}
        fitted = spnb.fit(posterior, data, **options)
        runs.append((fitted.history.loss, fitted.history.epochs[-1].scores))
    assert runs[0] == runs[1] == runs[2]
    assert all(math.isfinite(loss) for loss in runs[0][0])


def test_a_gappy_training_finds_the_curve_and_its_scores() -> None:
    x, y = curve()
    gone = torch.rand(y.shape, generator=torch.Generator().manual_seed(1)) < 0.4
    likelihood = Normal(0.1, missing=NAN)
    start = spnb.MeanField(BayesianModel(net(), likelihood=likelihood))
    data = x, y.masked_fill(gone, NAN)
    fitted = spnb.fit(start, data, num_samples=4, epochs=150, learning_rate=0.02).posterior
    mean = spnb.predict(fitted, x, num_samples=64).mean(0)
    assert (mean - y).square().mean().sqrt() < 0.25
    found = spnb.score(fitted, data, num_samples=64)
    expected = (mean - y)[~gone].square().mean().sqrt().item()
    assert found["rmse"] == pytest.approx(expected, rel=1e-5)


# -- scores -------------------------------------------------------------------------------------


def test_scores_of_numbers_are_those_of_the_observed_ones() -> None:
    """Each target by itself, as if the others were never there."""
    y, known, there = gappy(30, 3)
    draws = torch.randn(5, 30, 6, dtype=torch.float64)
    likelihood = HeteroscedasticNormal(missing=NAN)
    alone = torch.stack([part[:, there] for part in draws.chunk(2, -1)], -1)  # [S, M, 2]
    seen = alone, y[there].unsqueeze(1), HeteroscedasticNormal()
    expected = scores.evaluate(*seen)
    found = scores.evaluate(draws, known, likelihood)
    for name in ("rmse", "crps", "coverage_90"):
        assert found[name] == pytest.approx(expected[name], rel=1e-12), name
    for score in (scores.crps, scores.pit):
        each = score(draws, known, likelihood)
        assert torch.equal(each.isnan(), ~there)
        torch.testing.assert_close(each[there], score(*seen).flatten())
    loss = scores.pinball(draws, known, likelihood, (0.1, 0.7))
    torch.testing.assert_close(loss[:, there], scores.pinball(*seen, (0.1, 0.7)).flatten(1))
    assert torch.equal(loss.isnan(), ~there.expand(2, -1, -1))
    inside = (scores.pit(draws, y, HeteroscedasticNormal()) - 0.5).abs() <= 0.45
    places = [inside[there[:, place], place].double().mean() for place in range(3)]
    torch.testing.assert_close(scores.coverage(draws, known, likelihood), torch.stack(places))


def test_scores_of_items_are_those_of_items_with_targets() -> None:
    y, known, there = gappy(30, 3)
    draws = torch.randn(5, 30, 3, dtype=torch.float64)
    found = scores.evaluate(draws, known, Normal(0.4, missing=NAN))
    logs = dist.Normal(draws, 0.4).log_prob(y).masked_fill(~there, 0).sum(-1)
    rows = there.any(1)
    assert not rows.all()
    nll = -(logs.logsumexp(0) - math.log(5))[rows].mean().item()
    assert found["nll"] == pytest.approx(nll, rel=1e-12)
    each = []
    for row in rows.nonzero().flatten():
        members, target = draws[:, row][:, there[row]], y[row][there[row]]
        pairs = torch.cdist(members, members).sum() / (5 * 4)
        each.append((members - target).norm(dim=-1).mean() - pairs / 2)
    expected = torch.stack(each)
    ensemble = scores.ensemble_energy_score(draws, known, Normal(0.4, missing=NAN))
    torch.testing.assert_close(ensemble[rows], expected)
    assert torch.equal(ensemble.isnan(), ~rows)
    assert found["ensemble_energy_score"] == pytest.approx(expected.mean().item())
    whole = scores.energy_score(draws, y, Normal(0.4))
    some = scores.energy_score(draws, known, Normal(0.4, missing=NAN))
    assert torch.equal(some.isnan(), ~rows)
    torch.testing.assert_close(some[there.all(1)], whole[there.all(1)])


def test_scores_of_labels_are_those_of_the_observed_ones() -> None:
    there = gappy(40, 3)[2]
    draws, labels = torch.randn(4, 40, 3, 5), torch.randint(0, 5, (40, 3))
    known = labels.masked_fill(~there, -1)
    found = scores.evaluate(draws, known, Categorical(missing=-1))
    expected = scores.evaluate(draws[:, there], labels[there], Categorical())
    for name in ("accuracy", "brier", "ece"):
        assert found[name] == pytest.approx(expected[name]), name
    curves = [
        scores.reliability(draws, known, Categorical(missing=-1)),
        scores.reliability(draws[:, there], labels[there], Categorical()),
    ]
    for name in ("confidence", "accuracy", "count"):
        torch.testing.assert_close(*(getattr(each, name) for each in curves))


def test_scores_of_fields_leave_out_cells_with_their_weight() -> None:
    y, known, there = gappy(6, 2, 4, 5)
    there[0, :, 0] = True
    known = y.masked_fill(~there, NAN)
    there[3], known[3] = False, NAN
    draws = torch.randn(5, 6, 2, 4, 5, dtype=torch.float64)
    area = torch.tensor([0.4, 0.8, 1.2, 1.6], dtype=torch.float64).unsqueeze(1)
    weights = (area * there).sum((0, 2, 3))
    likelihood = Normal(0.4, missing=NAN)
    squares = (draws.mean(0) - y).square()
    error = ((area * there * squares).sum((0, 2, 3)) / weights).sqrt()
    torch.testing.assert_close(scores.weighted_rmse(draws, known, likelihood, area), error)
    variance = (6 / 5 * draws.var(0) + 0.16) * area * there
    spread = (variance.sum((0, 2, 3)) / weights).sqrt()
    found = scores.spread_skill(draws, known, likelihood, area)
    torch.testing.assert_close(found, spread / error)
    usual = torch.full((4, 5), 0.2, dtype=torch.float64)
    departures = [((each - usual) * there) for each in (draws.mean(0), y)]
    one, other = (each * area.sqrt() for each in departures)
    cosines = (one * other).sum((-1, -2)) / (one.norm(dim=(-1, -2)) * other.norm(dim=(-1, -2)))
    expected = cosines[[0, 1, 2, 4, 5]].mean(0)
    found = scores.anomaly_correlation(draws, known, likelihood, area, usual)
    torch.testing.assert_close(found, expected)


# -- methods that look at the likelihood themselves ---------------------------------------------


def test_the_curvature_of_a_linear_model_counts_the_observed_rows() -> None:
    """Of each output's weights: sum of x x' over its observed rows, by its noise, and the prior."""
    torch.manual_seed(0)
    x = torch.randn(150, 2, dtype=torch.float64)
    y, known, there = gappy(150, 3)
    linear = nn.Linear(2, 3, bias=False).double()
    model = BayesianModel(linear, dist.Normal(0.0, 2.0), Normal(0.5, missing=NAN))
    fitted = spnb.fit(spnb.Laplace(model), (x, known), epochs=1).posterior
    precision = (x.square().unsqueeze(1) * there.unsqueeze(-1)).sum(0) / 0.25 + 0.25
    torch.testing.assert_close(fitted.root, precision.rsqrt().flatten())


def test_the_curvature_of_classes_counts_the_observed_rows() -> None:
    torch.manual_seed(0)
    x, labels = torch.randn(90, 2, dtype=torch.float64), torch.randint(0, 3, (90,))
    there = torch.rand(90) > 0.4
    roots = []
    for rows, marked in ((slice(None), labels.masked_fill(~there, -1)), (there, labels[there])):
        model = BayesianModel(nn.Linear(2, 3).double(), likelihood=Categorical(missing=-1))
        with torch.no_grad():
            for parameter in model.net.parameters():
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))
        posterior = spnb.Laplace(model, structure="full")
        posterior.finish(x[rows], marked, lambda total: None, 1.0)
        roots.append(posterior.root)
    torch.testing.assert_close(*roots)


def test_hamiltonian_monte_carlo_and_pyro_see_the_observed_ones() -> None:
    torch.manual_seed(0)
    x = torch.randn(20, 2, dtype=torch.float64)
    y, known, there = gappy(20, 3)
    model = BayesianModel(nn.Linear(2, 3).double(), likelihood=Normal(0.5, missing=NAN))
    weights = torch.randn(9, dtype=torch.float64)
    values = model.unflatten(weights, model.drawn)
    predictions = x @ values["weight"].T + values["bias"]
    log_likelihood = dist.Normal(predictions, 0.5).log_prob(y)[there].sum()
    energy = potential(model, x, known)({"w": weights})
    torch.testing.assert_close(energy, weights.square().sum() / 2 - log_likelihood)
    conditioned = pyro.poutine.condition(model, values)
    for targets in (known, known.unsqueeze(-1)):
        trace = pyro.poutine.trace(conditioned).get_trace(x, targets)
        trace.compute_log_prob()
        torch.testing.assert_close(trace.nodes["y"]["log_prob_sum"], log_likelihood)


# -- what is refused ----------------------------------------------------------------------------


def test_nan_without_a_mark_says_how_to_mark_it() -> None:
    x, y = curve()
    y[3, 1] = NAN
    model = BayesianModel(net(), likelihood="normal")
    with pytest.raises(ValueError, match=r"index \[3, 1\].*Normal\(missing=float\('nan'\)\)"):
        spnb.fit(spnb.MeanField(model), (x, y))
    marked = BayesianModel(net(), likelihood=Normal(missing=float("nan")))  # as it says
    spnb.fit(spnb.MeanField(marked), (x, y))
    y[5, 0] = torch.inf
    with pytest.raises(ValueError, match=r"y holds 1 values .* index \[5, 0\]"):
        spnb.fit(spnb.MeanField(marked), (x, y))
    with pytest.raises(ValueError, match="y holds 360 targets, and all of them are missing"):
        spnb.fit(spnb.MeanField(marked), (x, torch.full_like(y, NAN)))


def test_items_that_are_judged_together_are_missing_together() -> None:
    likelihood = Likelihood(lambda p: dist.MultivariateNormal(p, torch.eye(3).to(p)), missing=NAN)
    y, known, there = gappy(6, 3)
    predictions = torch.randn(2, 6, 3, dtype=torch.float64)
    torn = int((there.any(1) != there.all(1)).sum())
    with pytest.raises(ValueError, match=f"{torn} items of y are missing in part.*MultivariateN"):
        likelihood.targets(known, predictions[:1])
    whole = y.masked_fill(~there.all(1, keepdim=True), NAN)
    found = likelihood.log_likelihood(predictions, likelihood.targets(whole, predictions[:1]))
    expected = dist.Normal(predictions, 1.0).log_prob(y).sum(-1)
    torch.testing.assert_close(found, expected.masked_fill(~there.all(1), 0))
    found = scores.evaluate(predictions, whole, likelihood)
    rows = there.all(1)
    error = (predictions.mean(0) - y)[rows].square().mean().sqrt().item()
    assert found["rmse"] == pytest.approx(error)


def test_marks_that_cannot_be_are_refused() -> None:
    for mark in (NAN, -1.5, "missing"):
        with pytest.raises(TypeError, match="missing="):
            Categorical(missing=mark)  # type: ignore[arg-type]
    for mark in (True, "nan", [1]):
        with pytest.raises(TypeError, match=r"missing=.* must be a number"):
            Normal(missing=mark)  # type: ignore[arg-type]

    class Rows(Normal):
        def observed(self, targets: Tensor) -> Tensor:
            return (targets > 0).any(1)

    posterior = spnb.MeanField(BayesianModel(net(), likelihood=Rows()))
    with pytest.raises(
        TypeError, match=r"Rows.observed gave torch.bool \(120,\) for .* \(120, 3\)"
    ):
        spnb.fit(posterior, curve(), augment=too_late)


class Masked(Normal):
    """A mask as one writes it without knowing of `observed`: -99 stands for what is missing."""

    def log_likelihood(self, predictions: Tensor, targets: Tensor) -> Tensor:
        values = self(predictions).log_prob(targets)
        return torch.where(targets < -90, torch.zeros_like(values), values).sum(-1)


class Told(Masked):
    """The same, and it says so."""

    def observed(self, targets: Tensor) -> Tensor:
        return targets >= -90


def test_a_mask_that_nothing_is_told_of_has_the_log_score_alone() -> None:
    x, y = curve()
    gone = torch.rand(120, 2, generator=torch.Generator().manual_seed(1)) < 0.4
    y[:, 1:] = y[:, 1:].masked_fill(gone, -99)
    posterior = spnb.MeanField(BayesianModel(net(), likelihood=Masked(0.1)))
    with pytest.warns(UserWarning, match="Masked has a log_likelihood of its own.*observed"):
        found = spnb.score(posterior, (x, y), num_samples=4)
    likelihood = Normal(0.1, missing=-99)
    same = spnb.MeanField(BayesianModel(net(), likelihood=likelihood))
    expected = spnb.score(same, (x, y), num_samples=4)
    assert found == {"nll": pytest.approx(expected["nll"])}
    told = spnb.MeanField(BayesianModel(net(), likelihood=Told(0.1)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert spnb.score(told, (x, y), num_samples=4) == pytest.approx(expected)
    draws = spnb.predict(posterior, x, num_samples=4)
    for objective in OBJECTIVES[2:]:
        with pytest.raises(NotImplementedError, match=r"Masked may leave some out: define its obs"):
            spnb.fit(posterior, (x, y), objective=objective, augment=too_late)
        spnb.fit(told, (x, y), objective=objective, num_samples=2)
    for run in (
        lambda: spnb.fit(spnb.Laplace(posterior.model), (x, y), augment=too_late),
        lambda: pyro.poutine.trace(posterior.model).get_trace(x, y),
        lambda: scores.crps(draws, y, Masked(0.1)),
        lambda: scores.coverage(draws, y, Masked(0.1)),
        lambda: scores.energy_score(draws, y, Masked(0.1)),
    ):
        with pytest.raises(NotImplementedError, match="Masked may leave some out"):
            run()
    spnb.fit(spnb.Laplace(copy.deepcopy(told.model)), (x, y))
