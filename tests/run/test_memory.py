"""Counted memory, against what tensors and the process really take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import spnb
from benchmarks import measure
from benchmarks.measure import peak_of_tensors
from spnb.maths.networks import ViT, mlp
from spnb.maths.swin import Swin
from spnb.run.footprint import Footprint, Held, footprint
from spnb.run.memory import needed, of_rank
from spnb.run.optimizer import adam
from tests.run import nets

NLL = spnb.PredictiveNLL()


WIDE: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: nets.Recurrent(nn.LSTM, 256),
    "gru": lambda: nets.Recurrent(nn.GRU, 256),
    "masked": lambda: nets.Masked(512),
    "words": lambda: nets.Words(64, 2),
}
"""Networks that fake tensors cannot run, or not with several samples at once."""


def workload(name: str) -> tuple[spnb.MeanField, tuple[Tensor, Tensor]]:
    """A posterior, and a batch."""
    labels = torch.zeros(32, dtype=torch.long)
    if name == "mlp":
        net: nn.Module = mlp((64, 768, 768, 10))
        data, likelihood = (torch.zeros(32, 64), labels), "categorical"
    elif name in WIDE:
        net, data = WIDE[name](), nets.data(name, 32)
        likelihood = "categorical"
    elif name == "vit":
        net = ViT(patch=4, dim=48, depth=2, heads=3, hidden=96)
        data, likelihood = (torch.zeros(32, 3, 32, 32), labels), "categorical"
    else:
        net = Swin((25, 53), 3, 1, patch=4, window=4, dim=24, depths=(2, 2), heads=(2, 4))
        data, likelihood = (torch.zeros(8, 3, 25, 53), torch.zeros(8, 1, 25, 53)), "normal"
    return spnb.MeanField(spnb.BayesianModel(net, likelihood=likelihood)), data


def two_steps(name: str, **options: object) -> object:
    posterior, data = workload(name)
    return partial(spnb.fit, posterior, data, epochs=2, num_samples=4, **options)


ONE_BY_ONE, AGAIN = {}, {"objective": NLL, "recompute": True}
KEPT, AT_ONCE = {"objective": NLL}, {"samples_in_flight": 4}
BOTH = {"objective": NLL, "samples_in_flight": 2}


@pytest.mark.pool
@pytest.mark.parametrize(
    ("name", "options", "tolerance"),
    [
        ("mlp", ONE_BY_ONE, 0.02),
        pytest.param("vit", ONE_BY_ONE, 0.02, marks=pytest.mark.exhaustive),
        pytest.param("swin", ONE_BY_ONE, 0.02, marks=pytest.mark.exhaustive),
        ("vit", AGAIN, 0.02),
        ("mlp", KEPT, 0.04),
        pytest.param("swin", KEPT, 0.04, marks=pytest.mark.exhaustive),
        ("mlp", AT_ONCE, 0.04),
        pytest.param("vit", AT_ONCE, 0.04, marks=pytest.mark.exhaustive),
        ("vit", BOTH, 0.04),
        ("lstm", ONE_BY_ONE, 0.2),  # oneDNN works in memory of its own on the way back
        ("lstm", KEPT, 0.05),
        pytest.param("gru", ONE_BY_ONE, 0.02, marks=pytest.mark.exhaustive),
        ("masked", ONE_BY_ONE, 0.02),
        pytest.param("masked", KEPT, 0.04, marks=pytest.mark.exhaustive),
        ("words", ONE_BY_ONE, 0.02),
        pytest.param("words", KEPT, 0.04, marks=pytest.mark.exhaustive),
        pytest.param("swin", BOTH, 0.04, marks=pytest.mark.exhaustive),
    ],
)
def test_tensors_take_what_was_counted(
    name: str, options: dict[str, object], tolerance: float
) -> None:
    posterior, data = workload(name)
    counted = needed(posterior, data, num_samples=4, **options)
    found = peak_of_tensors(partial(two_steps, name, **options), 1)
    assert counted.total == pytest.approx(found, rel=tolerance)


def peak_of_sharded(name: str) -> int:
    """The peak of this rank's tensors in two steps with shared-out parameters."""
    return measure._tensors_here(partial(two_steps, name, layout=spnb.Layout(shard=2)), 1)


