"""Ways to bring two ranks' gradients together and update 2P parameters: evidence for our choice.

1. *one sum*: one all-reduce of everything, every rank updates everything. What the library does.
2. *sharded*: each rank gets the sum of its part only, updates that part, and the parts are
   gathered (ZeRO, arXiv 1910.02054). The optimiser's state is divided by the number of ranks.
3. *buckets*: a few all-reduces at the same time, as DDP sends them, here with nothing to overlap
   them with.

Nothing else is in these times: no forward pass, no checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import AdamW

import spnb
from benchmarks.measure import Timing, compare, place
from benchmarks.scaling import barrier
from benchmarks.workloads import LEARNING_RATE, WORKLOADS

BUCKETS = 4


def run(rounds: Mapping[str, int]) -> dict[str, Any]:
    """Time the ways for the parameters of each workload.

    Args:
        rounds: number of rounds, by workload.
    """
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    with spnb.WorkerPool(2, threads=1, silence=None) as pool:
        device = pool.run(lambda: str(place()))[0]
        for workload, count in rounds.items():
            print(f"  two ranks: {WORKLOADS[workload].name}, {count} rounds", flush=True)
            weights = sum(p.numel() for p in WORKLOADS[workload].net().parameters())
            timings, states, notes = pool.run(race, weights, count)[0]
            rows += [
                {"workload": workload, "weights": weights, "who": who,
                 "state_bytes": states[who], **asdict(timing)}
                for who, timing in timings.items()
            ]  # fmt: skip
    return {"device": device, "times": rows, "notes": notes}


def race(num_weights: int, rounds: int) -> tuple[dict[str, Timing], dict[str, int], list[str]]:
    """Time the ways in turns; on every rank.

    Returns:
        Timings, bytes of this rank's optimiser state, and notes.
    """
    ways = {way.name: way(num_weights) for way in (OneSum, Sharded, Buckets)}
    timings = compare(ways, rounds, warm_up=5, before=barrier)
    states = {name: way.state_bytes() for name, way in ways.items()}
    return timings, states, [note for way in ways.values() for note in way.notes]


class OneSum:
    """One all-reduce, everything updated everywhere.

    Args:
        num_weights: P; two parameters each.

    Attributes:
        flat: the parameters ``[2 P]``, padded so that ranks and buckets divide them.
        gradient: this rank's gradient, likewise; the same in every step.
        notes: what could not be done as described.
    """

    name = "one sum"

    def __init__(self, num_weights: int) -> None:
        self.ranks, self.rank = dist.get_world_size(), dist.get_rank()
        length = 2 * num_weights
        length += -length % (self.ranks * BUCKETS)
        self.flat = torch.zeros(length, device=place())
        self.own = torch.linspace(-1, 1, length, device=place()) * (1 + self.rank)
        self.gradient = self.own.clone()
        self.notes: list[str] = []
        self.trained = nn.Parameter(self.mine(self.flat))
        self.optimizer = AdamW([self.trained], lr=LEARNING_RATE, weight_decay=0.0, fused=True)

    def mine(self, vector: Tensor) -> Tensor:
        """What this rank updates of a vector."""
        return vector

    def __call__(self) -> None:
        self.gradient.copy_(self.own)  # a step writes it anew
        dist.all_reduce(self.gradient)
        self.trained.grad = self.gradient
        self.optimizer.step()

    def state_bytes(self) -> int:
        """Bytes of the optimiser's state on this rank."""
        states = self.optimizer.state.values()
        return sum(value.nbytes for state in states for value in state.values())


class Buckets(OneSum):
    """Several all-reduces at once."""

    name = f"buckets ({BUCKETS})"

    def __call__(self) -> None:
        self.gradient.copy_(self.own)
        works = [
            dist.all_reduce(part, async_op=True) for part in reversed(self.gradient.chunk(BUCKETS))
        ]
        for work in works:
            work.wait()
        self.trained.grad = self.gradient
        self.optimizer.step()


class Sharded(OneSum):
    """Each rank updates its part."""

    name = "sharded"

    def __init__(self, num_weights: int) -> None:
        super().__init__(num_weights)
        self.part = torch.empty_like(self.mine(self.gradient))
        self.scatters = True
        try:
            dist.reduce_scatter_single(self.part, self.own.clone())
        except (RuntimeError, ValueError) as error:
            self.scatters = False
            self.notes.append(
                f"sharded: {dist.get_backend()} has no reduce_scatter_single, so everything is "
                f"summed and a part of it used ({str(error).splitlines()[0]})"
            )

    def mine(self, vector: Tensor) -> Tensor:
        """This rank's part."""
        return vector.chunk(self.ranks)[self.rank]

    def __call__(self) -> None:
        self.gradient.copy_(self.own)
        if self.scatters:
            dist.reduce_scatter_single(self.part, self.gradient)
        else:
            dist.all_reduce(self.gradient)
            self.part = self.mine(self.gradient)
        self.trained.grad = self.part
        self.optimizer.step()
        dist.all_gather_single(self.flat, self.trained.detach())
