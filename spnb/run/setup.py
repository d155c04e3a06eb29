"""The beginning of a run: what can be wrong is found before the first step."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from spnb.maths.objectives import ELBO, Objective
from spnb.maths.posteriors import Posterior
from spnb.parallel.arguments import whole, whole_or_none
from spnb.parallel.collectives import Communicator, is_rank
from spnb.parallel.layout import Layout
from spnb.run import checks, in_flight, inputs, separate, sharded
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
        batch_size: B, at most all rows; None: all of them.
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
    refuse_modes()
    seed = whole("seed", seed, None)
    samples_in_flight = whole_or_none("samples_in_flight", samples_in_flight)
    num_samples = inputs.samples(posterior, num_samples, num_samples, training=True)
    posterior.model.refuse_changes()
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
        posterior = sharded.own_piece(copied(posterior), comm, place)
    else:
        posterior = copied(posterior).to(place).train()
    if posterior.separate and comm.layout.sample <= num_samples:  # else `check_work` says so
        posterior = separate.own_part(posterior, comm, num_samples)
    if batch_size is None:
        batch_size, x, y = len(x), x.to(place), y.to(place)
    batch_size = min(batch_size, len(x))
    options["samples_in_flight"] = 1 if samples_in_flight is None else samples_in_flight
    work, y = _checked(posterior, (x, y), objective, comm, num_samples, batch_size, seed, options)
    if samples_in_flight is None and place.type == "cuda":
        first = x[:batch_size].to(place), y[:batch_size].to(place)
        if checks.several_at_once(posterior, inputs.few_rows(first[0])):
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
) -> tuple[Work, Tensor]:
    objective = ELBO() if objective is None else objective
    if not isinstance(objective, Objective):
        raise TypeError(
            f"objective is a {type(objective).__name__}; wrap a function of predictions and "
            "targets as spnb.Objective(function)."
        )
    views = options.get("views", "shared")
    if views not in ("shared", "per_sample"):
        raise ValueError(f"views='{views}' is neither 'shared' nor 'per_sample'.")
    comm.layout.check_work(num_samples, batch_size)
    x, y = data
    predictions, y = inputs.probe(posterior, x, y)
    rows, targets = (inputs.few_rows(values).to(predictions.device) for values in (x, y))
    near = checks.net(posterior, rows)
    some = torch.cat([predictions, near, predictions + (near - predictions) / 2])
    per_item = checks.objective(posterior, objective, some, targets)
    if posterior.antithetic:
        along = comm.layout.sizes("sample", num_samples)
        objective = objective.for_pairs(along if objective.local else [num_samples])
    if posterior.separate:
        separate.check(posterior, objective, per_item, num_samples)
    if options["samples_in_flight"] > 1 and not checks.several_at_once(posterior, rows):
        options["samples_in_flight"] = 1
    work = Work(
        posterior,
        objective,
        comm,
        num_samples,
        len(x),
        seed,
        predictions.shape[2:],
        per_item,
        **options,
    )
    return work, y


def refuse_modes() -> None:
    """Refuse to train where torch keeps nothing for a backward pass, or rounds on its own account.

    Raises:
        RuntimeError: it does.
    """
    if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
        raise RuntimeError(
            "torch.autocast is on, which keeps copies of weights from one sample to the next: call "
            "fit outside of it."
        )
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "torch.inference_mode() is on, in which nothing can be trained: call fit outside of it."
        )


def warn_of_ranks_without_layout(layout: Layout | None) -> None:
    """Say that each of several ranks does all the work, where no layout was given."""
    ranks = int(os.environ.get("WORLD_SIZE", "1")) if is_rank() else 1
    if layout is None and ranks > 1 and os.environ.get("RANK", "0") == "0":
        warnings.warn(
            f"fit was called on {ranks} ranks without a layout, so each of them does all the work "
            f"by itself. To share it, give layout=spnb.Layout(sample={ranks}).",
            stacklevel=3,
        )


def copied(posterior: Posterior) -> Posterior:
    """A copy to train, which leaves the one that was handed in as it is.

    Raises:
        TypeError: the net holds something that cannot be copied.
        ValueError: one of its parameters has hooks.
    """
    for name, parameter in posterior.model.net.named_parameters():
        if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
            raise ValueError(
                f"'{name}' has a hook, which is not called where samples of the weights take the "
                "place of the parameter: remove it (hooks on modules may stay)."
            )
    try:
        return copy.deepcopy(posterior)
    except (RuntimeError, TypeError) as error:
        raise TypeError(
            f"The net, a {type(posterior.model.net).__name__}, cannot be copied by copy.deepcopy: "
            "it holds something besides parameters, buffers and settings. See the error above."
        ) from error
