"""What an error message advises is done, and works: a call, the advice taken out of it, a call."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import spnb
from spnb.maths.networks import mlp
from spnb.parallel import devices
from spnb.parallel.layout import Layout
from spnb.run import costs
from spnb.run.machine import Machine
from spnb.run.memory import needed
from spnb.run.timeline import timeline
from tests.run.nets import NETS, data
from tests.run.problems import problem, worst_case

PoolOf = Callable[[int], spnb.WorkerPool]

H100 = spnb.machines.H100
POSTERIOR, DATA = problem(24)
KNOWN = {"spnb": spnb, "dataclasses": dataclasses, "Layout": Layout}


@dataclass(frozen=True)
class Case:
    """A call that is refused, and what its message says.

    Attributes:
        call: the call, with options by name.
        wrong: the options that are refused, or a function that finds them.
        advice: a pattern whose groups are what is advised, one alternative each, as Python writes
            options: ``name=value``. A name alone is an option to leave out.
        error: what is raised.
    """

    call: Callable[..., Any]
    wrong: dict[str, Any] | Callable[[], dict[str, Any]]
    advice: str
    error: type[Exception] = ValueError


def planned(**options: Any) -> Any:
    """A plan on one machine."""
    return spnb.plan(POSTERIOR, DATA, **{"machine": H100, "world_size": 2} | options)


def fits(**options: Any) -> Any:
    """The best layout that fits, for an objective whose graphs take most of the memory."""
    return planned(**{"objective": spnb.PredictiveNLL(), "num_samples": 8} | options).best


def scarce(world_size: int) -> dict[str, Any]:
    """A little less memory than any layout of some ranks needs."""
    options = {"objective": spnb.PredictiveNLL(), "num_samples": 8, "world_size": world_size}
    every = planned(memory_limit=1.0, **options).predictions
    return {"world_size": world_size, "memory_limit": 0.98 * min(p.memory for p in every)}


def memory(**options: Any) -> Any:
    """Memory of a run."""
    return needed(POSTERIOR, DATA, **{"num_samples": 4} | options)


def of_ensemble(call: Callable[..., Any]) -> Callable[..., Any]:
    """A call for an ensemble of five."""
    return lambda **options: call(spnb.Ensemble(POSTERIOR.model, 5), DATA, **options)


LAYOUT = r"use (?:\d+ ranks?, )?(Layout\([^)]*\))"
CASES = {
    "more sample ranks than samples": Case(
        memory, {"layout": Layout(8), "num_samples": 4}, "use (?P<layout>.*?), or at least"
    ),
    "more samples instead": Case(
        memory, {"layout": Layout(8), "num_samples": 4}, "or at least (num_samples=8) for this"
    ),
    "more data ranks than rows": Case(
        memory, {"layout": Layout(1, 8), "batch_size": 4}, "use (?P<layout>.*?), or at least"
    ),
    "more rows instead": Case(
        memory,
        {"layout": Layout(1, 8), "batch_size": 4},
        "or at least (?P<batch_size>8) rows for this",
    ),
    "more ranks along both": Case(
        memory,
        {"layout": Layout(5, 7), "num_samples": 3, "batch_size": 4},
        r"no layout of 35 ranks fits S = 3 and B = 4; use 12 ranks, (?P<layout>.*?), or",
    ),
    "more shards than rows": Case(
        memory,
        {"layout": Layout(shard=6), "num_samples": 4, "batch_size": 4},
        "use (?P<layout>.*?), or at least",
    ),
    "an axis to infer": Case(
        memory,
        {"layout": Layout(sample=-1)},
        r"infer sample with (?P<layout>layout\.resolve\(.*?\))",
    ),
    "shards of several samples at once": Case(
        memory,
        {"layout": Layout(shard=2), "samples_in_flight": 2},
        "(samples_in_flight)=2: .* leave it out",
    ),
    "a function for an objective": Case(
        memory,
        {"objective": worst_case},
        r"wrap a function .* as (?P<objective>spnb\.Objective\(function\))",
        TypeError,
    ),
    "nothing to plan with": Case(
        lambda **options: spnb.plan(POSTERIOR, DATA, **options),
        {},
        r"such as (machine=spnb\.machines\.H100, world_size=8)",
    ),
    "a name for a machine": Case(
        planned, {"machine": "H100"}, r"such as (?P<machine>spnb\.machines\.H100),", TypeError
    ),
    "fewer ranks": Case(
        planned, {"num_samples": 2, "batch_size": 3, "world_size": 7}, "use (world_size=6),"
    ),
    "more samples": Case(
        planned, {"num_samples": 2, "batch_size": 3, "world_size": 7}, "(num_samples=7) or"
    ),
    "larger batches": Case(
        planned,
        {"num_samples": 2, "batch_size": 3, "world_size": 7},
        "or batches of (?P<batch_size>7) rows",
    ),
    "more ranks than hosts that are known to be connected": Case(
        planned,
        {"machine": dataclasses.replace(H100, between=None), "world_size": 16, "num_samples": 16},
        r"use (?P<machine>dataclasses\.replace\(.*?\))\.$",
    ),
    "samples evaluated twice": Case(
        fits, partial(scarce, 1), r"One does with (recompute=True)", MemoryError
    ),
    "memory of more ranks": Case(fits, partial(scarce, 2), r"with (world_size=\d+)", MemoryError),
    "memory of smaller batches": Case(
        fits, partial(scarce, 2), r"or (batch_size=\d+)\.$", MemoryError
    ),
    "a link that is none": Case(
        lambda **options: dataclasses.replace(H100, **options),
        {"inside": 1e9},
        r"inside=1.* such as (?P<inside>spnb\.machines\.NVLINK_4);",
        TypeError,
    ),
    **{
        f"more samples than there are, {call.__name__}": Case(
            of_ensemble(call), options | {"num_samples": 6}, "or leave (num_samples) out"
        )
        for call, options in (
            (spnb.plan, {"machine": H100, "world_size": 2}),
            (needed, {}),
            (timeline, {}),
        )
    },
    "an objective of all samples, where each is trained by itself": Case(
        of_ensemble(needed),
        {"objective": spnb.PredictiveNLL()},
        r"use (?P<objective>spnb\.ELBO\(\))",
    ),
    "shards of what is not drawn weight by weight": Case(
        of_ensemble(needed),
        {"layout": Layout(shard=2)},
        "use a layout with (?P<layout>shard=1)",
        TypeError,
    ),
}


def taken(found: re.Match[str], wrong: dict[str, Any]) -> dict[str, Any]:
    """The options that a message advises, in place of the wrong ones."""
    names = KNOWN | wrong | {"world_size": 4, "function": worst_case}
    if named := found.groupdict():
        ((name, code),) = named.items()
        code = f"Layout({code})" if name == "layout" and "(" not in code else code
        return wrong | {name: eval(code, names)}
    (code,) = found.groups()
    if "=" in code:
        return wrong | eval(f"dict({code})", names)
    return {name: value for name, value in wrong.items() if name != code}


@pytest.mark.filterwarnings("ignore:Memory and traffic are counted")
@pytest.mark.parametrize("name", CASES)
def test_advice_can_be_followed(name: str) -> None:
    case = CASES[name]
    wrong = case.wrong() if callable(case.wrong) else case.wrong
    with pytest.raises(case.error) as caught:
        case.call(**wrong)
    found = re.search(case.advice, str(caught.value))
    assert found, caught.value
    case.call(**taken(found, wrong))


def test_more_ranks_than_a_pool_has(pool_of: PoolOf, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = pool_of(2)
    options = {"num_samples": 4, "world_size": 4}
    with pytest.raises(ValueError, match="give machine=") as caught:
        spnb.plan(POSTERIOR, DATA, pool=pool, **options)
    code = re.search(r"give machine=(.*)\.$", str(caught.value))[1]
    here = dataclasses.replace(H100, name="here", ranks_per_host=2, between=None)
    monkeypatch.setattr(spnb, "calibrate", lambda _: here)  # which takes some seconds
    machine: Machine = eval(code, KNOWN | {"pool": pool})
    plan = spnb.plan(POSTERIOR, DATA, pool=pool, machine=machine, **options)
    assert plan.best.layout.size == 4 and plan.costs.origin == "measured"


def test_more_ranks_than_there_are(pool_of: PoolOf) -> None:
    """From this process into a pool, and there to a layout that gives each rank something to do."""
    options: dict[str, Any] = {"layout": Layout(2), "num_samples": 1}
    with pytest.raises(ValueError, match=r"spnb\.WorkerPool\(2\)\.run") as caught:
        spnb.gradients(POSTERIOR, DATA, **options)
    pool = pool_of(int(re.search(r"WorkerPool\((\d+)\)", str(caught.value))[1]))
    with pytest.raises(ValueError, match="would have nothing to do") as caught:
        pool.run(spnb.gradients, POSTERIOR, DATA, **options)
    options["layout"] = eval(re.search(LAYOUT, str(caught.value))[1], KNOWN)
    found = pool.run(spnb.gradients, POSTERIOR, DATA, **options)[0]
    expected = spnb.gradients(POSTERIOR, DATA, num_samples=1)
    assert all(torch.allclose(found[name], expected[name]) for name in expected)


def test_a_network_without_numbers(pool_of: PoolOf) -> None:
    batch = data("lstm")
    with torch.device("meta"):
        net = NETS["lstm"]()
    absent = spnb.MeanField(spnb.BayesianModel(net))
    with pytest.raises(ValueError, match="make net, posterior and data on a CPU"):
        costs.count(absent, batch, 16, H100)
    costs.count(spnb.MeanField(spnb.BayesianModel(NETS["lstm"]())), batch, 16, H100)
    with pytest.raises(ValueError, match="plan without a pool, for a machine and a world_size"):
        spnb.plan(absent_mlp(), data("mlp"), pool=pool_of(2))
    spnb.plan(absent_mlp(), data("mlp"), machine=H100, world_size=2)


def absent_mlp() -> spnb.MeanField:
    with torch.device("meta"):
        net = mlp((6, 8, 3))
    return spnb.MeanField(spnb.BayesianModel(net))


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "visible_gpus", lambda: 0)
    monkeypatch.setenv("SPNB_DEVICE", "cuda")
    with pytest.raises(RuntimeError, match=r"use (SPNB_DEVICE)=(cpu)\.$") as caught:
        devices.choose(0, 2)
    monkeypatch.setenv(*re.search(r"use (\w+)=(\w+)\.$", str(caught.value)).groups())
    assert devices.choose(0, 2) == (torch.device("cpu"), "gloo")


def test_what_cannot_be_shared() -> None:
    for wrong, mended in (
        (torch.eye(3).to_sparse(), torch.Tensor.to_dense),
        (torch.eye(3, device="meta"), None),
        (torch.eye(3).numpy(), torch.from_numpy),
    ):
        with pytest.raises((TypeError, ValueError), match=r"to_dense\(\) first|from_numpy\(\)"):
            spnb.share(wrong)
        if mended is not None:
            assert torch.equal(spnb.share(mended(wrong)), torch.eye(3))


def test_a_posterior_of_a_model(tmp_path: Any) -> None:
    net = nn.Linear(3, 2)
    with pytest.raises(
        TypeError, match=r"what spnb\.fit returned, or .*(spnb\.MeanField\(model\))"
    ):
        spnb.save(spnb.BayesianModel(net), tmp_path / "file")
    spnb.save(spnb.MeanField(spnb.BayesianModel(net)), tmp_path / "file")
