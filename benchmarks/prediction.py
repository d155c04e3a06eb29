"""Prediction with many samples: two ranks that share them, against one rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import spnb
from benchmarks import ours
from benchmarks.measure import Run, Timing, compare, place
from benchmarks.scaling import Case, barrier, on_rank_0
from benchmarks.workloads import WORKLOADS

ONE, TWO = "one rank", "two ranks"


def run(cases: Sequence[Case], inputs: Sequence[int], rounds: int) -> dict[str, Any]:
    """Measure.

    Args:
        cases: workloads and S.
        inputs: how many inputs to predict for.
        rounds: number of rounds.
    """
    times = []
    with spnb.WorkerPool(2, threads=1, silence=None) as pool:
        print(f"  prediction, {rounds} rounds", flush=True)
        device = pool.run(lambda: str(place()))[0]
        for workload, num_samples in cases:
            for count in inputs:
                found = pool.run(race, workload, num_samples, count, rounds)[0]
                about = {"workload": workload, "num_samples": num_samples, "inputs": count}
                times += [about | {"who": who, **asdict(timing)} for who, timing in found.items()]
    return {"device": device, "times": times}


def race(workload: str, num_samples: int, inputs: int, rounds: int) -> dict[str, Timing]:
    """Time both in turns; on every rank."""
    work = WORKLOADS[workload]
    posterior = ours.mean_field(work).to(place()).eval()
    x = work.batch()[0]
    x = x.repeat(-(-inputs // len(x)), *[1] * (x.dim() - 1))[:inputs]

    def way(layout: spnb.Layout | None) -> Run:
        def step() -> None:
            spnb.predict(posterior, x, num_samples=num_samples, layout=layout)

        return step

    ways = {ONE: on_rank_0(lambda: way(None)), TWO: way(spnb.Layout(sample=2))}
    return compare(ways, rounds, warm_up=1, before=barrier)
