"""Two ranks: strong and weak scaling, against torch's DDP, torch_blue and the machine itself.

*Strong*: the same work on more ranks; the speed-up over one rank. *Weak*: the same work a rank;
the time of one rank divided by that of all.

All ways take turns in one pool, so that whatever else the machine does meets all of them. A step's
time is rank 0's, from a common barrier to the end of its step. Where only rank 0 works the others
wait in the barrier. The *machine's limit* needs no communication at all: two processes do plain
passes, each its half of them, at the same time; the later one counts. What keeps them from being
twice as fast as one (shared caches, memory, clocks) keeps everybody.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch.distributed as dist

import spnb
from benchmarks import ddp, ours
from benchmarks.measure import Run, Timing, compare, made_here, place
from benchmarks.one_process import reason
from benchmarks.peers import PARALLEL_PEERS, PEERS
from benchmarks.workloads import WORKLOADS
from spnb.parallel import devices

Case = tuple[str, int]  #: a workload, and S over all ranks
Key = tuple[str, int, str]  #: the same, and who
Row = dict[str, Any]

ALONE, TOGETHER = "plain, one process", "plain, two at once"
STEPS_OF_TRAFFIC = 5
PASSES = {"mlp": 64, "vit": 8}
"""Samples that a timed stretch has at least: steps of fewer are repeated, as they are in a run."""


def run(strong: Sequence[Case], weak: Sequence[Case], four: Sequence[Case], rounds: int) -> Row:
    """Measure all scaling.

    Args:
        strong: the work that is shared out.
        weak: the work of each rank.
        four: the work that four ranks share out.
        rounds: number of rounds.
    """
    with spnb.WorkerPool(2, threads=1, silence=None) as pool:
        print(f"  two ranks, {rounds} rounds", flush=True)
        results = pool.run(race, two_ranks, strong, weak, rounds)
    rows = rows_of(results, 2)
    with spnb.WorkerPool(4, threads=1, silence=None) as pool:
        print(f"  four ranks, {rounds} rounds", flush=True)
        found = pool.run(race, four_ranks, four, (), rounds)
    rows_of_four = rows_of(found, 4)
    return {
        "device": results[0]["device"],
        "two": rows,
        "four": rows_of_four,
        "skipped": results[0]["skipped"],
    }


def race(
    makers: Callable[[Sequence[Case], Sequence[Case]], dict[Key, Callable[[], Run]]],
    strong: Sequence[Case],
    weak: Sequence[Case],
    rounds: int,
) -> Row:
    """Time all ways in turns; on every rank."""
    warnings.filterwarnings("ignore", "There is a performance drop")  # attention under vmap
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")
    steps: dict[Key, Run] = {}
    skipped: dict[str, str] = {
        name: "not installed" for name, peer in PARALLEL_PEERS.items() if peer.version() is None
    }
    for key, make in makers(strong, weak).items():
        try:
            steps[key] = make()
        except NotImplementedError as error:  # on all ranks alike
            skipped[f"{key[2]}, {key[0]}, S = {key[1]}"] = reason(error)
    repeats = {(w, s, who): max(1, PASSES[w] // s) for w, s, who in steps}
    timings = compare(steps, rounds, repeats=repeats, before=barrier)
    return {
        "device": str(place()),
        "timings": timings,
        "traffic": {key: traffic(step) for key, step in steps.items()},
        "skipped": skipped,
    }


def two_ranks(strong: Sequence[Case], weak: Sequence[Case]) -> dict[Key, Callable[[], Run]]:
    """The makers of all ways of two ranks; on every rank the same ones in the same order."""
    makers: dict[Key, Callable[[], Run]] = {}
    for workload, num_samples in strong:
        work = WORKLOADS[workload]
        plain = partial(made_here, PEERS["plain"].make_step, work)
        ways: dict[str, Callable[[], Run]] = {
            "one rank": partial(on_rank_0, partial(ours.make_step, work, num_samples)),
            "sample-parallel": shared(workload, num_samples, spnb.Layout(sample=2)),
            "data-parallel": shared(workload, num_samples, spnb.Layout(data=2)),
            "DDP": partial(ddp.make_step, work, num_samples),
            ALONE: partial(on_rank_0, partial(plain, num_samples)),
            TOGETHER: partial(plain, num_samples // 2),
        }
        for name, peer in PARALLEL_PEERS.items():
            if peer.version() is not None:
                ways[name] = partial(made_here, peer.make_step, work, num_samples)
        makers |= {(workload, num_samples, who): make for who, make in ways.items()}
    for workload, each in weak:
        alone = partial(on_rank_0, partial(ours.make_step, WORKLOADS[workload], each))
        makers.setdefault((workload, each, "one rank"), alone)
        together = shared(workload, 2 * each, spnb.Layout(sample=2))
        makers.setdefault((workload, 2 * each, "sample-parallel"), together)
    return makers


def four_ranks(strong: Sequence[Case], weak: Sequence[Case]) -> dict[Key, Callable[[], Run]]:
    """The makers of all layouts of four ranks."""
    makers: dict[Key, Callable[[], Run]] = {}
    for workload, num_samples in strong:
        alone = partial(ours.make_step, WORKLOADS[workload], num_samples)
        makers[workload, num_samples, "one rank"] = partial(on_rank_0, alone)
        for layout in (spnb.Layout(4, 1), spnb.Layout(2, 2), spnb.Layout(1, 4)):
            makers[workload, num_samples, str(layout)] = shared(workload, num_samples, layout)
    return makers


def shared(workload: str, num_samples: int, layout: spnb.Layout) -> Callable[[], Run]:
    """The maker of our step in a layout."""
    return partial(ours.make_step, WORKLOADS[workload], num_samples, layout=layout)


def on_rank_0(make: Callable[[], Run]) -> Run:
    """A step that only rank 0 takes."""
    return make() if dist.get_rank() == 0 else idle


def idle() -> None:
    """What the other ranks do meanwhile."""


def barrier() -> None:
    """Wait for all ranks."""
    dist.barrier()


def traffic(step: Run) -> tuple[float, float] | None:
    """Bytes handed to collectives and seconds spent in them, waiting included, in a step."""
    if not isinstance(step, ours.OurStep) or step.loop.work.communicator.size == 1:
        return None
    barrier()
    sent, seconds = step.sent()
    for _ in range(STEPS_OF_TRAFFIC):
        step()
    sent_after, seconds_after = step.sent()
    return (sent_after - sent) / STEPS_OF_TRAFFIC, (seconds_after - seconds) / STEPS_OF_TRAFFIC


def rows_of(results: Sequence[Row], ranks: int) -> list[Row]:
    """The rows of a record: rank 0's times, and of two that do not wait for each other the later.

    Args:
        results: what `race` found on each rank.
        ranks: their number.
    """
    on_gpus = results[0]["device"].startswith("cuda")
    places = devices.visible_gpus() if on_gpus else devices.usable_cores()
    rows = []
    for key, timing in results[0]["timings"].items():
        workload, num_samples, who = key
        if who == TOGETHER:
            timing = Timing.joined(timing, results[1]["timings"][key])
        sent = results[0]["traffic"][key]
        active = 1 if who in ("one rank", ALONE) else ranks
        rows.append(
            {
                "workload": workload,
                "num_samples": num_samples,
                "who": who,
                "ranks": active,
                "oversubscribed": active > places,
                "bytes_per_step": sent and sent[0],
                "seconds_in_collectives": sent and sent[1],
                **asdict(timing),
            }
        )
    return rows
