"""The traps that others fell into, each silent and plausible; every test fails if we do too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import spnb
from spnb.maths.models import BayesianModel
from spnb.parallel.keyed import Key
from tests.run.problems import Attention, problem, relative

PoolOf = Callable[[int], spnb.WorkerPool]


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_data_term_keeps_its_weight_on_more_ranks(pool_of: PoolOf, world_size: int) -> None:
    """Trap: divide the gathered prediction's gradient by W, and let the average do it again.

    The data term is then W times too small, while the loss that is reported is right. With the
    divergence switched off, the gradient of the data term stands alone.
    """
    posterior, data = problem()
    objective = spnb.PredictiveNLL(temperature=0.0)
    alone = spnb.gradients(posterior, data, objective=objective)
    layout = spnb.Layout(sample=world_size)
    found = pool_of(world_size).run(
        spnb.gradients, posterior, data, objective=objective, layout=layout
    )[0]
    ratio = (found["loc"] @ alone["loc"]) / (alone["loc"] @ alone["loc"])
    assert ratio.item() == pytest.approx(1.0, abs=1e-12)


def test_the_divergence_is_counted_once(pool_of: PoolOf) -> None:
    """Trap: every rank adds the whole divergence, and the sum counts it W times."""
    posterior, data = problem()
    for objective in (spnb.ELBO(temperature=50.0), spnb.PredictiveNLL(temperature=50.0)):
        alone = spnb.gradients(posterior, data, objective=objective)
        for layout in (spnb.Layout(2, 2), spnb.Layout(4, 1), spnb.Layout(1, 4)):
            found = pool_of(4).run(
                spnb.gradients, posterior, data, objective=objective, layout=layout
            )[0]
            assert relative(found, alone) <= 1e-12


def test_plain_averaging_is_off_where_the_objective_is_not_linear(pool_of: PoolOf) -> None:
    """Trap: -log of the mean over the *local* samples, and gradients averaged.

    On this problem, 8 samples: 11.9 % off on two ranks, 26.9 % on four. The ELBO is exact.
    """
    posterior, data = problem()
    exact = spnb.gradients(posterior, data, objective=spnb.PredictiveNLL())
    linear = spnb.gradients(posterior, data, objective=spnb.ELBO())
    off = {}
    for world_size in (2, 4):
        layout = spnb.Layout(sample=world_size)
        pool = pool_of(world_size)
        plain = spnb.PlainAveraging(spnb.PredictiveNLL())
        found = pool.run(spnb.gradients, posterior, data, objective=plain, layout=layout)[0]
        off[world_size] = relative(found, exact)
        plain = spnb.PlainAveraging(spnb.ELBO())
        found = pool.run(spnb.gradients, posterior, data, objective=plain, layout=layout)[0]
        assert relative(found, linear) <= 1e-12
    assert off == pytest.approx({2: 0.119, 4: 0.269}, rel=0.01)


def test_gradients_of_scales_use_the_noise_of_their_own_sample() -> None:
    """Trap: a noise buffer that is overwritten before the backward pass, for S > 1.

    Checked against finite differences of the loss.
    """
    posterior, data = problem(6)

    def loss_at(rho: Tensor) -> float:
        moved = spnb.MeanField(posterior.model)
        moved.load_state_dict(posterior.state_dict() | {"rho": rho})
        return spnb.fit(moved, data, num_samples=3, batch_size=6).history.loss[0]

    found = spnb.gradients(posterior, data, num_samples=3)["rho"]
    rho = posterior.rho.detach()
    for index in (0, 50, len(rho) - 1):
        step = torch.zeros_like(rho)
        step[index] = 1e-5
        difference = (loss_at(rho + step) - loss_at(rho - step)) / 2e-5
        assert found[index].item() == pytest.approx(difference, rel=1e-5, abs=1e-9)


def test_no_sample_is_lost_to_integer_division(pool_of: PoolOf) -> None:
    """Trap: 16 samples on 6 ranks become 12, fewer samples than ranks NaN."""
    posterior, data = problem()
    draws = pool_of(3).run(
        spnb.predict, posterior, data[0], num_samples=16, layout=spnb.Layout(sample=3)
    )[0]
    assert len(draws) == 16
    assert torch.equal(draws, spnb.predict(posterior, data[0], num_samples=16))
    with pytest.raises(ValueError, match="num_samples=2"):
        pool_of(3).run(spnb.predict, posterior, data[0], num_samples=2, layout=spnb.Layout(3))


def test_scores_are_those_of_the_whole_ensemble(pool_of: PoolOf) -> None:
    """Trap: scores on each rank's own samples, or batches, averaged."""
    posterior, data = problem(25)
    draws = spnb.predict(posterior, data[0], num_samples=4)
    likelihood = posterior.model.likelihood
    halves = [spnb.scores.evaluate(half, data[1], likelihood)["nll"] for half in draws.split(2)]
    scores = pool_of(2).run(
        spnb.score, posterior, data, num_samples=4, layout=spnb.Layout(sample=2)
    )[0]
    whole = -draws.softmax(-1).mean(0)[torch.arange(25), data[1]].log().mean().item()
    assert scores["nll"] == pytest.approx(whole, rel=1e-12)
    assert abs(sum(halves) / 2 - whole) > 1e-3
    by_rows = pool_of(2).run(
        spnb.score, posterior, data, num_samples=4, layout=spnb.Layout(data=2)
    )[0]
    assert by_rows["accuracy"] == pytest.approx(scores["accuracy"], abs=1e-12)


