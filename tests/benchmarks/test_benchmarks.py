"""The measuring itself: turns, ratios, memory, what a step is, verdicts and figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from torch import Tensor, nn

import spnb
from benchmarks import __main__ as command
from benchmarks import at_scale, ddp, figures, goals, measure, one_gpu, ours, record, report, update
from benchmarks import pool as pools
from benchmarks.measure import Timing, compare, peak_memory, peak_of_tensors
from benchmarks.workloads import LEARNING_RATE, SEED, Workload
from spnb.maths.networks import mlp
from spnb.parallel.devices import KEPT_MEMORY

cloudpickle.register_pickle_by_value(sys.modules[__name__])

TINY = Workload(
    "tiny MLP", lambda: mlp((6, 8, 3), nn.Tanh), (6,), batch_size=16, num_data=500, classes=3
)


@pytest.fixture(scope="module")
def pool() -> Iterator[spnb.WorkerPool]:
    with spnb.WorkerPool(2, threads=1) as workers:
        yield workers


# -- measuring ------------------------------------------------------------------------------------


def test_steps_take_turns_after_a_warm_up() -> None:
    calls: list[str] = []
    steps = {name: (lambda name=name: calls.append(name)) for name in "ABC"}
    found = compare(steps, 2, repeats={"B": 2}, warm_up=1, before=lambda: calls.append("|"))
    assert "".join(calls) == "|A|B|C" + 2 * "|A|BB|C"
    assert {name: timing.n for name, timing in found.items()} == {"A": 2, "B": 2, "C": 2}


def test_ratios_are_formed_round_by_round() -> None:
    """A machine that becomes ten times slower halfway changes no ratio."""
    slow, fast = Timing.of([2.0, 2.2, 20.0, 22.0]), Timing.of([1.0, 1.1, 10.0, 11.0])
    ratio = slow.over(fast)
    assert ratio.rounds == [2.0, 2.0, 2.0, 2.0]
    assert (ratio.median, ratio.q1, ratio.q3, ratio.n) == (2.0, 2.0, 2.0, 4)
    assert slow.joined(Timing.of([3.0, 1.0, 30.0, 1.0])).rounds == [3.0, 2.2, 30.0, 22.0]


def test_a_longer_step_takes_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])

    def step(seconds: float) -> None:
        clock[0] += seconds

    steps = {"one": partial(step, 0.01), "two": partial(step, 0.02)}
    found = compare(steps, 3, repeats={"one": 2})
    assert found["one"].rounds == pytest.approx([0.01] * 3)
    assert found["two"].over(found["one"]).rounds == pytest.approx([2.0] * 3)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="there is no /proc")
@pytest.mark.pool
def test_peak_memory_sees_what_a_step_takes_and_gives_back() -> None:
    size = KEPT_MEMORY + 2**25  # so large that the C library gives it back at once

    def allocating() -> Any:
        kept = torch.ones(2**24)  # is there before the first step: does not count
        return lambda: torch.ones(size // 4)[: 2**24].add_(kept).sum()

    assert peak_memory(allocating, allocating, 4) == pytest.approx(size, rel=0.2)
    assert peak_of_tensors(allocating, 4) == pytest.approx(size, rel=0.01)


# -- what is measured -----------------------------------------------------------------------------


def test_our_step_is_that_of_fit() -> None:
    work = replace(TINY, num_data=TINY.batch_size)
    step = ours.make_step(work, 4)
    fitted = spnb.fit(
        ours.mean_field(work), work.batch(), num_samples=4, batch_size=work.batch_size, epochs=3,
        learning_rate=LEARNING_RATE, seed=SEED,
    )  # fmt: skip
    for loss in fitted.history.loss:
        step()
        assert step.loss == pytest.approx(loss, rel=1e-5)


def test_the_batch_counts_as_a_part_of_the_data() -> None:
    small, large = (ours.make_step(replace(TINY, num_data=n), 2) for n in (500, 1000))
    small(), large()
    posterior = ours.mean_field(TINY)
    divergence = posterior.divergence(posterior.prepare()).item()
    assert small.loss - large.loss == pytest.approx(divergence * (1 / 500 - 1 / 1000), rel=1e-3)


def test_ddp_does_our_step(pool: spnb.WorkerPool) -> None:
    def both() -> tuple[list[Tensor], list[Tensor]]:
        mine, theirs = ours.make_step(TINY, 3, layout=spnb.Layout(data=2)), ddp.make_step(TINY, 3)
        for _ in range(2):
            mine(), theirs()
        return [
            [p.detach().clone() for p in posterior.parameters()]
            for posterior in (mine.loop.work.posterior, theirs.posterior)
        ]

    before = list(ours.mean_field(TINY).parameters())
    for mine, theirs in pool.run(both):
        for start, one, other in zip(before, mine, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0.01 * LEARNING_RATE)
            assert (one - start).abs().max() > LEARNING_RATE


def test_ways_to_update_agree(pool: spnb.WorkerPool) -> None:
    def updated() -> list[Tensor]:
        ways = [way(101) for way in (update.OneSum, update.Sharded, update.Buckets)]
        for way in ways:
            way(), way()
        return [way.flat for way in ways] + [torch.tensor([way.state_bytes() for way in ways])]

    for one_sum, sharded, buckets, states in pool.run(updated):
        torch.testing.assert_close(sharded, one_sum)
        torch.testing.assert_close(buckets, one_sum)
        assert one_sum.abs().max() > LEARNING_RATE
        assert states[1] < 0.6 * states[0]


# -- what is made of it ---------------------------------------------------------------------------


def timing(seconds: float) -> dict[str, Any]:
    return asdict(Timing.of([seconds, 1.02 * seconds, 0.98 * seconds]))


def row(workload: str, num_samples: int, who: str, seconds: float, **more: Any) -> dict[str, Any]:
    about = {"workload": workload, "num_samples": num_samples, "who": who}
    return about | timing(seconds) | more


def made_up() -> dict[str, Any]:
    """A record of every part, in which some goals are met and others are not."""
    about = {
        "provenance": record.provenance(), "quick": False, "seconds_taken": 1.0,
        "others_busy": 0.5, "device": "cpu",
    }  # fmt: skip
    one = {"spnb": 1.04, "plain": 1.0, "stacked": 1.5, "TyXe": 3.0, "spnb, antithetic": 1.5}
    times = [
        row(workload, count, who, count * factor)
        for workload, counts in (("mlp", (16, 64)), ("vit", (8,)))
        for count in counts
        for who, factor in one.items()
    ]
    memory = [
        {
            "workload": "mlp",
            "num_samples": count,
            "who": "spnb",
            "objective": "ELBO",
            "bytes": size,
            "tensor_bytes": 500_000 + count,
        }  # fmt: skip
        for count, size in ((1, 10**6), (16, 2 * 10**6))
    ]
    two = {
        "one rank": 2.0, "sample-parallel": 1.05, "data-parallel": 1.2, "DDP": 1.3,
        "torch_blue, DDP": 1.9, "plain, one process": 1.8, "plain, two at once": 0.95,
    }  # fmt: skip
    sent = {"bytes_per_step": 680_000, "seconds_in_collectives": 0.001}
    pair = [
        row("mlp", 64, who, seconds, ranks=1 if "one" in who else 2, oversubscribed=False, **sent)
        for who, seconds in two.items()
    ]
    pair.append(row("mlp", 128, "sample-parallel", 2.1, ranks=2, oversubscribed=False, **sent))
    four = [
        row("mlp", 64, who, 1.0, ranks=ranks, oversubscribed=ranks == 4, **sent)
        for who, ranks in (("one rank", 1), ("sample=4 × data=1", 4))
    ]
    exact = {"plain averaging": 1.0, "exact": 1.01, "exact, two passes": 1.6}
    seconds = dict.fromkeys(goals.POOL, 0.03)
    return {
        "one_process": about | {"times": times, "skipped": {"Pyro": "no"}},
        "memory": about | {"peaks": memory, "skipped": {}},
        "scaling": about | {"two": pair, "four": four, "skipped": {}},
        "exactness": about | {"times": [row("mlp", 64, who, s) for who, s in exact.items()]},
        "update": about
        | {"times": [row("mlp", 1, "one sum", 0.001, weights=85_002, state_bytes=10**6)]},
        "prediction": about
        | {
            "times": [
                row("vit", 64, who, seconds, inputs=inputs)
                for inputs, two in ((64, 0.52), (256, 0.6))
                for who, seconds in (("one rank", 1.0), ("two ranks", two))
            ]
        },
        "sharding": about
        | {
            "times": [
                row("vit", 8, who, seconds, kept=kept, sent=10**6)
                for who, seconds, kept in (("data=2", 1.0, 200), ("shard=2", 1.2, 100))
            ]
        },
        "pool": about | {"seconds": seconds, "megabytes": 200},
    }


def test_verdicts() -> None:
    verdicts = {goal.name: goal.met for goal in goals.check(made_up())}
    assert verdicts["step in plain passes: ViT S = 8"] is True
    assert verdicts["step in plain passes: MLP S = 64"] is True
    assert verdicts["step in plain passes: MLP S = 64, antithetic"] is False
    assert verdicts["times faster than the fastest peer: MLP S = 16"] is True
    assert verdicts["resident peak memory, largest over smallest: MLP, ELBO"] is False
    assert verdicts["peak memory of tensors, largest over smallest: MLP, ELBO"] is True
    assert verdicts["resident peak memory, largest over smallest: ViT, ELBO"] is None
    assert verdicts["speed-up of 2 ranks: MLP S = 64"] is True
    assert verdicts["speed-up of 2 ranks: ViT S = 8"] is None
    assert verdicts["weak efficiency of 2 ranks: MLP S = 64 a rank"] is True
    assert verdicts["times faster than torch_blue with DDP: MLP S = 64"] is True
    assert verdicts["exact, over plain averaging: MLP S = 64"] is True
    assert verdicts["exact, two passes, over plain averaging: MLP S = 64"] is False
    assert verdicts["prediction, speed-up of 2 ranks: ViT S = 64, 64 inputs"] is True
    assert verdicts["prediction, speed-up of 2 ranks: ViT S = 64, 256 inputs"] is False
    assert verdicts["shard=2 over data=2: ViT S = 8, time"] is False
    assert verdicts["shard=2 over data=2: ViT S = 8, memory kept"] is True
    assert verdicts["pool: cold start to the first collective, ms"] is True
    assert verdicts["pool: run of an empty function, ms"] is False
    assert all(goal.met is None for goal in goals.check({}))


def test_report_and_figures_of_a_record(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name, part in made_up().items():
        record.write(tmp_path / "bench.json", name, part)
    assert command.main(["--show", "--out", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "NOT MET" in told and "not measured" in told and "OVERSUBSCRIBED" in told
    assert "Left out: Pyro (no)" in told
    speed_up, of_limit = "1.90", "101%"
    (line,) = [line for line in told.splitlines() if " 64  sample-parallel" in line]
    assert speed_up in line and of_limit in line
    assert {path.stem for path in tmp_path.glob("*.png")} == set(figures.FIGURES)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.glob("*.png"))


def test_parts_are_written_one_by_one_and_a_failure_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def failing() -> dict[str, Any]:
        raise RuntimeError("no luck")

    whole = made_up()
    pool_part = {key: whole["pool"][key] for key in ("device", "seconds", "megabytes")}
    monkeypatch.setattr(
        command, "PARTS", {"pool": (lambda: pool_part, {}, {}), "update": (failing, {}, {})}
    )
    assert command.main(["--out", str(tmp_path), "--quick"]) == 1
    printed = capsys.readouterr()
    assert "no luck" in printed.err and "Failed: update" in printed.out
    parts = json.loads((tmp_path / "bench.json").read_text("utf-8"))["parts"]
    assert list(parts) == ["pool"] and parts["pool"]["quick"] is True
    assert parts["pool"]["provenance"]["machine"]["cores"] >= 1
    with pytest.raises(SystemExit):
        command.main(["--parts", "nonsense"])


def test_other_programs_are_noticed() -> None:
    assert record.others((0.0, 5.0, 2.0), (10.0, 25.0, 12.0)) == 1.0
    assert record.others(None, None) is None
    assert "meanwhile: 0.50 cores" in report.heading("X", made_up()["pool"])


@pytest.mark.pool
@pytest.mark.exhaustive
def test_a_pool_is_measured_in_all_that_it_is_to_reach() -> None:
    found = pools.run(starts=1, calls=3, megabytes=1)
    assert set(goals.POOL) <= set(found["seconds"])
    assert all(seconds > 0 for seconds in found["seconds"].values())


# -- one GPU --------------------------------------------------------------------------------------


def test_the_record_of_a_gpu_holds_what_is_said_of_it() -> None:
    """README, notebook 09 and `docs/paper.md` quote it."""
    found = json.loads((record.ROOT / "docs" / "gpu.json").read_text())
    for row in found["memory"]:
        assert row["counted_absent"] == pytest.approx(row["measured"], rel=0.02)
    assert "NVIDIA" in one_gpu.text(found)
    one_by_one = [r for r in found["times"] if r["way"] == "one after the other"]
    assert all(0.9 < row["plain_steps_a_sample"] < 1.2 for row in one_by_one)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_is_nothing_to_measure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert one_gpu.main(["--out", str(tmp_path / "gpu.json")]) == 1
    assert "There is no GPU" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.exhaustive
def test_the_page_on_scale_holds_what_the_model_says() -> None:
    page = (Path(__file__).parents[2] / "docs/scale.md").read_text()
    first, second, _ = at_scale.jobs()
    for job in (first, second):
        assert at_scale.table(job, spnb.machines.H100) in page
