"""The cost model: its arithmetic, its counts, and what it is calibrated to."""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from math import ceil, inf, nan
from pathlib import Path

import numpy as np
import pytest
import torch
from pyro.distributions import MultivariateNormal, Normal
from pyro.distributions.torch_distribution import TorchDistributionMixin as Distribution

import spnb
from spnb.maths.networks import ViT, mlp
from spnb.run import calibrate, costs
from spnb.run.machine import Link, Machine
from spnb.run.plan import layouts
from spnb.run.step_cost import predict
from tests.run.problems import problem, worst_case

PoolOf = Callable[[int], spnb.WorkerPool]

MADE_UP = Machine(
    name="made up",
    source="this test",
    flops=1e9,
    launch=1e-6,
    draw=1e-8,
    noise=4e-9,
    update=2e-8,
    per_sample=1e-4,
    per_step=1e-3,
    inside=Link(1e-4, 1e9),
    ranks_per_host=4,
    crowding=1.3,
    memory=1e6,
)
COSTS = costs.Costs(
    weights=1000, point=10, itemsize=4, prediction=10, row=100, kept_fixed=500.0,
    kept_per_row=100.0, peak_fixed=600.0, peak_per_row=120.0, at_once=1.0, pass_fixed=2e-3,
    pass_per_row=1e-4,
    antithetic=False, origin="measured",
)  # fmt: skip


def test_shards_are_planned_where_nothing_else_fits() -> None:
    posterior, data = problem(64)
    machine = spnb.machines.H100
    all_fit = spnb.plan(posterior, data, num_samples=8, world_size=4, machine=machine)
    assert {p.layout.shard for p in all_fit.predictions} == {1}
    least = min(p.memory for p in all_fit.predictions)
    tight = spnb.plan(
        posterior, data, num_samples=8, world_size=4, machine=machine, memory_limit=0.9 * least
    )
    assert tight.best.layout.shard > 1 and tight.best.fits
    assert "shard=" in str(tight)


def test_a_link_is_alpha_and_beta() -> None:
    link = Link(latency=2.0, bandwidth=10.0)
    assert link.all_gather(100.0, 4) == pytest.approx(2 * 2 + 0.75 * 10)
    assert link.all_reduce(100.0, 4) == pytest.approx(2 * (2 * 2 + 0.75 * 10))
    assert link.all_reduce(100.0, 1) == 0.0


def test_the_rank_with_the_largest_tile_decides() -> None:
    found = predict(COSTS, MADE_UP, spnb.Layout(2, 2), num_samples=5, num_rows=25)
    one_pass = 2e-3 + 13 * 1e-4
    assert found.parts["passes"] == pytest.approx(3 * one_pass * 1.3)
    assert found.parts["draw"] == pytest.approx(3 * (1000 * 1e-8 + 1e-4))
    assert found.parts["update"] == pytest.approx(1000 * 2e-8 + 1e-3)
    size = 4 * (2 * 1000 + 10 + 3 + 4)
    assert found.parts["all-reduce"] == pytest.approx(Link(1e-4, 1e9).all_reduce(size, 4))
    assert found.seconds == pytest.approx(sum(found.parts.values()))
    assert found.parts["gather"] == 0.0 and found.bytes_per_step == size


def test_of_two_antithetic_samples_one_draws() -> None:
    options = {"num_samples": 10, "num_rows": 24}
    paired = dataclasses.replace(COSTS, antithetic=True)
    independent, pairs = (predict(c, MADE_UP, spnb.Layout(2), **options) for c in (COSTS, paired))
    saved = independent.parts.pop("draw") - pairs.parts.pop("draw")  # of 5 samples 3 draw
    assert saved == pytest.approx(2 * 1000 * 4e-9) and pairs.parts == independent.parts
    posterior, data = problem(24)
    posterior.antithetic = True
    assert costs.count(posterior, data, 24, MADE_UP).antithetic


