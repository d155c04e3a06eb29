"""Posteriors whose samples never meet in training: each rank along ``sample`` has its own.

A rank copies its samples' parameters out of the whole, trains them with the ranks that share its
samples, and puts the whole together at the end. Until then nothing is sent along ``sample``, but
the gradient of deterministic parameters, which all samples share.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from spnb.maths.objectives import Objective
from spnb.maths.posteriors import Posterior
from spnb.parallel.collectives import Communicator
from spnb.run.history import History

if TYPE_CHECKING:
    from spnb.run.work import Work


def check(posterior: Posterior, objective: Objective, per_item: bool, num_samples: int) -> None:
    """Refuse an objective that looks at several samples together, and a part of the samples.

    Raises:
        ValueError: the samples could not be trained each by itself.
    """
    kind = type(posterior).__name__
    if not (objective.separable and per_item):
        raise ValueError(
            f"{objective!r} looks at all samples together, and those of {kind} are trained each by "
            "itself: use spnb.ELBO()."
        )
    if num_samples != posterior.draws_in_training:
        raise ValueError(
            f"num_samples={num_samples}, but {kind} trains all of its "
            f"{posterior.draws_in_training} samples: leave num_samples out."
        )


def own_part(posterior: Posterior, comm: Communicator, num_samples: int) -> Posterior:
    """The part of a posterior that this rank trains, as rank 0 has it."""
    for parameter in posterior.parameters():
        comm.copy_from_first(parameter.data)
    return posterior.part(comm.layout.tile(comm.rank, num_samples, 1).samples)


def share_point(posterior: Posterior, comm: Communicator, num_samples: int) -> None:
    """Average the gradient of the deterministic parameters, if any, over all samples."""
    gradient = posterior.point.grad
    if gradient is not None:
        comm.along("sample").sum(gradient)
        gradient.div_(num_samples)


def clip(posterior: Posterior, most: float) -> None:
    """Shorten what is longer than allowed: each sample's gradient, and that of what they share."""
    for name, parameter in posterior.named_parameters():
        if parameter.grad is not None:
            own = parameter.grad.unsqueeze(0) if name == "point" else parameter.grad
            lengths = own.flatten(1).norm(dim=1)
            factors = (most / (lengths + 1e-6)).clamp(max=1.0)
            own.mul_(factors.view(-1, *[1] * (own.dim() - 1)))


def join_history(history: History, work: Work, first: int, per_epoch: int) -> None:
    """Replace a rank's losses by their mean over all samples, and lengths by those of the whole.

    Args:
        history: the record; from some step on it is the rank's own.
        work: the run.
        first: index of that step.
        per_epoch: how many steps an epoch has.
    """
    comm, num_samples = work.communicator, work.num_samples
    sizes = comm.layout.sizes("sample", num_samples)
    own_steps = history.steps[first:]
    if len(sizes) == 1 or not own_steps:
        return
    rows = [[s.loss, s.data_term, s.divergence, s.gradient_norm] for s in own_steps]
    device = next(work.posterior.parameters()).device
    own = torch.tensor([rows], dtype=torch.float64, device=device)
    parts = comm.gather(own, "sample", 0, [1] * len(sizes)).cpu()  # [ranks, steps, 4]
    shares = torch.tensor(sizes, dtype=torch.float64) / num_samples
    means = torch.einsum("r,rsf->sf", shares, parts)
    lengths = parts[..., 3].square().sum(0).sqrt()
    history.steps[first:] = [
        replace(step, loss=loss, data_term=data, divergence=kl, gradient_norm=length)
        for step, (loss, data, kl, _), length in zip(
            own_steps, means.tolist(), lengths.tolist(), strict=True
        )
    ]
    for epoch, record in enumerate(history.epochs):
        recent = history.loss[epoch * per_epoch :][:per_epoch]
        history.epochs[epoch] = replace(record, loss=sum(recent) / per_epoch)
