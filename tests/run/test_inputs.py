"""Bad input: one sentence with the numbers and the way out, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import spnb
from tests.run.problems import problem

PoolOf = Callable[[int], spnb.WorkerPool]


def too_late(x: Tensor, generator: torch.Generator) -> Tensor:
    """An augmentation that says that a step was begun before the mistake was noticed."""
    raise AssertionError("a step was begun")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"num_samples": 0}, ValueError, "num_samples=0 must be at least 1"),
        ({"num_samples": 2.5}, TypeError, "num_samples=2.5 must be a whole number"),
        ({"batch_size": 0}, ValueError, "batch_size=0 must be at least 1"),
        ({"epochs": 0}, ValueError, "epochs=0 must be at least 1"),
        ({"epochs": -3}, ValueError, "epochs=-3 must be at least 1"),
        ({"samples_in_flight": 0}, ValueError, "samples_in_flight=0"),
        ({"learning_rate": 0}, ValueError, "learning_rate=0 must be a positive number"),
        ({"learning_rate": float("nan")}, ValueError, "learning_rate=nan"),
        ({"weight_decay": -1.0}, ValueError, "weight_decay=-1.0"),
        ({"warmup_steps": 100}, ValueError, "warmup_steps=100 must be .* below the run's 1"),
        ({"schedule": "linear"}, ValueError, "schedule='linear' is neither"),
        ({"views": "own"}, ValueError, "views='own' is neither"),
        ({"layout": spnb.Layout(2)}, ValueError, r"sample=2 × data=1 = 2 != world_size=1.*pool"),
        ({"layout": (2, 1)}, TypeError, "give a spnb.Layout or None"),
        ({"objective": torch.mean}, TypeError, r"spnb.Objective\(function\)"),
        ({"objective": spnb.Objective(lambda p, y: p)}, ValueError, r"gave \(2, 3, 3\)"),
        ({"objective": spnb.Objective(lambda p, y: 1.0)}, ValueError, "gave float"),
    ],
)
def test_bad_settings(change: dict[str, Any], error: type[Exception], message: str) -> None:
    posterior, data = problem()
    with pytest.raises(error, match=message):
        spnb.fit(posterior, data, **change, augment=too_late)


def with_nan(x: Tensor) -> Tensor:
    broken = x.clone()
    broken[3, 1] = torch.nan
    return broken


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda x, y: (x, y[:-1]), ValueError, "x has 24 rows and y has 23"),
        (lambda x, y: (x, y[0]), ValueError, "x has 24 rows and y has no"),
        (lambda x, y: (x[:0], y[:0]), ValueError, "at least one row"),
        (lambda x, y: (with_nan(x), y), ValueError, r"x holds 1 values .* index \[3, 1\]"),
        (lambda x, y: (x, y.double()), ValueError, "class labels are integers"),
        (lambda x, y: (x, y + 3), ValueError, "outside the support"),
        (lambda x, y: x, TypeError, r"a pair \(x, y\)"),
    ],
)
def test_bad_data(
    change: Callable[[Tensor, Tensor], Any], error: type[Exception], message: str
) -> None:
    posterior, (x, y) = problem()
    with pytest.raises(error, match=message):
        spnb.fit(posterior, change(x, y))


def test_targets_that_would_broadcast_are_refused() -> None:
    """y of shape [24] against predictions [24, 3] would compare every item with every other."""
    posterior, (x, y) = problem(likelihood="normal")
    with pytest.raises(ValueError, match=r"y has shape \(24,\).*ask for \(24, 3\)"):
        spnb.fit(posterior, (x, y[:, 0]))
    _, (x, y) = problem(likelihood="normal")
    y[5, 2] = torch.inf
    with pytest.raises(ValueError, match=r"y holds 1 values .* index \[5, 2\]"):
        spnb.fit(posterior, (x, y))


@pytest.mark.parametrize("rows", [1, 5])
def test_an_input_may_be_a_number_and_a_data_set_one_row(rows: int) -> None:
    net = nn.Sequential(nn.Unflatten(0, (-1, 1)), nn.Linear(1, 1))
    posterior = spnb.MeanField(spnb.BayesianModel(net, likelihood=spnb.likelihoods.Normal(1.0)))
    x, y = torch.randn(rows), torch.randn(rows, 1)
    fitted = spnb.fit(posterior, (x, y), epochs=1)
    assert spnb.predict(fitted.posterior, x, num_samples=3).shape == (3, rows, 1)


def test_no_posterior() -> None:
    with pytest.raises(TypeError, match=r"spnb.MeanField\(model\)"):
        spnb.fit(nn.Linear(2, 2), (torch.ones(2, 2), torch.ones(2)))  # type: ignore[arg-type]


class Counting(nn.Linear):
    """A net whose forward pass changes a buffer."""

    def __init__(self) -> None:
        super().__init__(12, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


class Dropping(nn.Linear):
    """A net with functional dropout."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(x), 0.5)