def test_an_objective_that_gathers_costs_more() -> None:
    options = {"num_samples": 6, "num_rows": 24}
    elbo = predict(COSTS, MADE_UP, spnb.Layout(2, 1), **options)
    nll = predict(COSTS, MADE_UP, spnb.Layout(2, 1), objective=spnb.PredictiveNLL(), **options)
    again = predict(
        COSTS, MADE_UP, spnb.Layout(2, 1), objective=spnb.PredictiveNLL(), recompute=True, **options
    )
    assert nll.parts["gather"] > 0 and nll.parts["passes"] == elbo.parts["passes"]
    assert nll.bytes_per_step - elbo.bytes_per_step == 4 * 10 * 3 * 24
    predicted = 4 * 10 * 6 * 24
    assert nll.memory > again.memory == elbo.memory + predicted
    assert again.parts["draw"] == pytest.approx(2 * nll.parts["draw"])
    serial = predict(COSTS, MADE_UP, spnb.Layout(), objective=spnb.PredictiveNLL(), **options)
    assert serial.parts["gather"] == serial.parts["all-reduce"] == serial.bytes_per_step == 0


def test_passes_slow_down_in_proportion_to_the_company_on_a_host() -> None:
    """From 1 for a rank alone to the factor that was measured on a full host."""
    crowded = dataclasses.replace(MADE_UP, ranks_per_host=5, crowding=3.0)
    found = [crowded.slowdown(ranks) for ranks in (1, 2, 3, 5, 10)]
    assert found == [1.0, 1.5, 2.0, 3.0, 3.0]
    for ranks, factor in ((1, 1.0), (2, 3.0)):
        crowded = dataclasses.replace(MADE_UP, ranks_per_host=ranks, crowding=3.0)
        assert crowded.slowdown(8) == factor


def test_more_ranks_than_a_host_has_need_a_link_between_hosts() -> None:
    with pytest.raises(ValueError, match=r"8 ranks need 2 hosts of 4, but 'made up' has no link"):
        predict(COSTS, MADE_UP, spnb.Layout(8), num_samples=8, num_rows=8)
    wide = dataclasses.replace(MADE_UP, between=Link(1e-3, 1e8))
    found = predict(COSTS, wide, spnb.Layout(8), num_samples=8, num_rows=8)
    assert found.parts["all-reduce"] == pytest.approx(
        Link(1e-3, 1e8).all_reduce(found.bytes_per_step, 8)
    )
    assert MADE_UP.slowdown(1) == 1.0 and MADE_UP.slowdown(4) == wide.slowdown(100) == 1.3


@pytest.mark.parametrize(("size", "count"), [(1, 1), (8, 4), (1024, 11)])
def test_all_layouts_that_leave_nobody_idle(size: int, count: int) -> None:
    found = list(layouts(size, num_samples=5000, num_rows=5000))
    assert len(found) == count and all(layout.size == size for layout in found)
    for layout in layouts(size, num_samples=4, num_rows=300):
        layout.check_work(4, 300)


def test_a_plan_for_a_machine_that_is_not_here() -> None:
    with torch.device("meta"):
        net = ViT(dim=192, depth=6, hidden=768)
    posterior = spnb.MeanField(spnb.BayesianModel(net))
    x, y = torch.zeros(128, 3, 32, 32), torch.zeros(128, dtype=torch.long)
    options = {"num_samples": 256, "machine": spnb.machines.H100, "world_size": 64}
    plan = spnb.plan(posterior, (x.to("meta"), y.to("meta")), **options)
    same = spnb.plan(posterior, (x, y), objective=spnb.ELBO(), **options)
    assert [p.seconds for p in same.predictions] == [p.seconds for p in plan.predictions]
    on_meta = spnb.plan(
        posterior, (x.to("meta"), y.to("meta")), objective=spnb.PredictiveNLL(), **options
    )
    assert on_meta.best.parts["gather"] > 0
    assert plan.costs.weights == 2_676_778 and plan.costs.origin == "counted"
    assert len(plan.predictions) == 7 and plan.best == plan.predictions[0]
    assert plan.best.layout.size == 64 and "sample=64 × data=1" in repr(plan)
    seconds = [p.seconds for p in plan.predictions]
    assert seconds == sorted(seconds)


def test_memory_decides_before_time() -> None:
    posterior, data = problem(24)
    options = {"num_samples": 8, "machine": MADE_UP, "world_size": 4}
    free = spnb.plan(posterior, data, **options, memory_limit=float("inf"))
    by_memory = sorted(free.predictions, key=lambda p: p.memory)
    limit = (by_memory[0].memory + by_memory[1].memory) / 2
    tight = spnb.plan(posterior, data, **options, memory_limit=limit)
    assert tight.best.layout == by_memory[0].layout
    assert [p.fits for p in tight.predictions] == [True] + [False] * (len(by_memory) - 1)
    with pytest.raises(MemoryError, match="No layout fits: the smallest, "):
        _ = spnb.plan(posterior, data, **options, memory_limit=1.0).best


