"""The work of a run: what its steps have in common, checked before the first of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from spnb.maths.objectives import ELBO, Objective
from spnb.maths.posteriors import Posterior
from spnb.parallel.collectives import Communicator
from spnb.run import inputs
from spnb.run.gradient import GradientBuffer

#: an augmentation: inputs ``[B, ...]`` and a generator of its randomness to inputs ``[B, ...]``
Augmentation = Callable[[Tensor, torch.Generator], Tensor]


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
    buffer: GradientBuffer = field(init=False)

    def __post_init__(self) -> None:
        """Make room for the gradient."""
        buffer = GradientBuffer(self.posterior, self.communicator.size)
        object.__setattr__(self, "buffer", buffer)


def plan_work(
    posterior: Posterior,
    data: tuple[Tensor, Tensor],
    objective: Objective | None,
    comm: Communicator,
    num_samples: int,
    batch_size: int,
    seed: int,
    **options: Any,
) -> Work:
    """Everything that can be checked before the first step, and then the work itself."""
    objective = ELBO() if objective is None else objective
    if not isinstance(objective, Objective):
        raise TypeError(
            f"objective is a {type(objective).__name__}; wrap a function of predictions and "
            "targets as spnb.Objective(function)."
        )
    inputs.positive(samples_in_flight=options["samples_in_flight"])
    if options["views"] not in ("shared", "per_sample"):
        raise ValueError(f"views='{options['views']}' is neither 'shared' nor 'per_sample'.")
    comm.layout.check_work(num_samples, batch_size)
    predictions = inputs.probe(posterior, *data)
    per_item = inputs.loss_per_item(posterior, objective, predictions, data[1])
    return Work(
        posterior,
        objective,
        comm,
        num_samples,
        len(data[0]),
        seed,
        predictions.shape[2:],
        per_item,
        **options,
    )


def agree(work: Work, epochs: int, batch_size: int) -> None:
    """Start all ranks from rank 0's posterior, and refuse ranks that were asked for other things.

    Each process of a script builds its own net, with its own initial weights.
    """
    comm = work.communicator
    mine = (
        f"N={work.num_data} S={work.num_samples} B={batch_size} epochs={epochs} "
        f"seed={work.seed} {work.objective!r}"
    )
    first = comm.tell(mine, 0)
    if mine != first:
        raise ValueError(f"Rank 0 was asked for {first}, rank {comm.rank} for {mine}.")
    for parameter in work.posterior.parameters():
        comm.copy_from_first(parameter.data)