class Pooling(nn.Linear):
    """A net that averages over the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mean(0, keepdim=True)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Counting(), "changed the buffer 'calls'"),
        (Dropping(12, 3), "random numbers of its own"),
        (Pooling(12, 3), r"made \(1, 3\) of 2 rows"),
    ],
)
def test_nets_that_are_no_function_of_a_row(net: nn.Module, message: str) -> None:
    posterior = spnb.MeanField(spnb.BayesianModel(net))
    _, (x, y) = problem(dtype=torch.float32)
    with pytest.raises(ValueError, match=message):
        spnb.fit(posterior, (x, y))


def test_bad_input_in_a_pool_leaves_it_usable(pool_of: PoolOf) -> None:
    pool, (posterior, data) = pool_of(2), problem()
    pool.run(int)  # they have started
    for change, message in [
        ({"layout": spnb.Layout(3)}, r"sample=3 × data=1 = 3 != world_size=2"),
        ({"layout": spnb.Layout(2), "num_samples": 1}, "2 ranks along sample but num_samples=1"),
        ({"layout": spnb.Layout(data=2), "batch_size": 1}, "only 1 rows in a batch"),
        ({"layout": spnb.Layout(2), "epochs": 0}, "epochs=0"),
    ]:
        with pytest.raises(ValueError, match=message):
            pool.run(spnb.fit, posterior, data, **change, augment=too_late)
        assert pool.run(int) == [0, 0]


def test_ranks_that_were_asked_for_different_things(pool_of: PoolOf) -> None:
    posterior, data = problem()

    def disagree() -> None:
        rank = torch.distributed.get_rank()
        spnb.fit(posterior, data, layout=spnb.Layout(2), num_samples=4 + rank)

    with pytest.raises(ValueError, match=r"Rank 0 was asked for .* S=4 .*, rank 1 for .* S=5"):
        pool_of(2).run(disagree)


def explode(step: int) -> Callable[[Tensor, Tensor], Tensor]:
    """An objective that is NaN on some rank from some step on."""
    calls = iter(range(10_000))

    def objective(predictions: Tensor, targets: Tensor) -> Tensor:
        loss = predictions.square().mean((0, 2))
        return loss * torch.nan if next(calls) > step and len(targets) == 12 else loss

    return objective


def test_nan_stops_all_ranks_with_its_origin(pool_of: PoolOf) -> None:
    """Only the second data rank has 12 of the 25 rows."""
    posterior, data = problem(25)
    objective = spnb.Objective(explode(4), linear_in_samples=True)
    with pytest.raises(FloatingPointError, match=r"Step \d+, rank 1: the gradient of '0.weight'"):
        pool_of(2).run(
            spnb.fit, posterior, data, objective=objective, layout=spnb.Layout(data=2),
            num_samples=1, batch_size=25, epochs=20,
        )  # fmt: skip
    assert pool_of(2).run(int) == [0, 0]


def test_a_parameter_that_ran_away_is_named() -> None:
    posterior, data = problem()
    with torch.no_grad():
        posterior.rho[-1] = torch.inf
    with pytest.raises(FloatingPointError, match=r"'2.bias' \(rho\) is no longer finite"):
        spnb.fit(posterior, data)


def test_a_prior_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"'weight' has shape \(7,\), the parameter \(3, 2\)"):
        spnb.BayesianModel(nn.Linear(2, 3), prior=dist.Normal(torch.zeros(7), 1.0))
