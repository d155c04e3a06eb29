"""One step: the gradient of the objective, from the tiles of all ranks, exactly.

Every rank evaluates its own samples on its own rows (`tile`). The divergence from the prior is
shared out over the ranks as well, and one sum over all ranks ends the step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spnb.parallel.keyed import Key
from spnb.run import separate
from spnb.run.samples import Source
from spnb.run.tile import TileRun
from spnb.run.work import Work


@dataclass(frozen=True)
class StepInfo:
    """What a step found, over all ranks.

    Attributes:
        loss: data term + temperature / N * divergence.
        data_term: the objective's mean loss of the batch.
        divergence: KL(posterior || prior), in nats.

    Where each sample has parameters of its own, the mean over those of this rank.
    """

    loss: float
    data_term: float
    divergence: float


def compute_gradient(work: Work, x: Tensor, y: Tensor, step: int, first: bool = False) -> StepInfo:
    """Write the gradient of one step, summed over all ranks, into the posterior's parameters.

    Args:
        work: the run.
        x: inputs of the whole batch ``[B, ...]``, the same on every rank.
        y: targets of the whole batch ``[B, ...]``.
        step: index of the step, which names its random numbers.
        first: whether it is the first one since the run was begun or taken up again.

    Raises:
        FloatingPointError: a loss or gradient is not finite; says on which rank and where.
    """
    comm, objective = work.communicator, work.objective
    tile = comm.layout.tile(comm.rank, work.num_samples, len(x))
    work.buffer.zero()
    with comm.trace.span("prepare"):
        source = Source(work.posterior, Key(work.seed).fold("weights", step))
    run = TileRun(work, tile, source, x, y, step, first)
    data_term = run.separately() if work.per_item and objective.separable else run.gathered()
    factor = objective.temperature / work.num_data
    with comm.trace.span("divergence"):
        known = source.finish(work.summing.rank, work.summing.size, factor)
    losses = torch.stack([data_term, run.estimated + known])
    shard = work.sharing.comm if work.sharing else None
    found = work.buffer.reduce(
        work.summing, shard, losses, tile, step, comm.rank, run.explain_not_finite
    )
    data, divergence = found.tolist()
    if work.posterior.separate:
        separate.share_point(work.posterior, comm, work.num_samples)
        data, divergence = data / len(tile.samples), divergence / len(tile.samples)
    return StepInfo(data + factor * divergence, data, divergence)