def test_ranks_that_share_out_parameters_take_what_was_counted(
    pool_of: Callable[[int], spnb.WorkerPool],
) -> None:
    posterior, data = workload("mlp")
    counted = needed(posterior, data, num_samples=4, layout=spnb.Layout(shard=2)).total
    for found in pool_of(2).run(peak_of_sharded, "mlp"):
        assert counted == pytest.approx(found, rel=0.25)
    assert counted < 0.75 * needed(posterior, data, num_samples=4, layout=spnb.Layout(data=2)).total


RESIDENT = """
import json
from functools import partial
from benchmarks.measure import peak_here
from tests.run.test_memory import two_steps
print(json.dumps(peak_here(partial(two_steps, "mlp"), partial(two_steps, "vit"), 1)))
"""


def test_a_process_grows_by_what_was_counted() -> None:
    """Where the C library gives freed memory back, as it does with this threshold."""
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RESIDENT],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    counted = needed(*workload("mlp"), num_samples=4).total
    assert counted == pytest.approx(json.loads(done.stdout.splitlines()[-1]), rel=0.10)


def test_parts_are_those_of_a_real_run() -> None:
    posterior, data = workload("vit")
    parts = needed(posterior, data).parts
    optimiser = adam(posterior, 1e-3)
    for parameter in posterior.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    moments = [
        v.nbytes for s in optimiser.state.values() for k, v in s.items() if k.startswith("exp")
    ]
    assert parts["optimiser"] == sum(moments)
    trained = sum(p.nbytes for p in posterior.parameters())
    assert parts["gradients"] == trained
    assert parts["parameters"] == trained + sum(p.nbytes for p in posterior.model.net.parameters())


def test_a_network_that_is_not_there_takes_the_same() -> None:
    torch.manual_seed(0)
    real, (x, y) = workload("swin")
    with torch.device("meta"):
        net = Swin((25, 53), 3, 1, patch=4, window=4, dim=24, depths=(2, 2), heads=(2, 4))
    absent = spnb.MeanField(spnb.BayesianModel(net, likelihood="normal"))
    assert all(p.is_meta for p in absent.parameters())
    empty = x.to("meta"), y.to("meta")
    assert needed(absent, empty, objective=NLL) == needed(real, (x, y), objective=NLL)


NET = Footprint(
    weights=1000, point=10, itemsize=4, prediction=10, row=100, kept_fixed=500.0,
    kept_per_row=100.0, peak_fixed=600.0, peak_per_row=120.0, at_once=1.0,
)  # fmt: skip


def test_the_fullest_rank_counts() -> None:
    found = of_rank(NET, spnb.Layout(2, 2), num_samples=5, num_rows=25)
    assert found.parts["activations"] == 600 + 13 * 120
    assert found.parts["samples"] == 4 * 5 * 1000
    assert found.parts["parameters"] == 4 * (3 * 1000 + 2 * 10)
    assert found.total == sum(found.parts.values())


def test_memory_grows_with_the_samples_only_where_graphs_are_kept() -> None:
    few, many = (partial(of_rank, NET, spnb.Layout(), s, 32) for s in (8, 64))
    assert few() == many()
    kept = many(NLL).total - few(NLL).total
    assert kept == 56 * (2 * 4 * 1000 + 500 + 100 * 32 + 5 * 4 * 10 * 32)
    again = many(NLL, recompute=True).total - few(NLL, recompute=True).total
    assert again == 56 * 4 * 10 * 32  # the predictions
    at_once = many(samples_in_flight=64).total - few(samples_in_flight=8).total
    assert at_once > kept


def test_two_samples_of_antithetic_noise_take_as_much() -> None:
    posterior, data = workload("mlp")
    paired = spnb.MeanField(posterior.model, antithetic=True)
    assert needed(paired, data) == needed(posterior, data)


def test_what_is_held_is_what_is_there() -> None:
    x = torch.zeros(1000)
    with Held() as held:
        y = x + 1
        assert held.now == held.most == 4000
        z = y.view(10, 100)[0]  # no memory of its own
        assert held.now == 4000
        w = y * 2
        del y
        assert held.now == 8000  # the view keeps it
        del z
        assert (held.now, held.most) == (4000, 8000)
        x.add_(w)
        assert (held.now, held.most) == (4000, 8000)
        del w
    assert held.now == 0


