"""What the cost model says of 8, 64 and 1,024 GPUs: the tables of ``docs/scale.md``.

    python -m benchmarks.at_scale

Nothing is measured: networks are made without memory, their operations counted, and the constants
are a data sheet's (`spnb.machines`). It takes some seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import spnb
from spnb.maths.networks import ViT
from spnb.maths.swin import SIZES, Swin
from spnb.parallel.layout import Layout
from spnb.run import costs
from spnb.run.machine import Machine
from spnb.run.plan import layouts
from spnb.run.step_cost import Prediction, predict

WORLDS = (8, 64, 1024)


@dataclass(frozen=True)
class Job:
    """A network and a step of it.

    Attributes:
        name: what it is called.
        posterior: without memory.
        data: one batch, likewise.
        num_samples: S.
    """

    name: str
    posterior: spnb.MeanField
    data: tuple[Tensor, Tensor]
    num_samples: int


def jobs() -> Iterator[Job]:
    """What is planned."""
    images = torch.empty(128, 3, 32, 32, device="meta"), torch.zeros(128, dtype=torch.long)
    yield Job("ViT of 2.7 million weights, B = 128", _absent(lambda: ViT(
        dim=192, depth=6, heads=3, hidden=768), "categorical"), images, 64)  # fmt: skip
    fields = torch.empty(32, 7, 25, 53, device="meta"), torch.empty(32, 3, 25, 53, device="meta")
    large = _absent(lambda: Swin((25, 53), 7, 3, **SIZES["large"]), "normal")
    yield Job("Swin of 198 million weights, B = 32", large, fields, 64)
    wide = {**SIZES["large"], "dim": 4 * SIZES["large"]["dim"]}
    yield Job("the same, four times as wide: 3.1 billion, B = 32", _absent(
        lambda: Swin((25, 53), 7, 3, **wide), "normal"), fields, 64)  # fmt: skip


def _absent(net: object, likelihood: str) -> spnb.MeanField:
    with torch.device("meta"):
        made: nn.Module = net()  # type: ignore[operator]
    return spnb.MeanField(spnb.BayesianModel(made, likelihood=likelihood))


def best(job: Job, machine: Machine, world_size: int) -> Prediction:
    """The fastest layout that fits, of all that there are."""
    rows = len(job.data[0])
    found = costs.count(job.posterior, job.data, rows, machine)
    every = [
        predict(found, machine, layout, job.num_samples, rows, memory_limit=machine.memory)
        for layout in layouts(world_size, job.num_samples, rows, range(1, world_size + 1))
    ]
    return min(every, key=lambda p: (not p.fits, p.seconds))


def table(job: Job, machine: Machine) -> str:
    """A job on all sizes of worlds, in Markdown."""
    rows = len(job.data[0])
    found = costs.count(job.posterior, job.data, rows, machine)
    alone = predict(found, machine, Layout(), job.num_samples, rows).seconds
    lines = [
        f"**{job.name}, S = {job.num_samples}** (one GPU, if it had the memory: {_ms(alone)} ms)",
        "",
        "| GPUs | best layout | ms a step | speed-up | passes | all-reduce | gather | GB a GPU |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for world in WORLDS:
        p = best(job, machine, world)
        share = {name: f"{part / p.seconds:.0%}" for name, part in p.parts.items()}
        fits = "" if p.fits else " (does not fit)"
        lines.append(
            f"| {world} | {p.layout} | {_ms(p.seconds)} | {alone / p.seconds:.0f} | "
            f"{share['passes']} | {share['all-reduce']} | {share['gather']} | "
            f"{p.memory / 1e9:.1f}{fits} |"
        )
    return "\n".join(lines)


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.0f}" if seconds > 0.1 else f"{1e3 * seconds:.1f}"


if __name__ == "__main__":
    for each in jobs():
        print(table(each, spnb.machines.H100), end="\n\n")
