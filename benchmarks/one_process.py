"""One process: the time of a step in plain passes.

A *plain pass* is a forward and backward pass of the same network without anything Bayesian. S of
them are the least that S samples can cost, so S plain passes are the unit for a step of S samples.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import spnb
from benchmarks import ours
from benchmarks.measure import Run, Timing, compare, made_here, place
from benchmarks.peers import PEERS
from benchmarks.workloads import WORKLOADS

Make = Callable[[], Run]
Row = dict[str, Any]

#: steps in a row at S = 1, so that what is timed is never much shorter than this many passes
REPEATS = {"mlp": 8, "vit": 1}


def run(rounds: Mapping[str, Mapping[int, int]]) -> Row:
    """Measure step times.

    Args:
        rounds: number of rounds by workload and S.
    """
    times: list[Row] = []
    skipped: dict[str, str] = {}
    with spnb.WorkerPool(1, threads=1, silence=None) as pool:
        device = pool.run(lambda: str(place()))[0]
        for workload, by_samples in rounds.items():
            for num_samples, count in by_samples.items():
                print(f"  {WORKLOADS[workload].name}, S = {num_samples}", flush=True)
                found, left_out = pool.run(race, workload, num_samples, count)[0]
                skipped |= left_out
                times += [
                    {"workload": workload, "num_samples": num_samples, "who": who, **asdict(timing)}
                    for who, timing in found.items()
                ]
    return {"device": device, "times": times, "skipped": skipped}


def contenders(workload: str, num_samples: int) -> dict[str, Make]:
    """Everybody's maker of the step, by name: plain passes, ours, and the peers installed here."""
    work = WORKLOADS[workload]
    found: dict[str, Make] = {"spnb": partial(ours.make_step, work, num_samples)}
    if num_samples % 2 == 0:
        found["spnb, antithetic"] = partial(ours.make_step, work, num_samples, antithetic=True)
    for name, peer in PEERS.items():
        if peer.version() is not None:
            found[name] = partial(made_here, peer.make_step, work, num_samples)
    return found


def missing() -> dict[str, str]:
    """The peers that are not installed."""
    return {name: "not installed" for name, peer in PEERS.items() if peer.version() is None}


def race(workload: str, num_samples: int, rounds: int) -> tuple[dict[str, Timing], dict[str, str]]:
    """Time everybody's step in turns, in this process.

    Returns:
        Timings by name, and why some are missing.
    """
    warnings.filterwarnings("ignore", "There is a performance drop")  # attention under vmap
    steps: dict[str, Run] = {}
    skipped = missing()
    for name, make in contenders(workload, num_samples).items():
        try:
            steps[name] = make()
            steps[name]()
        except Exception as error:  # a library that fails must not end the race
            steps.pop(name, None)
            skipped[f"{name}, {workload}, S = {num_samples}"] = reason(error)
    repeats = dict.fromkeys(steps, max(1, REPEATS[workload] // num_samples))
    return compare(steps, rounds, repeats=repeats), skipped


def reason(error: Exception) -> str:
    """An error in a line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]