def test_graphs_are_kept_unless_samples_are_to_be_evaluated_twice() -> None:
    posterior, data = problem(16)
    options = {"num_samples": 4, "world_size": 2, "machine": MADE_UP}
    options["objective"] = spnb.PredictiveNLL()
    usual, kept, again = (
        spnb.plan(posterior, data, **options, **more)
        for more in ({}, {"recompute": False}, {"recompute": True})
    )
    assert usual.predictions == kept.predictions
    assert again.best.memory < kept.best.memory and again.best.seconds > kept.best.seconds


BAD = {
    "num_samples": [0, -1, True, 2.5, "4", nan],
    "batch_size": [0, -1, True, 2.5, "4", nan],
    "world_size": [0, -1, True, 2.5, "4", nan],
    "memory_limit": [0, -1.0, True, "80 GB", nan],
    "recompute": [1, None, "yes"],
    "objective": ["elbo", worst_case],
    "machine": ["H100", 8],
    "pool": [2],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in BAD.items() for v in values])
def test_bad_requests(name: str, value: object) -> None:
    """Each in a sentence of the library's own, which names the argument."""
    posterior, data = problem(4)
    options = {"num_samples": 2, "machine": MADE_UP, "world_size": 2} | {name: value}
    with pytest.raises((TypeError, ValueError), match=f"^{name}(=| is a ).*[.)]$") as caught:
        spnb.plan(posterior, data, **options)
    assert caught.traceback[-1].path.is_relative_to(Path(spnb.__file__).parent)


def test_bad_data() -> None:
    posterior, (x, y) = problem(4)
    options = {"num_samples": 2, "machine": MADE_UP, "world_size": 2}
    for wrong, error in (((x, y[:2]), ValueError), ((x * nan, y), ValueError), (x, TypeError)):
        with pytest.raises(error, match=r"each input|NaN or infinite|must be a pair"):
            spnb.plan(posterior, wrong, **options)
    with pytest.raises(TypeError, match="posterior is a BayesianModel"):
        spnb.plan(posterior.model, (x, y), **options)
    with pytest.raises(TypeError, match="on a spnb.WorkerPool, but got a NoneType"):
        spnb.calibrate(None)


def test_numbers_of_numpy_are_numbers() -> None:
    posterior, data = problem(8)
    options = {"num_samples": 4, "batch_size": 6, "world_size": 2, "memory_limit": 10**6}
    found, same = (
        spnb.plan(posterior, data, machine=MADE_UP, **{n: kind(v) for n, v in options.items()})
        for kind in (np.int64, int)
    )
    assert found.predictions == same.predictions
    options["memory_limit"] = np.float32(1e6)
    assert spnb.plan(posterior, data, machine=MADE_UP, **options).predictions == same.predictions


def test_as_many_samples_as_fit_takes() -> None:
    posterior, data = problem(8)
    options = {"machine": MADE_UP, "world_size": 1}
    usual, eight = (spnb.plan(posterior, data, **options, **n) for n in ({}, {"num_samples": 8}))
    assert usual.predictions == eight.predictions
    with pytest.warns(UserWarning, match="this Ensemble trains 5"):
        plan = spnb.plan(spnb.Ensemble(posterior.model, 5), data, **options)
    assert plan.best.parts["passes"] == pytest.approx(usual.best.parts["passes"] * 5 / 8)


def test_far_too_many_ranks_are_refused_at_once() -> None:
    """Of a million ranks, all pairs of axes were tried before: a million squared."""
    posterior, data = problem(64)
    with pytest.raises(
        ValueError, match="1000000 ranks cannot share S = 8 samples and B = 64 rows"
    ):
        spnb.plan(posterior, data, machine=spnb.machines.H100, world_size=10**6)


def test_nothing_is_measured_before_a_plan_is_possible(pool_of: PoolOf) -> None:
    posterior, data = problem(4)
    pool = pool_of(2)
    before = pool.run(os.getpid)
    for wrong in ({"num_samples": 1, "world_size": 64}, {"world_size": 4}, {"objective": "elbo"}):
        with pytest.raises((TypeError, ValueError)):
            spnb.plan(posterior, data, pool=pool, **wrong)
    with torch.device("meta"):
        net = mlp((4, 8, 3))
    absent = spnb.MeanField(spnb.BayesianModel(net))
    batch = torch.zeros(4, 4), torch.zeros(4, dtype=torch.long)
    with pytest.raises(ValueError, match="posterior or data lie on the meta device"):
        spnb.plan(absent, batch, pool=pool)
    assert pool.run(os.getpid) == before


