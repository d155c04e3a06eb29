r"""The memory of a rank: what each part of a run needs, before anything is allocated.

With P weights that are drawn, a rank always holds their means and scales, the gradients and Adam's
two moments of both, and the net's own values: 9 P numbers. Samples that are evaluated one after the
other share room for one: weights, their gradient, noise, and the step's :math:`\sigma` with its
gradient, 5 P. Only where graphs of several samples have to live at the same time, because the
objective needs all predictions before the first way back, or because `torch.vmap` evaluates them at
once, does memory grow with S. Ranks along ``shard`` share out all of it but the net's own values,
and the weights in evaluation with their gradient.

What a graph holds is counted operation by operation (`footprint`). Not counted: what the caller
itself holds, an augmentation's intermediates, the libraries' own memory, the boards on which ranks
of one host add up their gradients, and freed memory that an allocator keeps. Tensors take what is
counted; a process of the C library, which keeps much that is free, grew by 12 to 25 % more. An LSTM
on a CPU works in memory of oneDNN on its way back: 15 % less was counted than it took.

All this is `spnb.MeanField`; for other methods, which train more or fewer numbers, a warning says
so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spnb.maths.objectives import ELBO, Objective
from spnb.maths.posteriors import Posterior
from spnb.parallel.arguments import flag, whole
from spnb.parallel.layout import Layout
from spnb.run.footprint import Footprint, footprint
from spnb.run.job import Job


@dataclass(frozen=True)
class Memory:
    """Bytes of a rank by what they are for.

    Attributes:
        parts: ``parameters``, ``gradients``, ``optimiser``, ``samples`` (weights in evaluation,
            their noise and gradients), ``activations``, ``batch and predictions``.
    """

    parts: dict[str, float]

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self.parts.values())


def needed(
    posterior: Posterior,
    data: Sequence[Any],
    *,
    layout: Layout | None = None,
    num_samples: int | None = None,
    batch_size: int = 64,
    objective: Objective | None = None,
    samples_in_flight: int = 1,
    recompute: bool = False,
) -> Memory:
    """What the fullest rank of a run with `spnb.fit` and Adam needs.

    Args:
        posterior: the posterior. For a network that is too large to be made here, make it within
            ``with torch.device("meta"):``; model and posterior outside of it.
        data: inputs ``[N, ...]`` and targets ``[N, ...]``. On the meta device their shapes alone
            count, as long as what the network does does not depend on numbers.
        layout: how the ranks share samples and rows; None: one rank does all.
        num_samples: S, over all ranks; None: 8, or all that the posterior has.
        batch_size: B, over all ranks.
        objective: None: the `ELBO`.
        samples_in_flight: samples evaluated at once.
        recompute: as for `spnb.fit`.

    Raises:
        TypeError: something is of the wrong kind, or ranks cannot share out the parameters.
        ValueError: a number is below 1, the layout has an axis of -1 or leaves a rank without work,
            or data or objective do not fit.
    """
    at_once = whole("samples_in_flight", samples_in_flight)
    flag("recompute", recompute)
    layout = Layout() if layout is None else layout
    if not isinstance(layout, Layout):
        raise TypeError(f"layout is a {type(layout).__name__}; give a spnb.Layout or None.")
    job = Job.of(posterior, data, num_samples, whole("batch_size", batch_size), objective)
    layout.check_work(job.num_samples, job.rows)
    if layout.shard > 1:
        job.check_shards()
        if at_once > 1:
            raise ValueError(
                f"samples_in_flight={at_once}: where ranks share out the parameters, one sample is "
                "evaluated at a time; leave it out."
            )
    found = footprint(posterior, job.x, job.y)
    return of_rank(
        found,
        layout,
        job.num_samples,
        job.rows,
        job.objective,
        at_once,
        recompute,
        job.per_item,
    )


def of_rank(
    found: Footprint,
    layout: Layout,
    num_samples: int,
    num_rows: int,
    objective: Objective | None = None,
    samples_in_flight: int = 1,
    recompute: bool = False,
    per_item: bool = True,
) -> Memory:
    """The same from a network's footprint.

    Args:
        found: sizes of the network, and bytes of its passes.
        layout: how the ranks share samples and rows.
        num_samples: S, over all ranks.
        num_rows: B, over all ranks.
        objective: None: the `ELBO`.
        samples_in_flight: samples evaluated at once.
        recompute: as for `spnb.fit`.
        per_item: whether the objective gives a loss for each item, or one for the batch.
    """
    objective = objective or ELBO()
    own = math.ceil(num_samples / layout.sample)
    rows = math.ceil(num_rows / layout.length("rows"))
    recompute = recompute or layout.shard > 1
    separable = objective.separable and per_item
    at_once = min(samples_in_flight, own)
    graphs = at_once if separable or recompute else own  # alive at the same time
    size, weights = found.itemsize, found.weights
    piece = math.ceil(weights / layout.shard)
    trained = 2 * piece + found.point
    if at_once == 1 and (separable or recompute):
        samples, activations = 2 * weights + 3 * piece, found.peak(rows)
    else:  # sigma and its gradient; weights and noise of each graph; then, on the way back, either
        # gradients beside the activations, or what autograd and the noise make of them, without
        together = at_once > 1
        more = found.at_once if together else 1.0
        samples = (2 + 2 * graphs + (at_once if together else 2)) * weights
        activations = max(at_once * more * found.peak(rows), 2 * at_once * weights * size)
        activations += (graphs - at_once) * more * found.kept(rows)
    predicted = 0
    if not separable:
        gathers = not (objective.linear_in_samples or objective.local)
        seen = num_samples if gathers else own
        shared = num_rows if not per_item else rows
        # in place a few rows at a time; or twice, with a gradient and what the loss makes of them
        predicted = (1 if recompute else 5) * seen * shared * found.prediction
    return Memory(
        {
            "parameters": float(size * (trained + found.weights + found.point)),
            "gradients": float(size * trained),
            "optimiser": float(size * 2 * trained),
            "samples": float(size * samples),
            "activations": activations,
            "batch and predictions": float(num_rows * found.row + size * predicted),
        }
    )
