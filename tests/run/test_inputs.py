"""Bad input: one sentence with the numbers and the way out, and nothing left behind."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas
import pyro.distributions as dist
import pytest
import torch
from scipy.sparse import csr_matrix
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
        ({"learning_rate": 0}, ValueError, "learning_rate=0 must be above 0"),
        ({"learning_rate": float("nan")}, ValueError, "learning_rate=nan"),
        ({"learning_rate": "fast"}, TypeError, "learning_rate='fast' must be a number"),
        ({"learning_rate": None}, TypeError, "learning_rate=None must be a number"),
        ({"seed": None}, TypeError, "seed=None must be a whole number"),
        ({"seed": 0.5}, TypeError, "seed=0.5 must be a whole number"),
        ({"batch_size": True}, TypeError, "batch_size=True must be a whole number"),
        ({"clip_norm": 0}, ValueError, "clip_norm=0 must be above 0"),
        ({"clip_norm": -1.0}, ValueError, "clip_norm=-1.0 must be above 0"),
        ({"clip_norm": float("nan")}, ValueError, "clip_norm=nan must be above 0"),
        ({"weight_decay": -1.0}, ValueError, "weight_decay=-1.0"),
        ({"weight_decay": float("inf")}, ValueError, "weight_decay=inf"),
        ({"warmup_steps": -1}, ValueError, "warmup_steps=-1 must be at least 0"),
        ({"warmup_steps": 100}, ValueError, "warmup_steps=100 must be .* below the run's 1"),
        ({"schedule": "linear"}, ValueError, "schedule='linear' is neither"),
        ({"views": "own"}, ValueError, "views='own' is neither"),
        ({"layout": spnb.Layout(2)}, ValueError, r"sample=2 × data=1 = 2 != world_size=1.*pool"),
        ({"layout": (2, 1)}, TypeError, "give a spnb.Layout or None"),
        ({"objective": torch.mean}, TypeError, r"spnb.Objective\(function\)"),
        ({"objective": spnb.Objective(lambda p, y: p)}, ValueError, r"gave \(3, 4, 3\)"),
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
        (lambda x, y: (x, y + 3), ValueError, "labels from 3 to 5, outside the classes 0 to 2"),
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
        (Pooling(12, 3), r"made \(1, 3\) of 8 rows"),
    ],
)
def test_nets_that_are_no_function_of_a_row(net: nn.Module, message: str) -> None:
    posterior = spnb.MeanField(spnb.BayesianModel(net))
    _, (x, y) = problem(dtype=torch.float32)
    with pytest.raises(ValueError, match=message):
        spnb.fit(posterior, (x, y))


# -- what users hold in their hands ---------------------------------------------------------------


def test_what_fit_returns_is_a_posterior() -> None:
    posterior, (x, y) = problem()
    fitted = spnb.fit(posterior, (x, y))
    assert torch.equal(spnb.predict(fitted, x), spnb.predict(fitted.posterior, x))
    assert spnb.score(fitted, (x, y)) == spnb.score(fitted.posterior, (x, y))
    again = spnb.fit(fitted, (x, y))
    assert again.history.loss == spnb.fit(fitted.posterior, (x, y)).history.loss


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda model: model, r"is a BayesianModel; give a posterior of it, such as spnb.MeanF"),
        (lambda model: model.net, r"is a Sequential; .*spnb.MeanField\(model\) of model = spnb.Ba"),
        (lambda model: "mean field", r"is a str; give a posterior such as spnb.MeanField\(model\)"),
    ],
)
def test_what_is_no_posterior(given: Callable[[spnb.BayesianModel], Any], message: str) -> None:
    posterior, (x, y) = problem()
    wrong = given(posterior.model)
    for run in (
        lambda: spnb.fit(wrong, (x, y)),
        lambda: spnb.gradients(wrong, (x, y)),
        lambda: spnb.predict(wrong, x),
        lambda: spnb.score(wrong, (x, y)),
    ):
        with pytest.raises(TypeError, match=message):
            run()
    with pytest.raises(NotImplementedError, match=r"spnb.predict\(posterior, x"):
        posterior(x)


def test_a_posterior_is_made_of_a_model() -> None:
    for method in spnb.maths.posteriors.METHODS.values():
        with pytest.raises(TypeError, match=r"model is a Linear; .* spnb.BayesianModel\(net, "):
            method(nn.Linear(4, 3), *[1] * (method is spnb.Draws))


def losses(x: Any, y: Any, net: nn.Module | None = None, **settings: Any) -> list[float]:
    """Losses of a short run on a net of four inputs."""
    torch.manual_seed(0)
    net = net or nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    posterior = spnb.MeanField(spnb.BayesianModel(net))
    return spnb.fit(posterior, (x, y), num_samples=2, batch_size=9, **settings).history.loss


def table() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.normal(size=(18, 4)).astype("float32"), generator.integers(3, size=18)


@pytest.mark.parametrize(
    "change",
    [
        lambda x, y: (pandas.DataFrame(x, columns=list("abcd")), pandas.Series(y, range(7, 25))),
        lambda x, y: (x.astype("float64"), y.astype("int32")),
        lambda x, y: (x.tolist(), y.tolist()),
        lambda x, y: (x.astype(object), y),
        lambda x, y: (x[::-1].copy()[::-1], y),
        lambda x, y: (np.asfortranarray(x), y),
        lambda x, y: (x.astype(">f4"), y.astype(">i8")),
        lambda x, y: (x.astype(np.longdouble), y.astype("uint16")),
        lambda x, y: (np.ma.masked_array(x), y),
        lambda x, y: (torch.from_numpy(x).requires_grad_(), torch.from_numpy(y)),
    ],
)
def test_tables_and_arrays_are_what_their_numbers_are(change: Callable[..., Any]) -> None:
    x, y = table()
    expected = losses(torch.from_numpy(x), torch.from_numpy(y))
    assert losses(*change(x, y)) == expected


def test_arrays_that_must_not_be_written_to_are_read() -> None:
    x, y = table()
    x.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        losses(x, y)


def test_whole_numbers_become_real_ones_where_the_net_needs_them() -> None:
    ids = torch.randint(5, (18, 4))
    y = torch.from_numpy(table()[1])
    assert losses(ids, y) == losses(ids.float(), y)
    assert losses(ids.to(torch.uint8), y) == losses(ids.float(), y)
    assert losses(ids > 2, y) == losses((ids > 2).float(), y)
    images = torch.randint(256, (18, 1, 2, 2), dtype=torch.uint8)
    net = nn.Sequential(nn.Conv2d(1, 3, 2), nn.Flatten())
    assert losses(images, y, net) == losses(images.float(), y, net)
    embedded = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(12, 3))
    assert losses(ids, y, embedded) == losses(ids.int(), y, embedded)
    posterior = spnb.MeanField(spnb.BayesianModel(nn.Linear(4, 3)))
    assert torch.equal(spnb.predict(posterior, ids), spnb.predict(posterior, ids.float()))


@pytest.mark.parametrize(("change", "least", "most"), [(3, 3, 7), (-1, -1, 3)])
def test_numbers_must_be_in_the_table(change: int, least: int, most: int) -> None:
    """Also where the few rows that are tried hold none that are not."""
    ids, y = torch.arange(100) % 5, torch.arange(100) % 3
    ids[ids == 4] = 3
    ids[50], ids[51] = change + (4 if change > 0 else 0), 0
    net = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3))
    posterior = spnb.MeanField(spnb.BayesianModel(net))
    for run in (lambda: spnb.fit(posterior, (ids, y)), lambda: spnb.predict(posterior, ids)):
        with pytest.raises(ValueError, match=rf"from {min(least, 0)} to {most}, .* rows 0 to 4"):
            run()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda x, y: ([x, x], y), TypeError, r"x is a list of 2: give one tensor.*x\[:, :4\]"),
        (lambda x, y: ({"a": x, "b": x}, y), TypeError, r"x is a dict of \['a', 'b'\]"),
        (lambda x, y: (x, x, y), TypeError, r"a pair \(x, y\) .* not 3 parts"),
        (lambda x, y: (x, np.array(["cat", "dog"])[y % 2]), TypeError, "strings such as.*unique"),
        (lambda x, y: (x, y.astype("datetime64[s]")), TypeError, r"y is an array of datetime64"),
        (lambda x, y: (x.astype(complex), y), TypeError, "x is an array of complex128"),
        (lambda x, y: (torch.from_numpy(x).to_sparse(), y), TypeError, r"give x.to_dense\(\)"),
        (lambda x, y: (csr_matrix(x), y), TypeError, r"give x.toarray\(\)"),
        (lambda x, y: ([[1.0, 2.0], [3.0]], y), ValueError, "rows have different lengths"),
        (lambda x, y: (pandas.DataFrame({"a": list("xy") * 9}), y), TypeError, "str objects"),
        (lambda x, y: (np.ma.masked_less(x, 0), y), ValueError, r"masked values: .*x.filled\(0\)"),
        (lambda x, y: (x[:, :3], y), ValueError, r"cannot evaluate x, 8 rows of shape \(3,\)"),
    ],
)
def test_what_is_no_table_of_numbers(
    change: Callable[..., Any], error: type[Exception], message: str
) -> None:
    posterior = spnb.MeanField(spnb.BayesianModel(nn.Linear(4, 3)))
    with pytest.raises(error, match=message):
        spnb.fit(posterior, change(*table()))


def test_numpys_numbers_are_numbers() -> None:
    posterior, data = problem()
    expected = spnb.fit(posterior, data, num_samples=2, batch_size=8, epochs=2).history.loss
    found = spnb.fit(
        posterior,
        data,
        num_samples=np.int64(2),
        batch_size=np.int32(8),
        epochs=np.uint8(2),
        learning_rate=np.float64(1e-3),
        seed=np.int64(0),
    )
    assert found.history.loss == expected


def test_there_must_be_such_a_device() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ValueError, match=r"device='cuda'.*no such device.*leave device out"):
        spnb.fit(*problem(), device="cuda")
    with pytest.raises(ValueError, match="device='gpu'"):
        spnb.fit(*problem(), device="gpu")


# -- optimisers and schedules ---------------------------------------------------------------------


def test_an_optimisers_class_gets_learning_rate_and_decay() -> None:
    posterior, data = problem()

    def by_hand(posterior: spnb.Posterior) -> torch.optim.Optimizer:
        groups = [
            {"params": [posterior.loc], "weight_decay": 0.1},
            {"params": [posterior.rho], "weight_decay": 0.0},
        ]
        return torch.optim.SGD(groups, lr=0.01)

    of_class = spnb.fit(
        posterior, data, optimizer=torch.optim.SGD, learning_rate=0.01, weight_decay=0.1, epochs=3
    )
    assert (
        of_class.history.loss == spnb.fit(posterior, data, optimizer=by_hand, epochs=3).history.loss
    )


def elsewhere(posterior: spnb.Posterior) -> torch.optim.Optimizer:
    return torch.optim.Adam(posterior.model.net.parameters())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"optimizer": torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)},
            TypeError,
            "optimizer is a SGD over other parameters.*optimizer=torch.optim.SGD",
        ),
        ({"optimizer": "adam"}, TypeError, "gave a str, not a torch.optim.Optimizer"),
        ({"optimizer": lambda q: None}, TypeError, "gave a NoneType"),
        ({"optimizer": torch.optim.LBFGS}, NotImplementedError, "LBFGS .* closure"),
        (
            {"optimizer": lambda q: torch.optim.LBFGS(q.parameters())},
            NotImplementedError,
            "LBFGS .* closure",
        ),
        ({"optimizer": elsewhere}, ValueError, "4 of the optimiser's 4 parameters are not those"),
        (
            {"schedule": lambda o, n: torch.optim.lr_scheduler.ReduceLROnPlateau(o)},
            NotImplementedError,
            "ReduceLROnPlateau waits for a score",
        ),
        ({"schedule": lambda o, n: None}, TypeError, "schedule gave a NoneType"),
        (
            {
                "schedule": lambda o, n: torch.optim.lr_scheduler.ConstantLR(
                    torch.optim.SGD([torch.zeros(1)])
                )
            },
            ValueError,
            "a scheduler of another optimiser",
        ),
    ],
)
def test_optimisers_and_schedules_that_cannot_be(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        spnb.fit(*problem(), **change)


def test_what_members_share_is_clipped_as_well() -> None:
    """A step of plain descent is as long as the clipped gradient, for each part of it."""

    def some(name: str, parameter: Tensor) -> spnb.priors.Prior | None:
        return None if name.startswith("2.") else dist.Normal(0.0, 1.0)

    posterior, data = problem(prior=some)
    ensemble = spnb.Ensemble(posterior.model, size=3)
    trained = spnb.fit(
        ensemble, data, optimizer=torch.optim.SGD, learning_rate=1.0, clip_norm=1e-3
    ).posterior
    moved = (trained.point - ensemble.point).norm()
    torch.testing.assert_close(moved, torch.tensor(1e-3, dtype=moved.dtype), rtol=1e-2, atol=0)
    lengths = (trained.members - ensemble.members).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full_like(lengths, 1e-3), rtol=1e-2, atol=0)


# -- validation -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        (lambda x, y: (x[:, :5], y), r"cannot evaluate x, 8 rows of shape \(5,\)"),
        (lambda x, y: (x, y[:-1]), "x has 24 rows and y has 23"),
        (lambda x, y: (x, y + 3), "outside the classes 0 to 2"),
    ],
)
def test_validation_is_tried_before_the_first_step(
    validation: Callable[[Tensor, Tensor], Any], message: str
) -> None:
    posterior, (x, y) = problem()
    with pytest.raises(ValueError, match=message):
        spnb.fit(posterior, (x, y), validation=validation(x, y), augment=too_late)


def test_bad_input_in_a_pool_leaves_it_usable(pool_of: PoolOf) -> None:
    pool, (posterior, data) = pool_of(2), problem()
    pool.run(int)  # they have started
    for change, message in [
        ({"layout": spnb.Layout(3)}, r"sample=3 × data=1 = 3 != world_size=2"),
        ({"layout": spnb.Layout(2), "num_samples": 1}, "2 ranks along sample but num_samples=1"),
        ({"layout": spnb.Layout(data=2), "batch_size": 1}, "only 1 row: 1 would"),
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

    with pytest.raises(
        ValueError,
        match=r"Rank 1 was asked for another run than rank 0: num_samples=4 on rank 0, 5 here",
    ):
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
