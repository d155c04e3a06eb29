"""Fit and predict in one process: history, schedules, what is left unchanged."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import spnb
from tests.run.problems import problem


def test_training_learns_and_is_repeatable() -> None:
    posterior, data = problem(60)
    before = posterior.loc.detach().clone()
    options = {"epochs": 40, "batch_size": 20, "learning_rate": 0.03, "num_samples": 4, "seed": 1}
    fitted = spnb.fit(posterior, data, **options)
    again = spnb.fit(posterior, data, **options)
    assert torch.equal(posterior.loc, before)
    assert torch.equal(fitted.posterior.loc, again.posterior.loc)
    assert fitted.history.epochs[-1].loss < fitted.history.epochs[0].loss
    other = spnb.fit(posterior, data, **(options | {"seed": 2}))
    assert not torch.equal(fitted.posterior.loc, other.posterior.loc)


def test_the_history_tells_everything() -> None:
    posterior, data = problem(50)
    history = spnb.fit(posterior, data, epochs=2, batch_size=20, validation=data).history
    assert [record.step for record in history.steps] == list(range(6))
    assert [record.epoch for record in history.epochs] == [0, 1]
    assert set(history.epochs[1].scores) == {"accuracy", "nll", "brier", "ece"}
    assert history.bytes_per_step == 0
    first = history.steps[0]
    assert first.loss == pytest.approx(first.data_term + first.divergence / 50)
    assert first.gradient_norm > 0 and first.seconds > 0
    assert history.table()[5]["loss"] == history.loss[5]
    assert repr(history).startswith("History(2 epochs, 6 steps, last loss")


def test_the_temperature_weighs_the_divergence() -> None:
    posterior, data = problem(24)
    step = spnb.fit(posterior, data, objective=spnb.ELBO(temperature=3.0)).history.steps[0]
    assert step.loss == pytest.approx(step.data_term + 3 * step.divergence / 24)


def test_the_gradient_is_clipped() -> None:
    posterior, data = problem()
    sgd = lambda p: torch.optim.SGD(p.parameters(), lr=1.0)  # noqa: E731
    fitted = spnb.fit(posterior, data, clip_norm=0.01, optimizer=sgd)
    moved = torch.cat([fitted.posterior.loc - posterior.loc, fitted.posterior.rho - posterior.rho])
    assert moved.norm().item() == pytest.approx(0.01, rel=1e-4)
    assert fitted.history.steps[0].gradient_norm > 0.01


def test_schedules() -> None:
    posterior, data = problem()
    cosine = spnb.fit(posterior, data, batch_size=6, epochs=2, schedule="cosine").history
    rates = [record.learning_rate for record in cosine.steps]
    assert rates[0] == pytest.approx(1e-3)
    assert rates[4] == pytest.approx(0.5e-3)
    assert sorted(rates, reverse=True) == rates
    rising = spnb.fit(posterior, data, batch_size=6, epochs=2, warmup_steps=0.26).history.steps
    rates = [record.learning_rate for record in rising]
    assert rates[:3] == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3])  # 0.26 of 8 steps: two
    own = spnb.fit(
        posterior, data, batch_size=6, epochs=1,
        schedule=lambda optimizer, steps: torch.optim.lr_scheduler.StepLR(optimizer, 2),
    ).history  # fmt: skip
    rates = [record.learning_rate for record in own.steps]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4])


def test_a_step_applies_the_gradient_that_gradients_returns() -> None:
    posterior, data = problem(24)
    sgd = lambda p: torch.optim.SGD(p.parameters(), lr=1.0)  # noqa: E731
    fitted = spnb.fit(posterior, data, batch_size=24, optimizer=sgd, seed=9)
    expected = spnb.gradients(posterior, data, seed=9, step=0)
    for name, value in fitted.posterior.named_parameters():
        torch.testing.assert_close(posterior.get_parameter(name) - value, expected[name])


def test_more_samples_begin_with_the_same_ones() -> None:
    posterior, (x, _) = problem()
    few, many = (spnb.predict(posterior, x, num_samples=s) for s in (3, 9))
    torch.testing.assert_close(many[:3], few)
    in_flight = spnb.predict(posterior, x, num_samples=9, samples_in_flight=4, batch_size=7)
    torch.testing.assert_close(in_flight, many)


def test_arrays_and_lower_precision_are_taken() -> None:
    posterior, (x, y) = problem()
    as_arrays = spnb.fit(posterior, [x.float().numpy(), y.numpy()])
    assert as_arrays.posterior.loc.dtype == torch.float64


def test_regression_scores() -> None:
    posterior, (x, y) = problem(likelihood="normal")
    scores = spnb.score(posterior, (x, y), num_samples=5)
    draws = spnb.predict(posterior, x, num_samples=5)
    mean = draws[..., :3].mean(0)
    assert scores["rmse"] == pytest.approx((mean - y).square().mean().sqrt().item())
    logs = posterior.model.likelihood(draws).log_prob(y).sum(-1)
    assert scores["nll"] == pytest.approx(-logs.exp().mean(0).log().mean().item())
    energies = {"energy_score", "ensemble_energy_score"}
    assert set(scores) == {"rmse", "nll", "crps", "coverage_90"} | energies


def test_exact_objectives_keep_no_graphs_when_recomputing() -> None:
    """With ``recompute`` only one sample's graph is alive at a time, whatever S."""
    alive, most = 0, 0

    class Watched(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            nonlocal alive, most
            if torch.is_grad_enabled() or x.requires_grad:
                alive += 1
                most = max(most, alive)
            return x.clone()

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            nonlocal alive
            alive -= 1
            return gradient

    class Net(torch.nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            outputs = super().forward(x)
            return Watched.apply(outputs) if outputs.requires_grad else outputs

    posterior, data = problem(net=lambda: Net(12, 3))
    for recompute, expected in ((True, 1), (False, 8)):
        alive = most = 0
        spnb.gradients(
            posterior, data, objective=spnb.PredictiveNLL(), num_samples=8, recompute=recompute
        )
        assert (alive, most) == (0, expected)


def test_the_surface_is_what_it_says() -> None:
    assert set(spnb.__all__) <= set(dir(spnb))
    modules = {name for name in spnb.__all__ if not callable(getattr(spnb, name))}
    assert modules == {"likelihoods", "machines", "priors", "scores"}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = spnb.nothing
