"""Where the time of a step goes: the spans of one real step, on every rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from spnb.maths.objectives import Objective
from spnb.maths.posteriors import Posterior
from spnb.parallel.arguments import flag, whole, whole_or_none
from spnb.parallel.layout import Layout
from spnb.parallel.trace import Span
from spnb.run import inputs
from spnb.run.loop import Loop
from spnb.run.optimizer import adam
from spnb.run.setup import begin
from spnb.run.training import USUAL_SAMPLES

WARM_UP = 3


def timeline(
    posterior: Posterior,
    data: Sequence[Any],
    *,
    objective: Objective | None = None,
    layout: Layout | None = None,
    num_samples: int | None = None,
    samples_in_flight: int | None = None,
    recompute: bool = False,
    seed: int = 0,
) -> list[Span]:
    """The spans of one step of training, after some steps that are not looked at.

    Names of spans: ``prepare`` (what all samples share), ``draw``, ``forward`` and ``backward``
    (of each sample), ``divergence``, ``all-gather`` and ``all-reduce`` (sending and waiting),
    ``update``. The whole step is the span ``step``.

    Args:
        posterior: where to start from; it is copied.
        data: the batch: inputs ``[B, ...]`` and targets ``[B, ...]``.
        objective: as for `spnb.fit`.
        layout: as for `spnb.fit`.
        num_samples: S, over all ranks; None: 8, or all that the posterior has.
        samples_in_flight: as for `spnb.fit`.
        recompute: as for `spnb.fit`.
        seed: the run's seed.

    Returns:
        This rank's spans, in the order of their ends; the ranks of one host share their clock.

    Raises:
        TypeError: something is of the wrong kind.
        ValueError: bad numbers, shapes or data.
    """
    wanted = whole_or_none("num_samples", num_samples)
    work, x, y = begin(
        posterior,
        data,
        objective,
        layout,
        inputs.samples(posterior, wanted, USUAL_SAMPLES, training=True),
        seed=whole("seed", seed, least=None),
        samples_in_flight=whole_or_none("samples_in_flight", samples_in_flight),
        recompute=flag("recompute", recompute),
    )
    loop = Loop(work, adam(work.posterior, 1e-3))
    for _ in range(WARM_UP):
        loop.step(x, y)
    trace = work.communicator.trace
    work.communicator.sum(torch.zeros(1, device=x.device))  # start together
    trace.on = True
    with trace.span("step"):
        loop.step(x, y)
    return trace.spans
