"""The planner held against measurements: step times of one and two ranks, on networks it never saw.

The machine is calibrated on its own reference networks, and each network's plain passes are timed;
from these alone the planner predicts whole Bayesian steps. Then the steps are measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import spnb
from benchmarks import ours
from benchmarks.measure import Run, Timing, compare, place
from benchmarks.scaling import Case, barrier, on_rank_0, shared
from benchmarks.workloads import WORKLOADS
from spnb.run.step_cost import predict

LAYOUTS = (spnb.Layout(1, 1), spnb.Layout(2, 1), spnb.Layout(1, 2))
PASSES = 16
"""Samples that a timed stretch has at least."""


def run(cases: Sequence[Case], rounds: int) -> dict[str, Any]:
    """Predict, then measure.

    Args:
        cases: workloads and S.
        rounds: number of rounds.
    """
    rows = []
    with spnb.WorkerPool(2, threads=1, silence=None) as pool:
        print(f"  two ranks, {rounds} rounds", flush=True)
        machine = spnb.calibrate(pool)
        device = pool.run(lambda: str(place()))[0]
        for workload, num_samples in cases:
            work = WORKLOADS[workload]
            plan = spnb.plan(
                ours.mean_field(work), work.batch(), num_samples=num_samples,
                pool=pool, machine=machine,
            )  # fmt: skip
            measured = pool.run(race, workload, num_samples, rounds)[0]
            for layout in LAYOUTS:
                found = predict(plan.costs, machine, layout, num_samples, work.batch_size)
                timing = measured[layout]
                rows.append(
                    {
                        "workload": workload,
                        "num_samples": num_samples,
                        "layout": str(layout),
                        "ranks": layout.size,
                        "predicted": found.seconds,
                        "parts": found.parts,
                        "error": found.seconds / timing.median - 1,
                        **asdict(timing),
                    }
                )
    return {"device": device, "machine": asdict(machine), "times": rows}


def race(workload: str, num_samples: int, rounds: int) -> dict[spnb.Layout, Timing]:
    """Time the layouts in turns; on every rank."""
    steps: dict[spnb.Layout, Run] = {}
    for layout in LAYOUTS:
        if layout.size == 1:
            alone = partial(ours.make_step, WORKLOADS[workload], num_samples)
            steps[layout] = on_rank_0(alone)
        else:
            steps[layout] = shared(workload, num_samples, layout)()
    repeats = {layout: max(1, PASSES // num_samples) for layout in LAYOUTS}
    return compare(steps, rounds, repeats=repeats, before=barrier)
