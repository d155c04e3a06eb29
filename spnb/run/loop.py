"""A run under way: gradient, clipping, update and schedule, one call a step."""

from __future__ import annotations

import time

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from spnb.run import separate
from spnb.run.history import StepRecord
from spnb.run.step import compute_gradient
from spnb.run.work import Work


class Loop:
    """Takes the steps of a run.

    Args:
        work: what the steps have in common.
        optimizer: makes the update from the gradients.
        schedule: its learning rate.
        clip_norm: largest length of the gradient; None: not clipped.

    Attributes:
        done: how many steps were taken.
    """

    def __init__(
        self,
        work: Work,
        optimizer: Optimizer,
        schedule: LRScheduler | None = None,
        clip_norm: float | None = None,
    ) -> None:
        self.work, self.optimizer, self.schedule = work, optimizer, schedule
        self.clip_norm = clip_norm
        self.done, self._stepped = 0, False
        self._trained = list(work.posterior.parameters())

    def step(self, x: Tensor, y: Tensor) -> StepRecord:
        """Take one step on a batch.

        Args:
            x: inputs of the whole batch ``[B, ...]``, the same on every rank.
            y: targets of the whole batch ``[B, ...]``.

        Raises:
            FloatingPointError: a loss or gradient is not finite.
        """
        start = time.perf_counter()
        info = compute_gradient(self.work, x, y, self.done, first=not self._stepped)
        self._stepped = True
        with self.work.communicator.trace.span("update"):
            norm = self.work.buffer.norm()
            if self.clip_norm is not None and self.work.posterior.separate:
                separate.clip(self.work.posterior, self.clip_norm)
            elif self.clip_norm is not None:
                clip_grads_with_norm_(self._trained, self.clip_norm, norm)
            rate = self.optimizer.param_groups[0]["lr"]
            self.optimizer.step()
            if self.schedule is not None:
                self.schedule.step()
        record = StepRecord(
            self.done,
            info.loss,
            info.data_term,
            info.divergence,
            norm.item(),
            rate,
            time.perf_counter() - start,
        )
        self.done += 1
        return record


def let_go(posterior: torch.nn.Module) -> None:
    """Drop the gradients, which hold on to the memory of the whole run."""
    for parameter in posterior.parameters():
        parameter.grad = None
