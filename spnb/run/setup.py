"""The beginning of a run: what can be wrong is found before the first step."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from spnb.maths.objectives import ELBO, Objective
from spnb.maths.posteriors import Posterior
from spnb.parallel.collectives import Communicator
from spnb.parallel.layout import Layout
from spnb.run import in_flight, inputs, separate, sharded
from spnb.run.place import place_of
from spnb.run.work import Work


def begin(
    posterior: Posterior,
    data: Sequence[Any],
    objective: Objective | None,
    layout: Layout | None,
    num_samples: int,
    *,
    seed: int,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    samples_in_flight: int | None = None,
    **options: Any,
) -> tuple[Work, Tensor, Tensor]:
    """Check everything that can be checked before the first step, and lay out the work.

    Args:
        posterior: the posterior; it is copied to where it is to compute.
        data: inputs ``[N, ...]`` and targets ``[N, ...]``.
        objective: what to minimise; None: the `ELBO`.
        layout: how the ranks share samples and rows; None: this process does all.
        num_samples: S, over all ranks.
        seed: the run's seed.
        batch_size: B; None: all rows.
        device: as for `spnb.fit`.
        samples_in_flight: samples evaluated at once; None: one on a CPU, measured on a GPU.
        **options: further fields of `Work`.

    Returns:
        The work, and inputs and targets where they were or, for one batch of all rows, where the
        posterior computes.

    Raises:
        TypeError: something is of the wrong kind.
        ValueError: bad numbers, shapes or data.
    """
    num_samples = inputs.samples(posterior, num_samples, num_samples, training=True)
    x, y = inputs.data_set(posterior, data)
    comm = Communicator.join(layout)
    place = place_of(posterior, device)
    if comm.layout.shard > 1:
        if samples_in_flight not in (None, 1):
            raise ValueError(
                f"samples_in_flight={samples_in_flight}: where ranks share out the parameters, one "
                "sample is evaluated at a time; leave it out."
            )
        samples_in_flight, options["recompute"] = 1, True
        posterior = sharded.own_piece(copy.deepcopy(posterior), comm, place)
    else:
        posterior = copy.deepcopy(posterior).to(place).train()
    if posterior.separate and comm.layout.sample <= num_samples:  # else `check_work` says so
        posterior = separate.own_part(posterior, comm, num_samples)
    if batch_size is None:
        batch_size, x, y = len(x), x.to(place), y.to(place)
    options["samples_in_flight"] = 1 if samples_in_flight is None else samples_in_flight
    work = _checked(posterior, (x, y), objective, comm, num_samples, batch_size, seed, options)
    if samples_in_flight is None and place.type == "cuda":
        first = x[:batch_size].to(place), y[:batch_size].to(place)
        work = replace(work, samples_in_flight=in_flight.fastest(work, *first))
    return work, x, y


def _checked(
    posterior: Posterior,
    data: tuple[Tensor, Tensor],
    objective: Objective | None,
    comm: Communicator,
    num_samples: int,
    batch_size: int,
    seed: int,
    options: dict[str, Any],
) -> Work:
    objective = ELBO() if objective is None else objective
    if not isinstance(objective, Objective):
        raise TypeError(
            f"objective is a {type(objective).__name__}; wrap a function of predictions and "
            "targets as spnb.Objective(function)."
        )
    inputs.positive(samples_in_flight=options["samples_in_flight"])
    views = options.get("views", "shared")
    if views not in ("shared", "per_sample"):
        raise ValueError(f"views='{views}' is neither 'shared' nor 'per_sample'.")
    comm.layout.check_work(num_samples, batch_size)
    predictions = inputs.probe(posterior, *data)
    per_item = inputs.loss_per_item(posterior, objective, predictions, data[1])
    if posterior.separate:
        separate.check(posterior, objective, per_item, num_samples)
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
    if not work.parts.cuts:  # else it was told in `begin`
        for parameter in work.posterior.parameters():
            comm.copy_from_first(parameter.data)
