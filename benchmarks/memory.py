"""One process: the memory that a step takes, ours at several S, everybody's at the largest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median_low

import spnb
from benchmarks import ours
from benchmarks.measure import Run, made_here, peak_memory, peak_of_tensors, place
from benchmarks.one_process import Make, Row, contenders, missing, reason
from benchmarks.peers import PEERS
from benchmarks.workloads import WORKLOADS

#: steps at the largest S in which our own memory is measured; at a smaller S more, so that as many
#: samples are evaluated. Freed memory lies about in pieces, and what is resident grows for a while,
#: until it does so no more.
STEPS_OF_MEMORY = {"mlp": 48, "vit": 12}
#: the same for all others, whose graphs leave no doubt
STEPS_OF_OTHERS = 2


def run(cases: Mapping[str, Sequence[int]], tries: int) -> Row:
    """Measure peaks.

    Args:
        cases: the S at which our own memory is measured, by workload, in rising order; that of all
            others at the largest only.
        tries: processes in which each of our own peaks is measured; their median counts.
    """
    peaks: list[Row] = []
    skipped = missing()
    for workload, several in cases.items():
        print(f"  {WORKLOADS[workload].name}", flush=True)
        for objective, who, num_samples, make in to_weigh(workload, several):
            own = STEPS_OF_MEMORY[workload] * several[-1] // num_samples
            steps = own if who == "spnb" else STEPS_OF_OTHERS
            try:
                peak = median_low(
                    peak_memory(make, partial(plain, workload), steps)
                    for _ in range(tries if who == "spnb" else 1)
                )
            except Exception as error:  # a library that fails must not end the part
                skipped[f"{who}, {workload}"] = reason(error)
                continue
            row = {"workload": workload, "num_samples": num_samples, "who": who,
                   "objective": objective, "bytes": peak}  # fmt: skip
            if who == "spnb":
                row["tensor_bytes"] = peak_of_tensors(make)
            peaks.append(row)
    return {"device": str(place()), "peaks": peaks, "skipped": skipped}


def to_weigh(workload: str, several: Sequence[int]) -> list[tuple[str, str, int, Make]]:
    """What memory is measured of: objective, name, S and maker."""
    work, most = WORKLOADS[workload], several[-1]
    found: list[tuple[str, str, int, Make]] = []
    for num_samples in several:
        found.append(("ELBO", "spnb", num_samples, partial(ours.make_step, work, num_samples)))
    for num_samples in several:
        make = partial(
            ours.make_step, work, num_samples, objective=spnb.PredictiveNLL(), recompute=True
        )
        found.append(("PredictiveNLL, two passes", "spnb", num_samples, make))
    for name, make in contenders(workload, most).items():
        if name != "spnb":
            found.append(("ELBO", name, most, make))
    return found


def plain(workload: str) -> Run:
    """One plain pass, which loads what every step needs."""
    return made_here(PEERS["plain"].make_step, WORKLOADS[workload], 1)