def test_the_shards_of_a_prior_that_cannot_be_cut_are_not_planned() -> None:
    """`spnb.fit` would refuse them."""

    def together(name: str, parameter: torch.Tensor) -> Distribution:
        return Normal(torch.zeros_like(parameter), 1.0).to_event(parameter.dim())

    def apart(name: str, parameter: torch.Tensor) -> Distribution:
        zeros = torch.zeros(parameter.numel())
        return (
            MultivariateNormal(zeros, torch.eye(len(zeros)))
            if parameter.dim() == 1
            else Normal(0.0, 1.0)
        )

    x, y = torch.randn(8, 4), torch.randint(3, (8,))
    options = {"machine": MADE_UP, "world_size": 2, "memory_limit": 1.0}
    shards = {}
    for prior in (together, apart):
        posterior = spnb.MeanField(spnb.BayesianModel(mlp((4, 8, 3)), prior))
        found = spnb.plan(posterior, (x, y), **options)
        shards[prior] = {p.layout.shard for p in found.predictions}
    assert shards == {together: {1, 2}, apart: {1}}


def test_flops_are_those_of_the_matrix_products() -> None:
    posterior = spnb.MeanField(spnb.BayesianModel(mlp((20, 30, 5))))
    x, y = torch.randn(16, 20), torch.randint(5, (16,))
    machine = dataclasses.replace(MADE_UP, launch=0.0, flops=1.0)
    found = costs.count(posterior, (x, y), 16, machine)
    forward = 2 * (20 * 30 + 30 * 5)
    backward = 2 * (20 * 30 + 2 * 30 * 5)
    assert found.passes(16) == pytest.approx(16 * (forward + backward))
    assert found.pass_fixed == pytest.approx(0.0)


def test_one_rank_is_planned_as_well(pool_of: PoolOf) -> None:
    posterior, data = problem(4)
    plan = spnb.plan(posterior, data, pool=pool_of(1), machine=MADE_UP, num_samples=2)
    (only,) = plan.predictions
    assert only.layout == spnb.Layout() and plan.costs.origin == "measured"


def test_the_noise_is_that_of_one_number() -> None:
    """Times what it times, with the same allowance for other work as below."""
    vector, number = torch.empty(10_000), 10_000
    start = time.perf_counter()
    for _ in range(100):
        vector.normal_()
    alone = (time.perf_counter() - start) / 100 / number
    assert alone / 100 < calibrate._noise(torch.device("cpu"), number) < 100 * alone


@pytest.mark.slow
def test_a_calibrated_plan_counts_the_bytes_that_are_sent(pool_of: PoolOf) -> None:
    """Times are held against measurements by the benchmark; here only that they are sane.

    A factor of 100 stands for a wrong unit, and for all that other work does to so small a step.
    """
    for _ in range(5):  # times that should differ may not, if other work falls into them
        machine = spnb.calibrate(pool_of(2))
        if machine.draw > 0:
            break
    assert machine.draw > 0 and machine.update >= 0
    assert 0 < machine.inside.latency and 0 < machine.inside.bandwidth < inf
    assert machine.ranks_per_host == 2 and machine.crowding >= 1.0
    posterior, data = problem(25, torch.float32)
    for objective in (spnb.ELBO(), spnb.PredictiveNLL(), spnb.Objective(worst_case)):
        options = {"num_samples": 5, "objective": objective}
        plan = spnb.plan(posterior, data, pool=pool_of(2), machine=machine, **options)
        assert plan.costs.origin == "measured"
        for prediction in plan.predictions:
            options |= {"layout": prediction.layout, "batch_size": 25, "epochs": 9}
            fitted = pool_of(2).run(spnb.fit, posterior, data, **options)[0]
            assert fitted.history.bytes_per_step == prediction.bytes_per_step
            step = statistics.median(record.seconds for record in fitted.history.steps)
            assert step / 100 < prediction.seconds < 100 * step


def test_tiles_add_up() -> None:
    for layout in layouts(6, 7, 10):
        largest = max(len(layout.tile(r, 7, 10).samples) for r in range(6))
        assert largest == ceil(7 / layout.sample)
