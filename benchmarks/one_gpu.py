"""One GPU: memory counted and measured, and the price of a sample, at the paper's sizes.

    python -m benchmarks.one_gpu --out docs/gpu.json

The networks are those of the recipes at the scale ``node``: the vision transformer of 2.7 million
weights and the Swin of about 200 million. Inputs are random: time and memory do not depend on them.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import spnb
from benchmarks import record
from benchmarks.measure import Run, compare
from benchmarks.ours import OurStep
from spnb.maths.likelihoods import Categorical, Likelihood
from spnb.parallel import devices
from spnb.run.loop import Loop
from spnb.run.memory import needed
from spnb.run.optimizer import adam
from spnb.run.setup import begin
from spnb.teach.recipes import images, weather

ROUNDS = 11
SAMPLES = (1, 4, 16)
KEPT: dict[str, Any] = {"objective": spnb.PredictiveNLL()}
WAYS: dict[str, dict[str, Any]] = {
    "one sample after the other": {},
    "two passes": KEPT | {"recompute": True},
    "kept graphs": KEPT,
    "all samples at once": {"samples_in_flight": 4},
}
"""Each with four samples."""
ORIGIN = ("machine", "versions", "commit", "seed", "date")
"""What the record tells of where it comes from."""


@dataclass(frozen=True)
class Large:
    """A large network, its likelihood, and the shapes of a batch.

    Attributes:
        name: what it is.
        network: makes it on the default device.
        likelihood: of its outputs.
        inputs: shape of the inputs.
        targets: shape of the targets.
    """

    name: str
    network: Callable[[], nn.Module]
    likelihood: Likelihood
    inputs: tuple[int, ...]
    targets: tuple[int, ...]

    def batch(self, device: str) -> tuple[Tensor, Tensor]:
        """Inputs and targets: classes for a categorical likelihood, numbers for the others."""
        classes = isinstance(self.likelihood, Categorical)
        y = torch.zeros(self.targets, dtype=torch.long) if classes else torch.zeros(self.targets)
        return torch.randn(self.inputs).to(device), y.to(device)

    def posterior(self, device: str) -> spnb.MeanField:
        """A mean-field posterior on a device."""
        torch.manual_seed(0)
        with torch.device(device):
            net = self.network()
        return spnb.MeanField(spnb.BayesianModel(net, likelihood=self.likelihood))


GRID = (25, 53)
VIT = Large(
    "ViT of 2.7 million weights, batch of 128",
    lambda: images.network(images.SETTINGS["node"]),
    Categorical(),
    (128, 3, 32, 32),
    (128,),
)
SWIN = Large(
    "Swin of about 200 million weights, batch of 16",
    lambda: weather.network(weather.SETTINGS["node"], torch.zeros(4, *GRID)),
    weather.LIKELIHOOD,
    (16, weather.FRAMES + 4, *GRID),
    (16, len(weather.LEADS), *GRID),
)


def main(arguments: list[str] | None = None) -> int:
    """Measure, write, print.

    Returns:
        0, or 1 where there is no GPU.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.one_gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/gpu.json"), help="the record")
    path = parser.parse_args(arguments).out
    if not devices.visible_gpus():
        print("There is no GPU to measure.")
        return 1
    origin = record.provenance()
    found = {
        "provenance": {name: origin[name] for name in ORIGIN},
        "memory": [row for large in (VIT, SWIN) for row in memory(large)],
        "times": times(VIT),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{text(found)}\n\nWrote {path}.")
    return 0


def memory(large: Large) -> list[dict[str, Any]]:
    """Bytes of two steps, counted without the network, counted for the GPU, and measured."""
    rows = []
    for way, options in WAYS.items():
        size = {"batch_size": large.inputs[0], "num_samples": 4}
        options = size | {"samples_in_flight": 1} | options
        absent = needed(large.posterior("meta"), large.batch("meta"), **options)
        posterior, data = large.posterior("cuda"), large.batch("cuda")
        counted = needed(posterior, data, **options)
        spnb.fit(posterior, data, epochs=1, **options)  # libraries make their workspace once
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        spnb.fit(posterior, data, epochs=2, **options)
        used = torch.cuda.max_memory_allocated() - before
        batch = sum(values.nbytes for values in data)
        rows.append(
            {
                "network": large.name,
                "way": way,
                "weights": len(posterior.loc),
                "counted_absent": absent.total,
                "counted": counted.total,
                "measured": used + batch,
                "parts": counted.parts,
            }
        )
        print(row_text(rows[-1]), flush=True)
    return rows


def times(large: Large) -> list[dict[str, Any]]:
    """Seconds of a step, in turns with a plain pass of the same network and batch."""
    x, y = large.batch("cuda")
    net = large.posterior("cuda").model.net
    plain = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)

    def plain_step() -> None:
        plain.zero_grad()
        (large.likelihood.total_nll(net(x).unsqueeze(0), y) / len(x)).backward()
        plain.step()

    steps: dict[tuple[str, int], Run] = {("plain network", 1): plain_step}
    chosen = {}
    for num_samples in SAMPLES:
        for way, in_flight in (("one after the other", 1), ("as measured to be best", None)):
            work, *batch = begin(
                large.posterior("cuda"),
                (x, y),
                None,
                None,
                num_samples,
                seed=0,
                samples_in_flight=in_flight,
            )
            steps[way, num_samples] = OurStep(Loop(work, adam(work.posterior, 1e-3)), *batch)
            chosen[way, num_samples] = work.samples_in_flight
    found = compare(steps, ROUNDS, repeats=dict.fromkeys(steps, 3))
    unit = found["plain network", 1]
    return [
        {
            "network": large.name,
            "way": way,
            "num_samples": num_samples,
            "samples_in_flight": chosen.get((way, num_samples), 1),
            "seconds": asdict(timing),
            "plain_steps_a_sample": timing.over(unit).median / num_samples,
        }
        for (way, num_samples), timing in found.items()
    ]


def row_text(row: dict[str, Any]) -> str:
    """A line of the memory table."""
    sizes = [row[name] / 1e9 for name in ("counted_absent", "counted", "measured")]
    return (
        f"{row['network']}, {row['way']}: counted {sizes[0]:.3f} GB without the network, "
        f"{sizes[1]:.3f} GB on the GPU, measured {sizes[2]:.3f} GB"
    )


def text(found: dict[str, Any]) -> str:
    """The record in some lines."""
    lines = [", ".join(found["provenance"]["machine"]["gpus"])]
    lines += [row_text(row) for row in found["memory"]]
    lines += [
        f"{row['way']}, S = {row['num_samples']} ({row['samples_in_flight']} at once): "
        f"{1e3 * row['seconds']['median']:.2f} ms, {row['plain_steps_a_sample']:.2f} plain steps "
        "a sample"
        for row in found["times"]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
