"""A trial of some ranks: how fast they start and add up, and whether they compute the same."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch

import spnb
from spnb.parallel.blackboard import blackboard
from spnb.parallel.collectives import Communicator, local_device

LARGE = 4 * 2**20
"""Numbers in the large sum, 16 MiB."""


@dataclass(frozen=True)
class Trial:
    """What some ranks could do.

    Attributes:
        start: seconds until all of them worked.
        small: seconds of a sum of one number.
        bandwidth: bytes a second in a large sum.
        way: how they speak to each other.
        device: where.
        difference: largest relative difference of a gradient from that of one process.
    """

    start: float
    small: float
    bandwidth: float
    way: str
    device: str
    difference: float


def of_ranks(ranks: int) -> Trial:
    """Start some ranks, and end them again.

    Args:
        ranks: how many.
    """
    begun = time.monotonic()
    with spnb.WorkerPool(ranks, silence=None) as pool:
        pool.run(int)
        start = time.monotonic() - begun
        small, large, way, device = pool.run(_sums)[0]
        gradients = pool.run(_gradient, spnb.Layout(sample=ranks))[0]
    expected = _gradient(None, 2 * ranks)
    difference = max(
        ((gradients[name] - value).norm() / value.norm()).item() for name, value in expected.items()
    )
    return Trial(start, small, 4 * LARGE / large, way, device, difference)


def _sums() -> tuple[float, float, str, str]:
    """Medians of a small and a large sum; on every rank."""
    device = local_device()[0]
    comm = Communicator.join(spnb.Layout(sample=-1))
    seconds = []
    for size, times in ((1, 50), (LARGE, 5)):
        numbers = torch.ones(size, device=device)
        comm.sum(numbers)
        found = []
        for _ in range(times):
            numbers.fill_(1.0)
            before = time.perf_counter()
            comm.sum(numbers)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            found.append(time.perf_counter() - before)
        seconds.append(statistics.median(found))
    shared = comm.size > 1 and blackboard(torch.distributed.group.WORLD) is not None
    way = "shared memory" if shared else local_device()[1]
    return seconds[0], seconds[1], way, device.type


def _gradient(layout: spnb.Layout | None, samples: int | None = None) -> dict[str, torch.Tensor]:
    """The gradient of a small problem, always the same one."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16, 4, generator=generator, dtype=torch.float64)
    net = torch.nn.Linear(4, 3).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    y = torch.arange(16) % 3
    posterior = spnb.MeanField(spnb.BayesianModel(net))
    S = samples or 2 * torch.distributed.get_world_size()
    found = spnb.gradients(posterior, (x, y), layout=layout, num_samples=S)
    return {name: value.cpu() for name, value in found.items()}
