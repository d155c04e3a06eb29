"""The work of a run: what its steps have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from spnb.maths.augmentations import Augmentation
from spnb.maths.objectives import Objective
from spnb.maths.posteriors import Posterior
from spnb.parallel.collectives import Communicator
from spnb.run.gradient import GradientBuffer
from spnb.run.parts import Parts, SampleParts, ShardParts
from spnb.run.samples import Lane
from spnb.run.sharded import Sharing, sharing_of


@dataclass(frozen=True)
class Work:
    """What the steps of a run have in common.

    Attributes:
        posterior: the posterior; its parameters' gradients are written.
        objective: what to minimise.
        communicator: the ranks.
        num_samples: S, samples of the weights a step, over all ranks.
        num_data: N, size of the data set.
        seed: the run's seed.
        prediction_shape: shape of the predictions for one item.
        per_item: whether the objective gives a loss for each item, or one for the batch.
        samples_in_flight: samples evaluated at once.
        recompute: evaluate the samples twice instead of keeping all their graphs, where
            predictions have to be gathered; memory then does not grow with S.
        augment: augmentation of the inputs, or None.
        views: whether all samples see one augmented view, or each its own.
        summing: the ranks that share a gradient: all of them; those along ``data`` alone where
            each sample has parameters of its own; those that hold the same weights where these are
            shared out.
        averaged: over how many samples the loss is a mean: S, or 1 where each has its own.
        sharing: how ranks share out the parameters, if they do.
        buffer: where the gradient gathers.
        lane: where samples are evaluated one by one; None if graphs of several are alive at once.
        parts: which part of the posterior this rank holds.
    """

    posterior: Posterior
    objective: Objective
    communicator: Communicator
    num_samples: int
    num_data: int
    seed: int
    prediction_shape: torch.Size
    per_item: bool
    samples_in_flight: int = 1
    recompute: bool = False
    augment: Augmentation | None = None
    views: Literal["shared", "per_sample"] = "shared"
    summing: Communicator = field(init=False)
    averaged: int = field(init=False)
    sharing: Sharing | None = field(init=False)
    buffer: GradientBuffer = field(init=False)
    lane: Lane | None = field(init=False)
    parts: Parts = field(init=False)

    def __post_init__(self) -> None:
        """Make room for the gradient, and for a sample where one at a time is evaluated."""
        posterior, comm = self.posterior, self.communicator
        separate, sharded = posterior.separate, posterior.window is not None
        sharing = sharing_of(posterior, comm) if sharded else None
        summing = comm.along("replicas") if sharded else comm.along("data") if separate else comm
        one_by_one = self.recompute or (self.per_item and self.objective.separable)
        lane = one_by_one and self.samples_in_flight == 1
        parts: Parts = SampleParts(comm, self.num_samples) if separate else Parts(comm)
        made = {
            "summing": summing,
            "averaged": 1 if separate else self.num_samples,
            "sharing": sharing,
            "buffer": GradientBuffer(posterior, comm if sharded else summing),
            "lane": Lane(posterior, sharing) if lane else None,
            "parts": ShardParts(comm, sharing, posterior.common) if sharing else parts,
        }
        for name, value in made.items():
            object.__setattr__(self, name, value)
