"""What the library is to reach, and whether a record says that it does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from benchmarks.exactness import AVERAGED, EXACT, TWO_PASSES
from benchmarks.measure import Timing

Row = dict[str, Any]

STEP = {"vit": 1.05, "mlp": 1.7, "mlp, antithetic": 1.4}
"""A step in plain passes, at most; for the MLP at these S:"""
MANY = (16, 64)
GROWTH = 1.10
"""Peak memory at the S where it is largest, over that where it is smallest, at most."""
STRONG = {("vit", 8): 1.85, ("mlp", 64): 1.7, ("mlp", 16): 1.4}
"""Speed-up of two ranks that share out the samples, at least."""
WEAK = {("vit", 4): 0.95, ("vit", 8): 0.95, ("mlp", 64): 0.88}
"""Efficiency with so many samples a rank, at least."""
PAPER = {("mlp", 64): 1.3, ("mlp", 16): 1.3, ("vit", 8): 1.0}
"""Speed over torch_blue with DDP on two ranks, at least."""
PREDICTION = {("vit", 64): 1.8}
"""Speed-up of a prediction on two ranks, at least."""
SHARDED = {("vit", 8): (1.15, 0.51), ("vit", 2): (1.15, 0.51)}
"""Two ranks that share out the parameters: time, and memory kept, over two that do not, at most."""
GATHERING, EVALUATING_TWICE = 1.05, 1.45
"""Time over plain averaging, at most."""
PREDICTED = 0.20
"""How far a predicted step time may be from the measured one."""
POOL = {
    "cold start to the first collective": 4.0,
    "run of an empty function": 0.020,
    "share and use a tensor": 0.35,
    "use it again": 0.04,
    "result of both ranks": 0.4,
    "error while the other rank waits": 0.5,
    "run after an error": 0.05,
    "argument that cannot be sent": 2.0,
    "settings that make no sense": 2.0,
    "100,000 printed lines": 4.0,
    "interrupt while training": 0.5,
    "interrupt in a deadlock": 1.3,
    "interrupt in the store": 2.0,
    "interrupt that is not heeded": 4.5,
    "interrupt during the start": 0.6,
    "a worker is killed": 1.0,
    "end of a killed program's workers": 2.0,
    "the doctor's examination": 20.0,
}
"""Seconds, at most; data of 200 MB."""


@dataclass(frozen=True)
class Goal:
    """A goal and what was found.

    Attributes:
        name: what is to be reached.
        target: the bound, as text.
        found: what was found, as text.
        met: whether it is reached; None: not measured.
    """

    name: str
    target: str
    found: str = "–"
    met: bool | None = None

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        return {True: "met", False: "NOT MET", None: "not measured"}[self.met]


def check(parts: dict[str, Row]) -> Iterator[Goal]:
    """All goals against a record.

    Args:
        parts: what was measured, by part; parts may be missing.
    """
    one = parts.get("one_process", {"times": []})
    yield from step_times(one["times"])
    yield from against_peers(one["times"])
    yield from memory(parts.get("memory", {"peaks": []})["peaks"])
    two = parts.get("scaling", {"two": []})["two"]
    yield from strong_scaling(two)
    yield from weak_scaling(two)
    yield from against_the_paper(two)
    yield from exactness(parts.get("exactness", {"times": []})["times"])
    yield from planner(parts.get("planner", {"times": []})["times"])
    yield from prediction(parts.get("prediction", {"times": []})["times"])
    yield from sharding(parts.get("sharding", {"times": []})["times"])
    seconds = parts.get("pool", {"seconds": {}})["seconds"]
    for name, bound in POOL.items():
        yield at_most(f"pool: {name}, ms", bound * 1e3, seconds.get(name) and seconds[name] * 1e3)


def step_times(rows: Sequence[Row]) -> Iterator[Goal]:
    """A step in plain passes."""
    vit = sorted({row["num_samples"] for row in rows if row["workload"] == "vit"})
    cases = [("vit", "spnb", count, STEP["vit"]) for count in vit or [8]]
    cases += [("mlp", "spnb", count, STEP["mlp"]) for count in MANY]
    cases += [("mlp", "spnb, antithetic", count, STEP["mlp, antithetic"]) for count in MANY]
    for workload, who, count, bound in cases:
        case = {"workload": workload, "num_samples": count}
        found = ratio_in(rows, case, who, "plain")
        antithetic = ", antithetic" if "antithetic" in who else ""
        yield at_most(f"step in plain passes: {label(workload, count)}{antithetic}", bound, found)


def against_peers(rows: Sequence[Row]) -> Iterator[Goal]:
    """Faster than every other library; the one that comes closest counts."""
    for workload, count in cases_of(rows):
        case = {"workload": workload, "num_samples": count}
        found = {
            row["who"]: ratio_in(rows, case, row["who"], "spnb")
            for row in rows
            if {**row, **case} == row and row["who"].split(",")[0] not in ("spnb", "plain")
        }
        rest = {who: timing for who, timing in found.items() if timing is not None}
        name = f"times faster than the fastest peer: {label(workload, count)}"
        if not rest:
            yield Goal(name, "> 1")
            continue
        closest = min(rest, key=lambda who: rest[who].median)
        value = rest[closest].median
        yield Goal(name, "> 1", f"{value:.2f} ({closest})", value > 1)


def memory(rows: Sequence[Row]) -> Iterator[Goal]:
    """Peak memory that does not grow with S."""
    measures = {"tensor_bytes": "peak memory of tensors", "bytes": "resident peak memory"}
    for (measure, what), workload, objective in product(
        measures.items(), ("mlp", "vit"), ("ELBO", "PredictiveNLL, two passes")
    ):
        peaks = {
            row["num_samples"]: row[measure]
            for row in rows
            if (row["workload"], row["objective"], row["who"]) == (workload, objective, "spnb")
            and measure in row
        }
        name = f"{what}, largest over smallest: {workload_name(workload)}, {objective}"
        if len(peaks) < 2:
            yield Goal(name, f"≤ {GROWTH:g}")
            continue
        growth = max(peaks.values()) / min(peaks.values())
        across = ", ".join(f"{size / 1e6:.1f}" for _, size in sorted(peaks.items()))
        counts = ", ".join(str(count) for count in sorted(peaks))
        found = f"{growth:.2f} ({across} MB at S = {counts})"
        yield Goal(name, f"≤ {GROWTH:g}", found, growth <= GROWTH)


def strong_scaling(rows: Sequence[Row]) -> Iterator[Goal]:
    """Speed-up of two ranks at the same work."""
    for (workload, count), bound in STRONG.items():
        case = {"workload": workload, "num_samples": count}
        found = ratio_in(rows, case, "one rank", "sample-parallel")
        yield at_least(f"speed-up of 2 ranks: {label(workload, count)}", bound, found)


def weak_scaling(rows: Sequence[Row]) -> Iterator[Goal]:
    """Efficiency of two ranks at the same work a rank."""
    found = {(workload, each): efficiency for workload, each, efficiency in weak(rows)}
    for (workload, each), bound in WEAK.items():
        name = f"weak efficiency of 2 ranks: {label(workload, each)} a rank"
        yield at_least(name, bound, found.get((workload, each)))


def weak(rows: Sequence[Row]) -> Iterator[tuple[str, int, Timing]]:
    """Workload, samples a rank and efficiency, wherever a record has both ends."""
    for row in rows:
        if row["who"] == "one rank":
            workload, each = row["workload"], row["num_samples"]
            wide = find(rows, workload=workload, num_samples=2 * each, who="sample-parallel")
            if wide:
                yield workload, each, ratio(row, wide)


def against_the_paper(rows: Sequence[Row]) -> Iterator[Goal]:
    """Faster than torch_blue with DDP; the faster of its two variants counts."""
    for (workload, count), bound in PAPER.items():
        case = {"workload": workload, "num_samples": count}
        variants = ("torch_blue, DDP", "torch_blue, analytic KL, DDP")
        found = [ratio_in(rows, case, who, "sample-parallel") for who in variants]
        name = f"times faster than torch_blue with DDP: {label(workload, count)}"
        rest = [timing for timing in found if timing is not None]
        yield at_least(name, bound, min(rest, key=lambda t: t.median) if rest else None)


def exactness(rows: Sequence[Row]) -> Iterator[Goal]:
    """What exactness costs over plain averaging."""
    for who, bound in ((EXACT, GATHERING), (TWO_PASSES, EVALUATING_TWICE)):
        for workload, count in cases_of(rows) or [("mlp", 16)]:
            case = {"workload": workload, "num_samples": count}
            found = ratio_in(rows, case, who, AVERAGED)
            yield at_most(f"{who}, over plain averaging: {label(workload, count)}", bound, found)


def planner(rows: Sequence[Row]) -> Iterator[Goal]:
    """Predicted against measured step times of one and two ranks."""
    if not rows:
        yield Goal("step time as predicted", f"± {PREDICTED:.0%}")
    for row in rows:
        name = f"step time as predicted: {label(row['workload'], row['num_samples'])}"
        found = f"{row['error']:+.0%} ({1e3 * row['predicted']:.1f} / {1e3 * row['median']:.1f} ms)"
        met = abs(row["error"]) <= PREDICTED
        yield Goal(f"{name}, {row['layout']}", f"± {PREDICTED:.0%}", found, met)


def prediction(rows: Sequence[Row]) -> Iterator[Goal]:
    """Speed-up of two ranks that share the samples of a prediction."""
    for (workload, count), bound in PREDICTION.items():
        case = {"workload": workload, "num_samples": count}
        name = f"prediction, speed-up of 2 ranks: {label(workload, count)}"
        sizes = dict.fromkeys(row["inputs"] for row in rows if {**row, **case} == row)
        if not sizes:
            yield at_least(name, bound, None)
        for size in sizes:
            found = ratio_in(rows, case | {"inputs": size}, "one rank", "two ranks")
            yield at_least(f"{name}, {size} inputs", bound, found)


def sharding(rows: Sequence[Row]) -> Iterator[Goal]:
    """Time and memory of shared-out parameters, over sharing the rows alone."""
    for (workload, count), (slower, smaller) in SHARDED.items():
        case = {"workload": workload, "num_samples": count}
        name = f"shard=2 over data=2: {label(workload, count)}"
        yield at_most(f"{name}, time", slower, ratio_in(rows, case, "shard=2", "data=2"))
        kept = {row["who"]: row["kept"] for row in rows if {**row, **case} == row}
        share = kept["shard=2"] / kept["data=2"] if kept else None
        yield at_most(f"{name}, memory kept", smaller, share)


def at_most(name: str, bound: float, found: Timing | float | None) -> Goal:
    """A goal with an upper bound."""
    return _bounded(name, f"≤ {bound:g}", found, lambda value: value <= bound)


def at_least(name: str, bound: float, found: Timing | float | None) -> Goal:
    """A goal with a lower bound."""
    return _bounded(name, f"≥ {bound:g}", found, lambda value: value >= bound)


def _bounded(name: str, target: str, found: Timing | float | None, holds: Any) -> Goal:
    if found is None:
        return Goal(name, target)
    if isinstance(found, Timing):
        shown = f"{found.median:.3f} ({found.q1:.3f}–{found.q3:.3f})"
        return Goal(name, target, shown, holds(found.median))
    return Goal(name, target, f"{found:.4g}", holds(found))


def find(rows: Sequence[Row], **fields: Any) -> Row | None:
    """The first row with these values, if any."""
    return next((row for row in rows if {**row, **fields} == row), None)


def ratio(row: Row, reference: Row) -> Timing:
    """A row's time over another's, round by round."""
    return Timing.from_row(row).over(Timing.from_row(reference))


def ratio_in(rows: Sequence[Row], case: Row, who: str, reference: str) -> Timing | None:
    """The same for two in a record, None where one is missing."""
    mine, theirs = find(rows, **case, who=who), find(rows, **case, who=reference)
    return ratio(mine, theirs) if mine and theirs else None


def cases_of(rows: Sequence[Row]) -> list[tuple[str, int]]:
    """The workloads and S of a record, in order."""
    return list(dict.fromkeys((row["workload"], row["num_samples"]) for row in rows))


def label(workload: str, num_samples: int) -> str:
    """A case in a few characters."""
    return f"{workload_name(workload)} S = {num_samples}"


def workload_name(workload: str) -> str:
    """A workload in three characters."""
    return {"mlp": "MLP", "vit": "ViT"}.get(workload, workload)
