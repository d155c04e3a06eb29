"""Training and gradients: one function for one process, a pool, or many nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from spnb.maths.augmentations import Augmentation
from spnb.maths.objectives import Objective
from spnb.maths.posteriors import Posterior
from spnb.parallel import progress
from spnb.parallel.arguments import real, whole
from spnb.parallel.keyed import Key
from spnb.parallel.layout import Layout, share
from spnb.run import inputs
from spnb.run.agreement import agree
from spnb.run.checkpoint import Checkpoints
from spnb.run.history import History
from spnb.run.keeper import Keeper, Resume
from spnb.run.loop import Loop, let_go
from spnb.run.optimizer import OptimizerLike, Schedule, update_rule
from spnb.run.predict import score, try_scores
from spnb.run.setup import begin, warn_of_ranks_without_layout
from spnb.run.step import compute_gradient

USUAL_SAMPLES = 8
"""Samples a step, where nothing else is said."""


@dataclass(frozen=True)
class Fitted:
    """A trained posterior and the record of its training.

    Attributes:
        posterior: the trained copy; the posterior that was handed in is unchanged.
        history: what happened.
        best: the posterior after the epoch with the best validation score, where
            ``Checkpoints(best=...)`` asks for it, also if the run was resumed meanwhile. `Laplace`
            is judged by its mode, and has its curvature there.
    """

    posterior: Posterior
    history: History
    best: Posterior | None = None


@torch.enable_grad()
def fit(
    posterior: Posterior,
    data: Sequence[Any],
    *,
    objective: Objective | None = None,
    layout: Layout | None = None,
    num_samples: int | None = None,
    batch_size: int = 64,
    epochs: int = 1,
    learning_rate: float = 1e-3,
    seed: int = 0,
    weight_decay: float = 0.0,
    schedule: Schedule = "constant",
    warmup_steps: float = 0,
    clip_norm: float | None = None,
    optimizer: OptimizerLike | None = None,
    augment: Augmentation | None = None,
    views: Literal["shared", "per_sample"] = "shared",
    samples_in_flight: int | None = None,
    recompute: bool = False,
    validation: Sequence[Any] | None = None,
    checkpoints: Checkpoints | str | None = None,
    resume: Resume = False,
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
        num_samples: S, samples of the weights a step, over all ranks; None: 8, or all that the
            posterior has.
        batch_size: B, rows a step, over all ranks; the last batch of an epoch may be smaller.
        epochs: passes over the data; 0 for what `Laplace` does after training alone.
        learning_rate: Adam's, or that of the posterior's own moves (`SGMCMC`).
        seed: names all random numbers of the run: noise, order of the data, augmentation.
        weight_decay: decoupled decay of the means, never of the scales.
        schedule: ``"constant"``, ``"cosine"`` or ``(optimizer, steps) -> torch scheduler``.
        warmup_steps: steps of linear warm-up; a number below 1 is a share of the run's steps.
        clip_norm: largest length of the gradient; None: not clipped.
        optimizer: a class of `torch.optim`, which gets `learning_rate` and `weight_decay`; or a
            function that makes an optimiser from the posterior, to which they are left.
        augment: ``(x [B, ...], generator) -> x``, applied to each batch on the device.
        views: whether all samples see one augmented view, or each its own. An objective of the
            mean predictive then averages predictions of different views: it marginalises the
            augmentation as well as the weights, which is another objective, not a wrong one.
        samples_in_flight: samples evaluated at once (`torch.vmap`). None: one on a CPU, where more
            cost memory and time; on a GPU, which small networks leave idle, what is measured
            to be fastest in the first step.
        recompute: for objectives that are not linear in the samples, evaluate twice instead of
            keeping S graphs; slower, and memory does not grow with S.
        validation: (x, y) to score after each epoch, with ``num_samples`` samples.
        checkpoints: where and how often to write down how far the run is, `spnb.Checkpoints`, or a
            folder alone; None: not at all.
        resume: True: go on from the last whole checkpoint, or from the start if there is none yet;
            a path: from that one, but for the best. Layout and number of ranks may differ from
            those it was written on (under `PlainAveraging` not the groups of samples); what else
            decides about the run may not: data, prior, likelihood, network, method, objective and
            all settings are compared, functions by their code and what they refer to.
        device: None: a GPU for each rank where there are enough, else the posterior's device.

    Returns:
        The trained posterior and its history, the same on every rank.

    Raises:
        ValueError: bad numbers, shapes or data; says which and what to do.
        FloatingPointError: a loss or gradient is not finite; names step, rank and parameter.
        OSError: a checkpoint cannot be written.
    """
    posterior = inputs.posterior_of(posterior)
    batch_size = whole("batch_size", batch_size)
    epochs = whole("epochs", epochs, 0 if posterior.finishes else 1)
    seed = whole("seed", seed, None)
    learning_rate = real("learning_rate", learning_rate, above=True)
    weight_decay = real("weight_decay", weight_decay)
    clip_norm = None if clip_norm is None else real("clip_norm", clip_norm, above=True)
    num_samples = inputs.samples(posterior, num_samples, USUAL_SAMPLES, training=True)
    warn_of_ranks_without_layout(layout)
    held_out = None if validation is None else inputs.data_set(posterior, validation)
    if held_out is not None:
        try_scores(posterior, *held_out)
    work, x, y = begin(
        posterior,
        data,
        objective,
        layout,
        num_samples,
        seed=seed,
        batch_size=batch_size,
        device=device,
        samples_in_flight=samples_in_flight,
        recompute=recompute,
        augment=augment,
        views=views,
    )
    work.posterior.forget()
    batch_size = min(batch_size, len(x))
    steps_per_epoch = -(-len(x) // batch_size)
    total = max(1, epochs * steps_per_epoch)
    rule = update_rule(work, optimizer, learning_rate, weight_decay, schedule, warmup_steps, total)
    loop, history = Loop(work, *rule, clip_norm), History()
    settings = {
        "batch_size": batch_size,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "schedule": schedule,
        "warmup_steps": warmup_steps,
        "clip_norm": clip_norm,
    }
    agree(loop, (x, y), settings)
    with Keeper(checkpoints, loop, history, steps_per_epoch) as keeper:
        keeper.resume(
            resume,
            (x, y),
            held_out,
            settings,
        )
        return _train(keeper, (x, y), held_out, batch_size, epochs, layout)


def _train(
    keeper: Keeper,
    data: tuple[Tensor, Tensor],
    held_out: tuple[Tensor, Tensor] | None,
    batch_size: int,
    epochs: int,
    layout: Layout | None,
) -> Fitted:
    """The steps of a run from where it stands, and what is left to do after the last one."""
    loop, history, steps_per_epoch = keeper.loop, keeper.history, keeper.per_epoch
    work, total, (x, y) = loop.work, max(1, epochs * steps_per_epoch), data
    posterior, comm = work.posterior, work.communicator
    num_samples, seed = work.num_samples, work.seed
    place = next(posterior.parameters()).device
    sent_before, begun = comm.sent_bytes, loop.done
    own = len(comm.layout.tile(comm.rank, num_samples, batch_size).samples)
    for epoch in range(begun // steps_per_epoch, epochs):
        batches = order(len(x), batch_size, seed, epoch)
        for rows in batches[loop.done - epoch * steps_per_epoch :]:
            record = loop.step(x[rows].to(place), y[rows].to(place))
            history.steps.append(record)
            posterior.observe(loop.done, total)
            progress.report(loop.done, total, samples=own, loss=record.loss)
            if loop.done % steps_per_epoch:
                keeper.after_step(total, ends_epoch=False)
        found = (
            {}
            if held_out is None
            else score(
                work.parts.whole(posterior),
                held_out,
                num_samples=num_samples,
                layout=layout,
                seed=seed,
            )
        )
        history.end_epoch(epoch, steps_per_epoch, found)
        keeper.after_step(total, ends_epoch=True)
    history.bytes_per_step = (comm.sent_bytes - sent_before) / max(1, total - begun)
    let_go(posterior)
    keeper.join_history()
    posterior = work.parts.whole(posterior)
    posterior.eval()
    best = keeper.best(posterior)
    mine = share(len(x), comm.size, comm.rank)
    mine_rows, temperature = slice(mine.start, mine.stop), work.objective.temperature
    for each in (posterior, best):
        if each is not None:
            each.finish(x[mine_rows], y[mine_rows], comm.sum, temperature)
    return Fitted(posterior, history, best)


@torch.enable_grad()
def gradients(
    posterior: Posterior,
    data: Sequence[Any],
    *,
    objective: Objective | None = None,
    layout: Layout | None = None,
    num_samples: int | None = None,
    seed: int = 0,
    step: int = 0,
    samples_in_flight: int | None = None,
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
        num_samples: S, over all ranks; None: 8, or all that the posterior has.
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
    posterior = inputs.posterior_of(posterior)
    num_samples = inputs.samples(posterior, num_samples, USUAL_SAMPLES, training=True)
    work, x, y = begin(
        posterior,
        data,
        objective,
        layout,
        num_samples,
        seed=seed,
        samples_in_flight=samples_in_flight,
        recompute=recompute,
        augment=augment,
        views=views,
    )
    compute_gradient(work, x, y, whole("step", step, 0), first=True)
    named = work.posterior.named_parameters()
    return {n: work.parts.join(n, p.grad.clone()) for n, p in named if p.grad is not None}


def order(num_rows: int, batch_size: int, seed: int, epoch: int) -> tuple[Tensor, ...]:
    """Rows of each batch of an epoch, the same on every rank.

    Args:
        num_rows: N, size of the data set.
        batch_size: B; the last batch may be smaller.
        seed: the run's seed.
        epoch: which epoch.
    """
    generator = Key(seed).fold("order", epoch).generator()
    return torch.randperm(num_rows, generator=generator).split(batch_size)
