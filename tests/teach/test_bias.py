"""The bias explorer: its numbers against independent ones and live ranks, and that it follows."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

import spnb
from spnb.maths.networks import mlp
from spnb.teach import datasets
from spnb.teach.explorable import Explorable
from spnb.teach.explore.bias import NLL, OBJECTIVES, SPREADS, bias_explorer, effects, second_order

Data = tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def data() -> Data:
    digits = datasets.digits()
    return digits.test_x[:12].double(), digits.test_y[:12]


@pytest.fixture(scope="module")
def posterior() -> spnb.MeanField:
    digits = datasets.digits()
    torch.manual_seed(0)
    start = spnb.MeanField(spnb.BayesianModel(mlp((64, 8, 10)).double()), init_scale=0.2)
    train = digits.train_x.double(), digits.train_y
    return spnb.fit(start, train, num_samples=2, epochs=3, learning_rate=0.03).posterior


@pytest.fixture(scope="module")
def weights(posterior: spnb.MeanField) -> Tensor:
    with torch.no_grad():
        return posterior.draw(range(16), spnb.Key(1))


def difference_of_gradients(
    posterior: spnb.MeanField, data: Data, objective: spnb.Objective, weights: Tensor, groups: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Exact and averaged loss of one set, and their gradients by a shift of the weights."""
    shift = torch.zeros(weights.shape[1], dtype=weights.dtype, requires_grad=True)
    predictions = posterior.model.predict(weights + shift, posterior.point, data[0])
    likelihood = posterior.model.likelihood
    exact = objective.losses(predictions, data[1], likelihood).mean()
    parts = [objective.losses(p, data[1], likelihood).mean() for p in predictions.chunk(groups)]
    averaged = torch.stack(parts).mean()
    found = (torch.autograd.grad(loss, shift, retain_graph=True)[0] for loss in (exact, averaged))
    return exact.detach(), averaged.detach(), *found


@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_and_gradients_are_those_of_every_set_by_itself(
    name: str, posterior: spnb.MeanField, data: Data, weights: Tensor
) -> None:
    objective = OBJECTIVES[name]
    table = effects(posterior, data, objective, weights, [1, 2, 4, 8])
    assert set(table) == {(s, w) for s in (1, 2, 4, 8) for w in (1, 2, 4, 8) if w <= s}
    for samples, groups in ((8, 4), (4, 4), (8, 1)):
        sets = weights.split(samples)
        found = [difference_of_gradients(posterior, data, objective, s, groups) for s in sets]
        exact, averaged, gradient, other = (torch.stack(each) for each in zip(*found, strict=True))
        effect, gap = table[samples, groups], (averaged - exact).tolist()
        assert effect.exact == pytest.approx(exact.mean().item(), rel=1e-9)
        assert effect.bias == pytest.approx(statistics.mean(gap), rel=1e-6, abs=1e-12)
        error = statistics.stdev(gap) / len(sets) ** 0.5
        assert effect.error == pytest.approx(error, rel=1e-6, abs=1e-12)
        length = gradient.square().sum(1).mean().sqrt()
        off = (other - gradient).square().sum(1).mean().sqrt() / length
        assert effect.off == pytest.approx(off.item(), rel=1e-6, abs=1e-9)
        assert effect.noise == pytest.approx((gradient.var(0).sum().sqrt() / length).item())
        cosines = (gradient * other).sum(1) / gradient.norm(dim=1) / other.norm(dim=1)
        angle = cosines.clamp(max=1).acos().rad2deg().mean().item()
        assert effect.angle == pytest.approx(angle, abs=1e-4)


def test_they_are_the_gradients_of_live_ranks(
    pool: spnb.WorkerPool, posterior: spnb.MeanField, data: Data
) -> None:
    objective = spnb.PredictiveNLL(temperature=0.0)
    pairs = []
    for step in (0, 1):  # two sets of four samples
        exact = spnb.gradients(posterior, data, objective=objective, num_samples=4, step=step)
        averaged = pool.run(
            spnb.gradients,
            posterior,
            data,
            objective=spnb.PlainAveraging(objective),
            layout=spnb.Layout(sample=2),
            num_samples=4,
            step=step,
        )[0]
        pairs.append((exact["loc"], averaged["loc"]))
    exact, averaged = (torch.stack(each) for each in zip(*pairs, strict=True))
    off = (averaged - exact).norm() / exact.norm()
    with torch.no_grad():
        keys = [spnb.Key(0).fold("weights", step) for step in (0, 1)]
        drawn = torch.cat([posterior.draw(range(4), key) for key in keys])
    effect = effects(posterior, data, objective, drawn, [1, 2, 4])[4, 2]
    assert effect.off > 0.01
    assert effect.off == pytest.approx(off.item(), rel=1e-9)