def test_weight_decay_leaves_the_scales_alone() -> None:
    """Trap: weight decay on the log-scale pulls sigma towards a constant."""
    posterior, data = problem()
    options = {"epochs": 3, "objective": spnb.ELBO(temperature=0.0), "learning_rate": 1e-9}
    free = spnb.fit(posterior, data, **options).posterior
    decayed = spnb.fit(posterior, data, weight_decay=1e6, **options).posterior
    torch.testing.assert_close(decayed.rho, free.rho)
    assert not torch.allclose(decayed.loc, free.loc, rtol=1e-4)


def test_the_warm_up_rises_in_a_straight_line() -> None:
    """Trap: a warm-up that multiplies the learning rate into itself."""
    posterior, data = problem()
    history = spnb.fit(
        posterior, data, batch_size=4, epochs=2, learning_rate=0.1, warmup_steps=4
    ).history
    rates = [record.learning_rate for record in history.steps]
    assert rates == pytest.approx([0.02, 0.04, 0.06, 0.08] + [0.1] * 8)


def test_a_sample_is_one_function_of_its_inputs() -> None:
    """Trap: local reparametrisation draws noise for each row, another model."""
    posterior, (x, _) = problem()
    twice = torch.cat([x, x])
    draws = spnb.predict(posterior, twice, num_samples=3)
    torch.testing.assert_close(draws[:, :24], draws[:, 24:])


def test_neighbouring_runs_share_no_noise() -> None:
    """Trap: seeds ``seed + step``: step 1 of run 0 is step 0 of run 1."""
    posterior, _ = problem()
    noises = [
        posterior.draw([s], Key(seed).fold("weights", step)).detach()[0, 0].item()
        for seed in range(4)
        for step in range(4)
        for s in range(4)
    ]
    assert len(set(noises)) == len(noises)


def test_every_parameter_of_the_net_is_reached() -> None:
    """A flat vector that lost a slice would leave a weight without a gradient."""
    posterior, data = problem(net=Attention)
    grads = spnb.gradients(posterior, data, objective=spnb.ELBO(temperature=0.0))
    for kind in ("loc", "rho"):
        for name, grad in BayesianModel.unflatten(grads[kind], posterior.model.drawn).items():
            assert grad.abs().sum() > 0, (kind, name)
