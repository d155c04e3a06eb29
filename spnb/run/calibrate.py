r"""Calibrate the cost model on live workers, in some seconds.

Steps of small reference networks are timed with few and many samples, few and many weights:
:math:`t = o + uP + S\,(t_\text{pass} + s + dP)` has four unknowns and gets four measurements. Two
sizes of an all-reduce give latency and bandwidth; passes on one rank, and on all at once, tell how
much ranks are in each other's way.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

from spnb.maths.models import BayesianModel
from spnb.maths.networks import mlp
from spnb.maths.posteriors import MeanField
from spnb.parallel.collectives import Communicator, local_device
from spnb.parallel.layout import Layout
from spnb.parallel.pool import WorkerPool
from spnb.run import costs
from spnb.run.loop import Loop
from spnb.run.machine import Link, Machine
from spnb.run.optimizer import adam
from spnb.run.setup import begin

T = TypeVar("T")

SMALL, LARGE = (16, 32, 32, 4), (64, 512, 512, 4)
"""Reference networks: about 2,000 and 300,000 weights."""
ROWS = 32
FEW, MANY = 2, 10
"""Samples of the timed steps."""
MESSAGES = (2**10, 2**20)
"""Numbers in the timed all-reduces."""
REPEATS = 21
PASSES = 10
"""Passes in a row, where one rank is held against all."""


def calibrate(pool: WorkerPool) -> Machine:
    """The constants of a pool's ranks.

    Args:
        pool: live workers, otherwise idle.

    Raises:
        TypeError: it is no pool.
    """
    if not isinstance(pool, WorkerPool):
        raise TypeError(
            f"calibrate measures on a spnb.WorkerPool, but got a {type(pool).__name__}: give it "
            "one, such as spnb.WorkerPool(2)."
        )
    return pool.run(_calibrate_rank)[0]


def alone(function: Callable[[], T]) -> T | None:
    """Run a function on rank 0 while all other ranks wait; they get None."""
    dist.barrier()
    result = function() if dist.get_rank() == 0 else None
    dist.barrier()
    return result


def _calibrate_rank() -> Machine:
    device, _ = local_device()
    fitted = alone(lambda: _fit_constants(device))
    crowding, flops = _crowding(device)
    inside = _measure_link(device)
    draw, noise, update, per_sample, per_step = fitted or 5 * (0.0,)  # only rank 0's are used
    ranks = dist.get_world_size()
    return Machine(
        name=f"{ranks} × {device.type}, calibrated",
        source="measured by spnb.run.calibrate",
        flops=flops,
        launch=0.0,
        draw=draw,
        noise=noise,
        update=update,
        per_sample=per_sample,
        per_step=per_step,
        inside=inside,
        ranks_per_host=ranks,
        crowding=crowding,
    )


def _fit_constants(device: torch.device) -> tuple[float, ...]:
    """Seconds a weight and sample, of that for its noise, a weight, a sample, and a step."""
    seconds, weights, passes = {}, {}, {}
    for size in (SMALL, LARGE):
        posterior, data = _posterior(size, device), _batch(size, device)
        found = costs.measure(posterior, data, ROWS)
        weights[size], passes[size] = found.weights, found.passes(ROWS)
        steps = {n: _stepper(posterior, data, n) for n in (FEW, MANY)}
        for n, found_seconds in _in_turns(steps).items():
            seconds[size, n] = found_seconds
    span = weights[LARGE] - weights[SMALL]
    slopes = {s: (seconds[s, MANY] - seconds[s, FEW]) / (MANY - FEW) - passes[s] for s in weights}
    offsets = {s: seconds[s, FEW] - FEW * (slopes[s] + passes[s]) for s in weights}
    draw = max(0.0, (slopes[LARGE] - slopes[SMALL]) / span)
    update = max(0.0, (offsets[LARGE] - offsets[SMALL]) / span)
    per_sample = max(0.0, slopes[SMALL] - draw * weights[SMALL])
    per_step = max(0.0, offsets[SMALL] - update * weights[SMALL])
    return draw, min(draw, _noise(device, weights[LARGE])), update, per_sample, per_step


def _noise(device: torch.device, number: int) -> float:
    """Seconds a random number."""
    vector = torch.empty(number, device=device)

    def fill() -> None:
        vector.normal_()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return _in_turns({number: fill})[number] / number


def _crowding(device: torch.device) -> tuple[float, float]:
    """How much slower passes are when all ranks compute, and one rank's operations a second.

    Both are measured in turns, so that a passing load meets both.
    """
    posterior, data = _posterior(LARGE, device), _batch(LARGE, device)
    ratios, singles = [], []
    for _ in range(REPEATS):
        single = alone(lambda: costs.seconds_of_passes(posterior, *data, PASSES))
        dist.barrier()
        slowest = torch.tensor([costs.seconds_of_passes(posterior, *data, PASSES)], device=device)
        dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
        if single is not None:
            singles.append(single / PASSES)
            ratios.append(slowest.item() / single)
    if not ratios:  # not rank 0
        return 1.0, 1.0
    weights = sum(site.size for site in posterior.model.drawn)
    first = LARGE[0] * LARGE[1]  # its inputs need no gradient
    operations = 2 * ROWS * (3 * weights - first)
    return max(1.0, statistics.median(ratios)), operations / statistics.median(singles)


def _stepper(
    posterior: MeanField, data: tuple[torch.Tensor, torch.Tensor], num_samples: int
) -> Callable[[], object]:
    work, x, y = begin(posterior, data, None, None, num_samples, seed=0)
    loop = Loop(work, adam(work.posterior, 1e-3))
    return lambda: loop.step(x, y)


def _in_turns(functions: dict[int, Callable[[], object]]) -> dict[int, float]:
    """Median seconds of some functions, called in turns."""
    times: dict[int, list[float]] = {key: [] for key in functions}
    for turn in range(REPEATS + 2):
        for key, function in functions.items():
            start = time.perf_counter()
            function()
            if turn >= 2:  # the first ones warm up
                times[key].append(time.perf_counter() - start)
    return {key: statistics.median(values) for key, values in times.items()}


def _measure_link(device: torch.device) -> Link:
    """Latency and bandwidth of an all-reduce over all ranks, by the α–β model.

    As in a step: each rank comes from some milliseconds of passes, so threads that send are asleep
    and the caches are full of other things. Who comes last waits for nobody: its time counts. (That
    ranks are not equally fast is what `_crowding` measures.)
    """
    comm = Communicator.join(Layout(sample=-1))
    if comm.size == 1:
        return Link(0.0, float("inf"))
    posterior, data = _posterior(LARGE, device), _batch(LARGE, device)
    tensors = {n: torch.zeros(n, device=device) for n in MESSAGES}
    times = torch.zeros(REPEATS + 2, len(MESSAGES), dtype=torch.float64, device=device)
    for turn in range(len(times)):
        for place, tensor in enumerate(tensors.values()):
            costs.seconds_of_passes(posterior, *data, PASSES)
            start = time.perf_counter()
            comm.sum(tensor)
            times[turn, place] = time.perf_counter() - start
    dist.all_reduce(times, op=dist.ReduceOp.MIN)
    small, large = times[2:].median(0).values.tolist()  # the first ones warm up
    per_byte = max(1e-15, (large - small) / (4 * (MESSAGES[1] - MESSAGES[0])))
    unit = Link(1.0, 1.0)
    hops = unit.all_reduce(0, comm.size)
    return Link(
        latency=max(0.0, small - per_byte * 4 * MESSAGES[0]) / hops,
        bandwidth=(unit.all_reduce(1, comm.size) - hops) / per_byte,
    )


def _posterior(sizes: tuple[int, ...], device: torch.device) -> MeanField:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MeanField(BayesianModel(mlp(sizes, nn.Tanh))).to(device)


def _batch(sizes: tuple[int, ...], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, sizes[0], generator=generator)
    y = torch.randint(sizes[-1], (ROWS,), generator=generator)
    return x.to(device), y.to(device)
