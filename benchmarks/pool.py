"""The worker pool itself: how long it takes to start, to be called, and to carry data."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

import spnb
from benchmarks.measure import place

RANKS = 2


def run(starts: int, calls: int, megabytes: int) -> dict[str, Any]:
    """Time a pool of two.

    Args:
        starts: how often to start one.
        calls: how often to call an empty function.
        megabytes: size of what is carried, in 10^6 bytes.
    """
    print(f"  {starts} starts, {calls} calls, {megabytes} MB", flush=True)
    cold = []
    for _ in range(starts):
        start = time.perf_counter()
        with spnb.WorkerPool(RANKS, threads=1) as pool:
            pool.run(first_sum)
            cold.append(time.perf_counter() - start)
    with spnb.WorkerPool(RANKS, threads=1) as pool:
        pool.run(first_sum)
        empty = [seconds(lambda: pool.run(nothing)) for _ in range(calls)]
        data = torch.ones(megabytes * 10**6 // 4)
        start = time.perf_counter()
        shared = spnb.share(data)
        pool.run(total, shared)
        first = time.perf_counter() - start
        again = statistics.median(seconds(lambda: pool.run(total, shared)) for _ in range(3))
        result = statistics.median(
            seconds(lambda: pool.run(of_rank_0, megabytes)) for _ in range(3)
        )
        device = pool.run(lambda: str(place()))[0]
    return {
        "device": device,
        "megabytes": megabytes,
        "seconds": {
            "cold start to the first collective": statistics.median(cold),
            "run of an empty function": statistics.median(empty),
            "share and use a tensor": first,
            "use it again": again,
            "result of one rank": result,
        },
        "cold_starts": cold,
        "empty_runs": empty,
    }


def seconds(function: Callable[[], Any]) -> float:
    """How long a call takes; its result is dropped afterwards."""
    start = time.perf_counter()
    result = function()
    taken = time.perf_counter() - start
    del result
    return taken


def first_sum() -> float:
    """A first collective."""
    one = torch.ones(1, device=place())
    dist.all_reduce(one)
    return one.item()


def nothing() -> None:
    """An empty function."""


def total(x: torch.Tensor) -> float:
    """Look at all of a tensor."""
    return x.sum().item()


def of_rank_0(megabytes: int) -> torch.Tensor | None:
    """A large result of one rank."""
    return torch.ones(megabytes * 10**6 // 4) if dist.get_rank() == 0 else None
