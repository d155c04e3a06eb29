"""Training and gradients: one function for one process, a pool, or many nodes."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from spnb.maths.objectives import Objective
from spnb.maths.posteriors import Posterior
from spnb.parallel import progress
from spnb.parallel.collectives import Communicator
from spnb.parallel.keyed import Key
from spnb.parallel.layout import Layout
from spnb.run import inputs
from spnb.run.history import EpochRecord, History, StepRecord
from spnb.run.optimizer import Schedule, adam, scheduler
from spnb.run.place import place_of
from spnb.run.predict import score
from spnb.run.step import compute_gradient
from spnb.run.work import Augmentation, agree, plan_work


@dataclass(frozen=True)
class Fitted:
    """A trained posterior and the record of its training.

    Attributes:
        posterior: the trained copy; the posterior that was handed in is unchanged.
        history: what happened.
    """

    posterior: Posterior
    history: History


def fit(
    posterior: Posterior,
    data: Sequence[Any],
    *,
    objective: Objective | None = None,
    layout: Layout | None = None,
    num_samples: int = 8,
    batch_size: int = 64,
    epochs: int = 1,
    learning_rate: float = 1e-3,
    seed: int = 0,
    weight_decay: float = 0.0,
    schedule: Schedule = "constant",
    warmup_steps: int = 0,
    clip_norm: float | None = None,
    optimizer: Callable[[Posterior], Optimizer] | None = None,
    augment: Augmentation | None = None,
    views: Literal["shared", "per_sample"] = "shared",
    samples_in_flight: int = 1,
    recompute: bool = False,
    validation: Sequence[Any] | None = None,
    device: torch.device | str | None = None,
) -> Fitted:
    """Train a posterior; every layout computes the same run, to rounding.

    Call it directly for one process, as ``pool.run(spnb.fit, ...)`` in a notebook, or in a script
    under ``python -m torch.distributed.run``.

    Args:
        posterior: where to start from; it is copied.
        data: inputs ``[N, ...]`` and targets ``[N, ...]``, the same on every rank.
        objective: what to minimise; None: the `ELBO`.
        layout: how the ranks share samples and rows; None: this process does all.
        num_samples: S, samples of the weights a step, over all ranks.
        batch_size: B, rows a step, over all ranks; the last batch of an epoch may be smaller.
        epochs: passes over the data.
        learning_rate: Adam's.
        seed: names all random numbers of the run: noise, order of the data, augmentation.
        weight_decay: decoupled decay of the means, never of the scales.
        schedule: ``"constant"``, ``"cosine"`` or ``(optimizer, steps) -> torch scheduler``.
        warmup_steps: steps of linear warm-up.
        clip_norm: largest length of the gradient; None: not clipped.
        optimizer: makes another torch optimiser from the posterior; `learning_rate` and
            `weight_decay` are then its own affair.
        augment: ``(x [B, ...], generator) -> x``, applied to each batch on the device.
        views: whether all samples see one augmented view, or each its own. An objective of the
            mean predictive then averages predictions of different views: it marginalises the
            augmentation as well as the weights, which is another objective, not a wrong one.
        samples_in_flight: samples evaluated at once (`torch.vmap`); 1 is fastest on a CPU.
        recompute: for objectives that are not linear in the samples, evaluate twice instead of
            keeping S graphs; slower, and memory does not grow with S.
        validation: (x, y) to score after each epoch, with ``num_samples`` samples.
        device: None: a GPU for each rank where there are enough, else the posterior's device.

    Returns:
        The trained posterior and its history, the same on every rank.

    Raises:
        ValueError: bad numbers, shapes or data; says which and what to do.
        FloatingPointError: a loss or gradient is not finite; names step, rank and parameter.
    """
    inputs.positive(num_samples=num_samples, batch_size=batch_size, epochs=epochs)
    x, y = inputs.data_set(posterior, data)
    held_out = None if validation is None else inputs.data_set(posterior, validation)
    comm = Communicator.join(layout)
    batch_size = min(batch_size, len(x))
    posterior = copy.deepcopy(posterior).to(place_of(posterior, device))
    work = plan_work(
        posterior,
        (x, y),
        objective,
        comm,
        num_samples,
        batch_size,
        seed,
        samples_in_flight=samples_in_flight,
        recompute=recompute,
        augment=augment,
        views=views,
    )
    agree(work, epochs, batch_size)
    trained = list(posterior.parameters())
    steps_per_epoch = -(-len(x) // batch_size)
    total = epochs * steps_per_epoch
    if optimizer is None:
        adapt = adam(posterior, learning_rate, weight_decay)
    else:
        adapt = optimizer(posterior)
    rate = scheduler(adapt, schedule, warmup_steps, total)
    history = History()
    place = next(posterior.parameters()).device
    sent_before = comm.sent_bytes
    step = 0
    for epoch in range(epochs):
        for rows in _batches(len(x), batch_size, seed, epoch):
            start = time.perf_counter()
            info = compute_gradient(work, x[rows].to(place), y[rows].to(place), step)
            norm = clip_grad_norm_(trained, float("inf") if clip_norm is None else clip_norm)
            used = adapt.param_groups[0]["lr"]
            adapt.step()
            rate.step()
            history.steps.append(
                StepRecord(
                    step,
                    info.loss,
                    info.data_term,
                    info.divergence,
                    norm.item(),
                    used,
                    time.perf_counter() - start,
                )
            )
            step += 1
            progress.report(step, total, loss=info.loss)
        recent = history.steps[-steps_per_epoch:]
        found = (
            {}
            if held_out is None
            else score(posterior, held_out, num_samples=num_samples, layout=layout, seed=seed)
        )
        history.epochs.append(
            EpochRecord(
                epoch,
                sum(r.loss for r in recent) / len(recent),
                sum(r.seconds for r in recent),
                found,
            )
        )
    history.bytes_per_step = (comm.sent_bytes - sent_before) / total
    for parameter in trained:
        parameter.grad = None
    return Fitted(posterior, history)


def gradients(
    posterior: Posterior,
    data: Sequence[Any],
    *,
    objective: Objective | None = None,
    layout: Layout | None = None,
    num_samples: int = 8,
    seed: int = 0,
    step: int = 0,
    samples_in_flight: int = 1,
    recompute: bool = False,
    augment: Augmentation | None = None,
    views: Literal["shared", "per_sample"] = "shared",
) -> dict[str, Tensor]:
    """The gradient of the loss, as one step of `fit` on this batch would apply it.

    Args:
        posterior: the posterior; it is not changed.
        data: the batch: inputs ``[B, ...]`` and targets ``[B, ...]``; it counts as the data set.
        objective: what to differentiate; None: the `ELBO`.
        layout: how the ranks share samples and rows; None: this process does all.
        num_samples: S, over all ranks.
        seed: the run's seed.
        step: index of the step, which names its noise.
        samples_in_flight: as for `fit`.
        recompute: as for `fit`.
        augment: as for `fit`.
        views: as for `fit`.

    Returns:
        Gradients by the posterior's parameter names (``loc``, ``rho``: flat vectors ``[P]``;
        ``point`` if parameters are deterministic). ``model.unflatten`` gives them shapes.
    """
    inputs.positive(num_samples=num_samples)
    x, y = inputs.data_set(posterior, data)
    comm = Communicator.join(layout)
    posterior = copy.deepcopy(posterior).to(place_of(posterior))
    work = plan_work(
        posterior,
        (x, y),
        objective,
        comm,
        num_samples,
        len(x),
        seed,
        samples_in_flight=samples_in_flight,
        recompute=recompute,
        augment=augment,
        views=views,
    )
    place = next(posterior.parameters()).device
    compute_gradient(work, x.to(place), y.to(place), step)
    return {name: p.grad.clone() for name, p in posterior.named_parameters() if p.grad is not None}


def _batches(num_rows: int, batch_size: int, seed: int, epoch: int) -> tuple[Tensor, ...]:
    """Rows of each batch of an epoch, the same on every rank."""
    generator = Key(seed).fold("order", epoch).generator()
    return torch.randperm(num_rows, generator=generator).split(batch_size)
