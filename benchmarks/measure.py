"""How time and memory are measured: in rounds A B C A B C …, and from the kernel's own books.

A machine is never quite its own: other programs come and go, clocks rise and fall. So what is to
be compared takes turns, and a ratio is formed within each round, where both sides met the same
machine; its median over the rounds is what counts.
"""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.profiler import ProfilerActivity, profile

import spnb
from benchmarks.workloads import Workload
from spnb.parallel.collectives import is_rank, local_device

Name = TypeVar("Name", bound=Hashable)
Run = Callable[[], Any]

WARM_UP = 2
"""Steps before the clock runs: first use of a library, a compiler, an optimiser's state."""


@dataclass(frozen=True)
class Timing:
    """What was found in each round: seconds of a step, or ratios of two.

    Attributes:
        median: of the rounds.
        q1: first quartile.
        q3: third quartile.
        n: number of rounds.
        rounds: the values, in order.
    """

    median: float
    q1: float
    q3: float
    n: int
    rounds: list[float]

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Timing:
        """The summary of some rounds, at least one."""
        values = [float(f"{value:.6g}") for value in rounds]
        if len(values) == 1:
            return cls(values[0], values[0], values[0], 1, values)
        q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, q1, q3, len(values), values)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Timing:
        """The timing that a row of a record holds among other things."""
        return cls(**{field.name: row[field.name] for field in fields(cls)})

    def over(self, reference: Timing) -> Timing:
        """This divided by another's, round by round."""
        pairs = zip(self.rounds, reference.rounds, strict=True)
        return Timing.of([mine / theirs for mine, theirs in pairs])

    def joined(self, other: Timing) -> Timing:
        """The later of two that ran at the same time, round by round."""
        return Timing.of([max(pair) for pair in zip(self.rounds, other.rounds, strict=True)])


def compare(
    steps: Mapping[Name, Run],
    rounds: int,
    *,
    repeats: Mapping[Name, int] | None = None,
    warm_up: int = WARM_UP,
    before: Run | None = None,
) -> dict[Name, Timing]:
    """Time some steps in turns.

    Args:
        steps: what to call, by name; called in this order in every round.
        rounds: how often.
        repeats: calls in a row for those that are short; the time is that of one. Default: 1.
        warm_up: calls of each before the first round.
        before: called before the clock starts, each time, such as a barrier of several ranks.

    Returns:
        Seconds of one call, by name.
    """
    before = before or _nothing
    for step in steps.values():
        before()
        for _ in range(warm_up):
            step()
    seconds: dict[Name, list[float]] = {name: [] for name in steps}
    gc.collect()
    gc.freeze()  # what lives on need not be looked at again and again, in whoever's turn it is
    try:
        for _ in range(rounds):
            for name, step in steps.items():
                calls = (repeats or {}).get(name, 1)
                before()
                synchronise()
                start = time.perf_counter()
                for _ in range(calls):
                    step()
                synchronise()
                seconds[name].append((time.perf_counter() - start) / calls)
    finally:
        gc.unfreeze()
    return {name: Timing.of(found) for name, found in seconds.items()}


def peak_memory(
    make_step: Callable[[], Run],
    warm_up: Callable[[], Run] | None = None,
    steps: int = WARM_UP,
) -> int:
    """Bytes that a few steps take at most, above what is there before the first one.

    In a process of its own. An optimiser's state, which is made in the first step, counts; the
    network, the batch and all code that `warm_up` has loaded do not.

    Args:
        make_step: makes the step.
        warm_up: makes another step, which is called once before and forgotten.
        steps: how many to take.

    Raises:
        NotImplementedError: the system keeps no books of a process' memory.
    """
    with spnb.WorkerPool(1, threads=1, silence=None) as pool:
        return pool.run(peak_here, make_step, warm_up, steps)[0]


def peak_of_tensors(make_step: Callable[[], Run], steps: int = WARM_UP) -> int:
    """The same, but counting what tensors ask for, whatever the C library makes of it.

    Freed memory that lies about in pieces does not count, so this is what `peak_memory` would find
    with a perfect allocator, and what torch's own allocator reports on a GPU.
    """
    with spnb.WorkerPool(1, threads=1, silence=None) as pool:
        return pool.run(_tensors_here, make_step, steps)[0]


def _tensors_here(make_step: Callable[[], Run], steps: int) -> int:
    step = make_step()
    gc.collect()
    if place().type == "cuda":
        return peak_here(lambda: step, steps=steps)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        for _ in range(steps):
            step()
    assert found.profiler is not None and found.profiler.kineto_results is not None
    events = found.profiler.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    held = list(accumulate(size for _, size in sorted(changes)))
    return max(held, default=0)


def peak_here(
    make_step: Callable[[], Run],
    warm_up: Callable[[], Run] | None = None,
    steps: int = WARM_UP,
) -> int:
    """The same in this process; memory that it has used before is given back first."""
    if warm_up is not None:
        warm_up()()
    step = make_step()
    gc.collect()
    if place().type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        base = torch.cuda.memory_allocated()
        for _ in range(steps):
            step()
        return torch.cuda.max_memory_allocated() - base
    highest = Path("/proc/self/clear_refs")
    if not highest.exists():
        raise NotImplementedError("peak memory is read from /proc, which only Linux has.")
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # freed memory that the C library has kept
        libc.malloc_trim(0)
    highest.write_text("5")  # the high-water mark is now what is resident now
    base = _resident("VmRSS")
    for _ in range(steps):
        step()
    return _resident("VmHWM") - base


def _resident(field: str) -> int:
    """A line of the kernel's account of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise NotImplementedError(f"/proc/self/status has no {field}.")


def place() -> torch.device:
    """Where this process computes: a rank's own device, else the CPU."""
    return local_device()[0] if is_rank() else torch.device("cpu")


def synchronise() -> None:
    """Wait for the GPU, if one is in use."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class _Placed(Workload):
    """A workload on this process' GPU, with the same numbers as on a CPU."""

    def net(self) -> torch.nn.Module:
        with torch.device("cpu"):
            return super().net().to(place())

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.device("cpu"):
            x, y = super().batch()
        return x.to(place()), y.to(place())


def made_here(make: Callable[[Workload, int], Run], work: Workload, num_samples: int) -> Run:
    """A step made on this process' device, whether or not its library speaks of devices.

    Args:
        make: a function ``(work, num_samples) -> step``.
        work: the workload.
        num_samples: S.
    """
    if place().type == "cpu":
        return make(work, num_samples)
    everywhere = torch.device(place())
    with everywhere:
        step = make(_Placed(**vars(work)), num_samples)
    try:
        step()
        return step
    except RuntimeError:  # it makes tensors of its own in a step, on the default device

        def within() -> None:
            with everywhere:
                step()

        return within
