"""What exactness costs: gathering the predictions against averaging gradients, on two ranks.

The objective is the negative logarithm of the mean prediction, which is not linear in the samples.
Exact, the predictions of all samples are gathered first (`spnb.PredictiveNLL`). The paper's
approximation averages the gradients of each rank's own loss (`spnb.PlainAveraging`). A third way
is exact as well and evaluates every sample twice, so that memory does not grow with S.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import spnb
from benchmarks import ours
from benchmarks.measure import Run, Timing, compare, place
from benchmarks.scaling import PASSES, Case, Key, barrier
from benchmarks.workloads import WORKLOADS

EXACT, TWO_PASSES, AVERAGED = "exact", "exact, two passes", "plain averaging"


def run(cases: Sequence[Case], rounds: int) -> dict[str, Any]:
    """Measure what exactness costs.

    Args:
        cases: workloads and S.
        rounds: number of rounds.
    """
    with spnb.WorkerPool(2, threads=1, silence=None) as pool:
        print(f"  two ranks, {rounds} rounds", flush=True)
        device, timings = pool.run(race, cases, rounds)[0]
    rows = [
        {"workload": workload, "num_samples": num_samples, "who": who, **asdict(timing)}
        for (workload, num_samples, who), timing in timings.items()
    ]
    return {"device": device, "times": rows}


def race(cases: Sequence[Case], rounds: int) -> tuple[str, dict[Key, Timing]]:
    """Time the three ways in turns; on every rank."""
    steps: dict[Key, Run] = {}
    for workload, num_samples in cases:
        for who, objective, recompute in (
            (AVERAGED, spnb.PlainAveraging(spnb.PredictiveNLL()), False),
            (EXACT, spnb.PredictiveNLL(), False),
            (TWO_PASSES, spnb.PredictiveNLL(), True),
        ):
            steps[workload, num_samples, who] = ours.make_step(
                WORKLOADS[workload],
                num_samples,
                layout=spnb.Layout(sample=2),
                objective=objective,
                recompute=recompute,
            )
    repeats = {(w, s, who): max(1, PASSES[w] // s) for w, s, who in steps}
    return str(place()), compare(steps, rounds, repeats=repeats, before=barrier)
