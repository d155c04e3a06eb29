"""How many samples to evaluate at once, measured.

On a CPU one at a time is fastest and takes the least memory. A GPU is left idle by the small
kernels of one sample of a small network; several at once keep it busy, until memory ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from spnb.maths.objectives import ELBO
from spnb.parallel.keyed import Key
from spnb.run.samples import Source
from spnb.run.tile import TileRun
from spnb.run.work import Work

WORTHWHILE = 0.95
"""A larger chunk must take at most this part of the time, or it is not worth its memory."""


def fastest(work: Work, x: Tensor, y: Tensor) -> int:
    """The fastest number of samples in flight for this rank's samples; nothing is sent.

    Args:
        work: the run.
        x: inputs of a batch ``[B, ...]``, where the posterior computes.
        y: targets of the batch ``[B, ...]``.
    """
    tile = work.communicator.layout.tile(work.communicator.rank, work.num_samples, len(x))

    def evaluate(size: int) -> Callable[[], object]:
        trial = replace(work, objective=ELBO(), per_item=True, samples_in_flight=size)

        def run() -> None:
            source = Source(trial.posterior, Key(work.seed).fold("trial"))
            TileRun(trial, tile, source, x, y, 0).separately().item()  # waits for the device

        return run

    return choose(evaluate, len(tile.samples))


def choose(evaluate: Callable[[int], Callable[[], object]], num_samples: int) -> int:
    """Double the number of samples in flight for as long as that makes the whole faster.

    Args:
        evaluate: a number of samples in flight to a function that evaluates all samples so.
        num_samples: how many samples there are.
    """
    best, best_seconds = 1, _seconds(evaluate(1))
    size = 2
    while size <= num_samples:
        try:
            seconds = _seconds(evaluate(size))
        except torch.OutOfMemoryError:
            break
        if seconds > WORTHWHILE * best_seconds:
            break
        best, best_seconds = size, seconds
        size *= 2
    return best


def _seconds(run: Callable[[], object]) -> float:
    run()  # the first time a device compiles and allocates
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
