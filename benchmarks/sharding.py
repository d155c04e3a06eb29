"""Two ranks that share out the parameters too (``shard=2``), against two that share the rows alone.

*Kept* is what a rank holds from step to step: parameters, gradients, the optimiser's state.
*FSDP2* is torch's own way, `fully_shard`, over a module that holds means and scales and evaluates a
sample in each forward pass: the nearest that it comes to samples of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import spnb
from benchmarks import ours
from benchmarks.measure import Run, Timing, compare, place
from benchmarks.scaling import Case, barrier
from benchmarks.workloads import LEARNING_RATE, SEED, WORKLOADS, Workload
from spnb.parallel.keyed import Key

LAYOUTS = {
    "data=2": spnb.Layout(data=2),
    "sample=2": spnb.Layout(sample=2),
    "shard=2": spnb.Layout(shard=2),
}
FSDP2 = "FSDP2"


def run(cases: Sequence[Case], rounds: int) -> dict[str, Any]:
    """Measure.

    Args:
        cases: workloads and S.
        rounds: number of rounds.
    """
    rows = []
    with spnb.WorkerPool(2, threads=1, silence=None) as pool:
        print(f"  sharing out parameters, {rounds} rounds", flush=True)
        device = pool.run(lambda: str(place()))[0]
        for workload, num_samples in cases:
            times, kept, sent = pool.run(race, workload, num_samples, rounds)[0]
            about = {"workload": workload, "num_samples": num_samples}
            rows += [
                about | {"who": who, "kept": kept[who], "sent": sent[who], **asdict(timing)}
                for who, timing in times.items()
            ]
    return {"device": device, "times": rows}


def race(
    workload: str, num_samples: int, rounds: int
) -> tuple[dict[str, Timing], dict[str, int], dict[str, int]]:
    """Time all ways in turns, on every rank: seconds, bytes kept, bytes sent in a step."""
    work = WORKLOADS[workload]
    steps: dict[str, Run] = {
        name: ours.make_step(work, num_samples, layout=layout) for name, layout in LAYOUTS.items()
    }
    steps[FSDP2] = FsdpStep(work, num_samples)
    times = compare(steps, rounds, before=barrier)
    kept, sent = {}, {}
    for name, step in steps.items():
        if isinstance(step, ours.OurStep):
            kept[name] = _kept(step.loop.work.posterior, step.loop.optimizer)
            before = step.sent()[0]
            step()
            sent[name] = step.sent()[0] - before
        elif isinstance(step, FsdpStep):
            kept[name] = _kept(step.module, step.optimizer)
            weights = sum(p.numel() for p in step.module.parameters())
            sent[name] = num_samples * (weights // 2 + weights) * 4  # gathered, reduce-scattered
    return times, kept, sent


def _kept(module: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Bytes of parameters, their gradients, and the optimiser's state of them."""
    states = [v for state in optimizer.state.values() for v in state.values() if v.dim()]
    mine = [*module.parameters(), *module.parameters(), *states]
    return sum((t.to_local() if isinstance(t, DTensor) else t).nbytes for t in mine)


class OneSample(nn.Module):
    """Means and scales as parameters that FSDP2 shares out; a forward pass evaluates a sample."""

    def __init__(self, work: Workload) -> None:
        super().__init__()
        start = ours.mean_field(work)
        self.loc, self.rho = nn.Parameter(start.loc.detach()), nn.Parameter(start.rho.detach())
        self._start = (start,)

    def forward(self, sample: int, key: Key, x: Tensor, y: Tensor, share: float) -> Tensor:
        """The loss of a sample on some rows, and a share of the divergence."""
        (start,) = self._start
        prepared = (self.loc, nn.functional.softplus(self.rho))
        weights = start.draw([sample], key, prepared)
        predictions = start.model.predict(weights, start.point, x)[0]
        loss = nn.functional.cross_entropy(predictions, y)
        return loss + share * start.divergence(prepared)


class FsdpStep:
    """A whole step with FSDP2 on all ranks of the world, each with its own rows."""

    def __init__(self, work: Workload, num_samples: int) -> None:
        self.module, self.num_samples, self.done = OneSample(work), num_samples, 0
        fully_shard(self.module)
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=LEARNING_RATE)
        self.x, self.y = (part.chunk(2)[dist.get_rank()] for part in work.batch())
        self.share = 1 / work.num_data

    def __call__(self) -> None:
        """Take a step."""
        self.optimizer.zero_grad()
        key = Key(SEED).fold("weights", self.done)
        for sample in range(self.num_samples):
            loss = self.module(sample, key, self.x, self.y, self.share)
            (loss / self.num_samples).backward()
        self.optimizer.step()
        self.done += 1
