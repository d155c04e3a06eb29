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
from spnb.run.parts import Parts, SampleParts
from spnb.run.samples import Lane


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
        summing: the ranks that share a gradient: all of them, or those along ``data`` alone where
            each sample has parameters of its own.
        averaged: over how many samples the loss is a mean: S, or 1 where each has its own.
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
    buffer: GradientBuffer = field(init=False)
    lane: Lane | None = field(init=False)
    parts: Parts = field(init=False)

    def __post_init__(self) -> None:
        """Make room for the gradient, and for a sample where one at a time is evaluated."""
        separate, comm = self.posterior.separate, self.communicator
        object.__setattr__(self, "summing", comm.along("data") if separate else comm)
        object.__setattr__(self, "averaged", 1 if separate else self.num_samples)
        buffer = GradientBuffer(self.posterior, self.summing.size)
        object.__setattr__(self, "buffer", buffer)
        one_by_one = self.recompute or (self.per_item and self.objective.separable)
        lane = Lane(self.posterior) if one_by_one and self.samples_in_flight == 1 else None
        object.__setattr__(self, "lane", lane)
        parts = SampleParts(comm, self.num_samples) if separate else Parts(comm)
        object.__setattr__(self, "parts", parts)
