"""On a real GPU: the step, a pool's worker, predictions, memory. Skipped where there is none."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

import spnb
from spnb.maths.networks import ViT
from spnb.parallel import devices
from spnb.run.machine import Machine
from spnb.run.memory import needed
from spnb.teach.recipes import recipe
from tests.methods import METHODS
from tests.run.problems import OBJECTIVES, problem, relative

pytestmark = pytest.mark.cuda


@pytest.fixture(scope="module")
def pool() -> Iterator[spnb.WorkerPool]:
    """One worker for each GPU."""
    with spnb.WorkerPool(devices.visible_gpus()) as pool:
        yield pool


@pytest.mark.parametrize("objective", ["ELBO", "PredictiveNLL", "EnergyScore"])
def test_chunks_of_samples_change_nothing(objective: str) -> None:
    posterior, data = problem()
    posterior.to("cuda")
    options = {"objective": OBJECTIVES[objective](), "num_samples": 5}
    alone = spnb.gradients(posterior, data, **options)
    assert alone["loc"].is_cuda
    several = spnb.gradients(posterior, data, samples_in_flight=5, **options)
    assert relative(several, alone) <= 1e-12
    again = spnb.gradients(posterior, data, samples_in_flight=2, recompute=True, **options)
    assert relative(again, alone) <= 1e-12


def test_a_worker_has_a_gpu_and_trains_as_one_process_does(pool: spnb.WorkerPool) -> None:
    posterior, data = problem()
    size = pool.size
    options = {"num_samples": 2 * size, "epochs": 20, "learning_rate": 0.01}
    alone = spnb.fit(posterior, data, device="cuda", **options)
    assert [rank.device for rank in pool.status()] == [f"cuda:{i}" for i in range(size)]
    for layout in (spnb.Layout(sample=size), spnb.Layout(data=size)):
        found = pool.run(spnb.fit, posterior, data, layout=layout, **options)[0]
        for name, value in alone.posterior.named_parameters():
            torch.testing.assert_close(
                found.posterior.get_parameter(name).cpu(), value.cpu(), rtol=0, atol=1e-9
            )
    assert alone.history.loss[-1] < alone.history.loss[0]


def test_noise_of_the_gpu_gives_the_expectation_of_the_cpu(pool: spnb.WorkerPool) -> None:
    """The numbers differ, their distribution must not: the ELBO's gradient of many samples."""
    posterior, data = problem()
    layout = spnb.Layout(sample=pool.size)
    options = {"num_samples": 4096, "samples_in_flight": 256, "layout": layout}
    found = pool.run(spnb.gradients, posterior, data, **options)[0]
    here = spnb.gradients(posterior, data, num_samples=4096, samples_in_flight=256)
    for name, value in here.items():
        assert not torch.equal(found[name].cpu(), value)
    assert relative({n: v.cpu() for n, v in found.items()}, here) < 0.1


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_in_workers_as_in_one_process(pool: spnb.WorkerPool, name: str) -> None:
    start, data = problem()
    posterior = METHODS[name](start.model)
    options = {"num_samples": min(5, posterior.draws_in_training or 5), "epochs": 10}
    alone = spnb.fit(posterior, data, device="cuda", **options).posterior
    layout = spnb.Layout(data=pool.size)
    found = pool.run(spnb.fit, posterior, data, layout=layout, **options)[0].posterior
    draws = spnb.predict(alone, data[0])
    assert draws.is_cuda and draws.isfinite().all()
    again = spnb.predict(found.to("cuda"), data[0])
    torch.testing.assert_close(again, draws, rtol=0, atol=1e-9)


def test_nuts_starts_on_a_gpu_where_it_starts_elsewhere(pool: spnb.WorkerPool) -> None:
    start, data = problem()
    options = {"num_chains": pool.size, "num_samples": 4, "warmup": 4, "max_tree_depth": 3}
    found = pool.run(spnb.nuts, start.model, data, layout=spnb.Layout(data=pool.size), **options)
    assert found[0].posterior.draws.isfinite().all()
    assert spnb.predict(found[0].posterior, data[0]).shape == (4 * pool.size, 24, 3)


def test_predictions_and_scores(pool: spnb.WorkerPool) -> None:
    posterior, (x, y) = problem()
    layout = spnb.Layout(sample=pool.size)
    draws = pool.run(spnb.predict, posterior, x, layout=layout, num_samples=64)[0]
    again = pool.run(
        spnb.predict, posterior, x, layout=layout, num_samples=64, samples_in_flight=16
    )[0]
    torch.testing.assert_close(draws, again)
    found = pool.run(spnb.score, posterior, (x, y), layout=layout, num_samples=64)[0]
    wanted = spnb.score(posterior, (x, y), num_samples=64)
    assert found["nll"] == pytest.approx(wanted["nll"], rel=0.2)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"objective": spnb.PredictiveNLL(), "recompute": True},
        {"objective": spnb.PredictiveNLL()},
        {"samples_in_flight": 4},
    ],
    ids=["one by one", "two passes", "kept graphs", "at once"],
)
def test_the_gpu_holds_what_was_counted(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    net = ViT(patch=4, dim=192, depth=6, heads=3, hidden=768)
    posterior = spnb.MeanField(spnb.BayesianModel(net, likelihood="categorical")).to("cuda")
    data = torch.randn(64, 3, 32, 32, device="cuda"), torch.zeros(64, dtype=torch.long).cuda()
    options = {"num_samples": 4, "samples_in_flight": 1} | options
    spnb.fit(posterior, data, epochs=1, **options)  # libraries make their workspace once
    own = sum(p.nbytes for p in (*posterior.parameters(), *net.parameters()))
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    spnb.fit(posterior, data, epochs=2, **options)
    found = torch.cuda.max_memory_allocated() - before
    counted = needed(posterior, data, **options)
    batch = sum(values.nbytes for values in data)  # which lay there before
    assert own == counted.parts["parameters"]
    assert counted.total - batch == pytest.approx(found, rel=0.05)


def test_planning_and_looking_at_a_step(pool: spnb.WorkerPool) -> None:
    machine = spnb.calibrate(pool)
    assert isinstance(machine, Machine) and "cuda" in machine.name
    posterior, data = problem(dtype=torch.float32)
    layout = spnb.Layout(sample=pool.size)
    spans = pool.run(spnb.timeline, posterior, data, layout=layout)[0]
    whole = next(span for span in spans if span.name == "step")
    parts = sum(span.seconds for span in spans if span.name != "step")
    assert 0.5 * whole.seconds < parts <= 1.01 * whole.seconds


def test_a_pool_outlives_an_exhausted_gpu(pool: spnb.WorkerPool) -> None:
    def exhaust() -> None:
        torch.empty(2**50, dtype=torch.uint8, device="cuda")

    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        pool.run(exhaust)
    assert pool.run(lambda: torch.ones(2, device="cuda").sum().item()) == [2.0] * pool.size


@pytest.mark.skipif(not os.environ.get("SPNB_DATA"), reason="needs the data in $SPNB_DATA")
@pytest.mark.parametrize("name", ["images", "load", "weather"])
def test_recipes(pool: spnb.WorkerPool, name: str) -> None:
    chosen = recipe(name)
    settings = replace(chosen.SETTINGS["ci"], num_samples=2 * pool.size)
    found = pool.run(chosen.run, settings, spnb.Layout(sample=pool.size))[0]
    assert found["loss"][-1] < found["loss"][0]
    assert chosen.describe(found)