def test_one_row_has_a_footprint_too() -> None:
    posterior, (x, y) = workload("mlp")
    one, two = footprint(posterior, x[:1], y[:1]), footprint(posterior, x, y)
    assert one.kept(1) == pytest.approx(two.kept(1), rel=0.1)
    assert replace(one, weights=two.weights) == one


def test_an_objective_of_the_batch_gathers_its_rows() -> None:
    """Each of four ranks sees the predictions of all 32 rows, not of its own 8 alone."""
    posterior, data = workload("mlp")
    options = {"num_samples": 4, "batch_size": 32, "layout": spnb.Layout(data=4)}
    per_item, of_batch = (
        needed(posterior, data, objective=spnb.Objective(function), **options)
        for function in (lambda p, _: p.var(0).mean(-1), lambda p, _: p.var(0).mean())
    )
    part, numbers = "batch and predictions", 4 * 10 * (32 - 8)
    # in float32, twice, with a gradient and what the loss makes of them
    assert of_batch.parts[part] - per_item.parts[part] == 4 * 5 * numbers


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        ({"num_samples": 0}, ValueError, "num_samples=0 must be at least 1"),
        ({"num_samples": 2.5}, TypeError, "num_samples=2.5 must be a whole number"),
        ({"batch_size": True}, TypeError, "batch_size=True must be a whole number"),
        ({"batch_size": None}, TypeError, "batch_size=None must be a whole number"),
        ({"samples_in_flight": -1}, ValueError, "samples_in_flight=-1 must be at least 1"),
        ({"objective": "elbo"}, TypeError, "wrap a function of predictions and targets"),
        ({"recompute": 1}, TypeError, "recompute=1 must be True or False"),
        ({"layout": 2}, TypeError, "layout is a int; give a spnb.Layout or None"),
        ({"layout": spnb.Layout(16), "num_samples": 8}, ValueError, "num_samples=8"),
        ({"layout": spnb.Layout(sample=-1)}, ValueError, "give all axes"),
        ({"layout": spnb.Layout(shard=2), "samples_in_flight": 2}, ValueError, "leave it out"),
    ],
)
def test_bad_requests(wrong: dict[str, object], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        needed(*workload("mlp"), **wrong)


def test_what_cannot_be_trained_has_no_memory() -> None:
    posterior, (x, y) = workload("mlp")
    sharded = {"layout": spnb.Layout(shard=2)}
    with pytest.raises(TypeError, match="posterior is a BayesianModel"):
        needed(posterior.model, (x, y))
    with pytest.raises(ValueError, match="each input needs its target"):
        needed(posterior, (x, y[:3]))
    with pytest.raises(ValueError, match="each input needs its target"):
        needed(posterior, (x.to("meta"), y[:3]))
    with pytest.raises(ValueError, match="outside the classes"):
        needed(posterior, (x, y + 10))
    with (
        pytest.warns(UserWarning, match="LowRank trains 10"),
        pytest.raises(TypeError, match="use a layout with shard=1"),
    ):
        needed(spnb.LowRank(posterior.model), (x, y), **sharded)
    with pytest.raises(ValueError, match="looks at all samples together"):
        needed(spnb.Ensemble(posterior.model, 4), (x, y), objective=NLL)


def test_numbers_of_numpy_are_numbers() -> None:
    posterior, (x, y) = workload("mlp")
    options = {"num_samples": 3, "batch_size": 16, "samples_in_flight": 2}
    found = needed(posterior, (x, y), **{name: np.int64(n) for name, n in options.items()})
    assert found == needed(posterior, (x, y), **options)
    arrays = x.double().numpy(), y.numpy()
    assert needed(posterior, arrays, **options) == found, "x counts in the net's precision"


def test_another_method_is_told_that_it_is_one() -> None:
    posterior, data = workload("mlp")
    ensemble = spnb.Ensemble(posterior.model, 4)
    with pytest.warns(UserWarning, match="this Ensemble trains 4, and differs accordingly"):
        needed(ensemble, data)