def test_the_formula_is_the_limit_of_little_spread(
    posterior: spnb.MeanField, data: Data, weights: Tensor
) -> None:
    with torch.no_grad():
        many = posterior.draw(range(512), spnb.Key(2)) - posterior.loc
    for alpha in (-0.5, 0.5, 1.0, 2.0):
        objective = spnb.AlphaDivergence(alpha)
        close = posterior.loc.detach() + 0.05 * many
        effect = effects(posterior, data, objective, close, [1, 2, 4, 8])[8, 4]
        assert effect.predicted is not None
        assert (effect.bias > 0) == (effect.predicted > 0) == (alpha > 0)
        assert abs(effect.bias - effect.predicted) < 0.05 * abs(effect.bias) + 3 * effect.error


def test_the_formula_knows_what_it_does_not_know(
    posterior: spnb.MeanField, data: Data, weights: Tensor
) -> None:
    predictions = posterior.model.predict(weights, posterior.point, data[0]).detach()
    seen = predictions, data[1], posterior.model.likelihood
    assert second_order(spnb.ELBO(), *seen, 8, 8) == 0
    assert second_order(spnb.PredictiveNLL(), *seen, 8, 1) == 0
    assert second_order(spnb.EnergyScore(), *seen, 8, 4) == 0
    assert second_order(spnb.EnergyScore(), *seen, 8, 8) is None
    assert second_order(spnb.GaussianMoments(), *seen, 8, 2) is None


def test_one_sample_a_group_is_the_elbo_for_every_alpha(
    posterior: spnb.MeanField, data: Data, weights: Tensor
) -> None:
    elbo = effects(posterior, data, OBJECTIVES["ELBO"], weights, [1, 4])[4, 1]
    for name in ("α = -0.5", "α = 0.5", NLL, "α = 2"):
        alone = effects(posterior, data, OBJECTIVES[name], weights, [1, 4])[4, 4]
        assert alone.averaged == pytest.approx(elbo.exact, rel=1e-12)


@pytest.fixture(scope="module")
def explorer(posterior: spnb.MeanField, data: Data) -> Explorable:
    return bias_explorer(posterior, data, draws=32, samples=4, groups=2, seed=5)


def test_words_and_picture_follow_the_controls(
    explorer: Explorable, posterior: spnb.MeanField, data: Data
) -> None:
    assert explorer.controls["samples"].options == (2, 4, 8), "four sets at least"
    with torch.no_grad():
        departures = posterior.draw(range(32), spnb.Key(5).fold("bias")) - posterior.loc
    seen = set()
    for name in OBJECTIVES:
        for spread in (SPREADS[0], SPREADS[-1]):
            table = effects(
                posterior, data, OBJECTIVES[name], posterior.loc + spread * departures, [1, 2, 4, 8]
            )
            for samples, groups in ((8, 4),) if spread < 1 else ((8, 8), (2, 2)):
                explorer.set(objective=name, spread=spread, samples=samples, groups=groups)
                assert explorer.error is None
                effect, said = table[samples, groups], explorer.summary
                assert said.startswith(f"{name}, {samples} samples in {groups} groups of ")
                losses = re.search(r"exact (\S+), averaged (\S+),", said)
                assert losses is not None
                wanted = pytest.approx([effect.exact, effect.averaged], abs=6e-5)
                assert [float(n) for n in losses.groups()] == wanted
                assert f"off by {effect.off:.1%} of" in said
                assert f"over {32 // samples} sets" in said
                seen.add(explorer.png)
    assert len(seen) == 3 * len(OBJECTIVES)


def test_the_words_name_the_side(explorer: Explorable) -> None:
    explorer.set(spread=2.0, samples=8, groups=4)
    for name, side in {NLL: "too large", "α = -0.5": "too small", "ELBO": "no bias"}.items():
        explorer.set(objective=name)
        assert explorer.summary.count(side) == 2, "both the measured and the predicted one"
    explorer.set(objective="energy score", groups=8)
    assert "the second-order formula does not apply" in explorer.summary
    explorer.set(objective=NLL, groups=1)
    assert "8 samples in 1 group of 8" in explorer.summary and "no bias" in explorer.summary


def test_there_are_no_more_groups_than_samples(explorer: Explorable) -> None:
    explorer.set(objective=NLL, samples=2, groups=8)
    assert explorer.summary.startswith(f"2 samples make 2 groups. {NLL}, 2 samples in 2 groups of")


def test_a_redrawing_follows_the_hand(
    explorer: Explorable, follows_the_hand: Callable[..., None]
) -> None:
    explorer.set(samples=8)
    follows_the_hand(partial(explorer.set, groups=groups) for groups in (1, 2, 4, 8, 4, 2))


def test_too_few_draws_are_refused(posterior: spnb.MeanField, data: Data) -> None:
    with pytest.raises(ValueError, match="draws=7 are too few: give at least 8"):
        bias_explorer(posterior, data, draws=7)
