"""The optimiser of a run: Adam, a schedule from torch, and weight decay where it belongs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    SequentialLR,
)

from spnb.maths.posteriors import Posterior
from spnb.parallel.keyed import Key
from spnb.run.work import Work

Schedule = Literal["constant", "cosine"] | Callable[[Optimizer, int], LRScheduler]


def parameter_groups(posterior: Posterior, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: parameters with weight decay, and those that must have none.

    Args:
        posterior: the posterior to train.
        weight_decay: decoupled weight decay of the means and deterministic parameters.
    """
    trained = dict(posterior.named_parameters())
    decayed = [p for name, p in trained.items() if name not in posterior.undecayed]
    free = [p for name, p in trained.items() if name in posterior.undecayed]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def adam(posterior: Posterior, learning_rate: float, weight_decay: float = 0.0) -> Optimizer:
    """Adam with decoupled weight decay (arXiv 1412.6980, 1711.05101).

    Raises:
        ValueError: the learning rate is not positive, or the decay negative.
    """
    if not (learning_rate > 0 and math.isfinite(learning_rate)):
        raise ValueError(f"learning_rate={learning_rate} must be a positive number.")
    if not weight_decay >= 0:
        raise ValueError(f"weight_decay={weight_decay} must not be negative.")
    fused = next(posterior.parameters()).device.type in ("cpu", "cuda")
    return AdamW(parameter_groups(posterior, weight_decay), lr=learning_rate, fused=fused)


def update_rule(
    work: Work,
    optimizer: Callable[[Posterior], Optimizer] | None,
    learning_rate: float,
    weight_decay: float,
    schedule: Schedule,
    warmup_steps: float,
    total_steps: int,
) -> tuple[Optimizer, LRScheduler | None]:
    """What makes the updates of a run: the posterior's own moves, a given optimiser, or Adam.

    Args:
        work: the run.
        optimizer: makes an optimiser from the posterior; None: `adam`.
        learning_rate: of `adam`, or of the posterior's moves.
        weight_decay: of `adam`.
        schedule: as for `scheduler`.
        warmup_steps: as for `scheduler`.
        total_steps: number of steps of the run.

    Raises:
        ValueError: bad numbers, or something for an optimiser where there is none.
    """
    posterior = work.posterior
    default = adam(posterior, learning_rate, weight_decay)
    per_step = work.objective.temperature / work.num_data
    own = posterior.moves(learning_rate, per_step, Key(work.seed).fold("moves"), total_steps)
    if own is None:
        adapt = default if optimizer is None else optimizer(posterior)
        return adapt, scheduler(adapt, schedule, warmup_steps, total_steps)
    if optimizer is not None or weight_decay or schedule != "constant" or warmup_steps:
        raise ValueError(
            f"{type(posterior).__name__} moves by a rule of its own: leave out optimizer, "
            "weight_decay, schedule and warmup_steps."
        )
    return own, None


def scheduler(
    optimizer: Optimizer, schedule: Schedule, warmup_steps: float, total_steps: int
) -> LRScheduler:
    """A learning-rate schedule, stepped once a step.

    Args:
        optimizer: the optimiser.
        schedule: ``"constant"``, ``"cosine"`` (down to zero at the last step), or a function
            ``(optimizer, steps) -> scheduler``.
        warmup_steps: steps over which the rate first rises linearly to its full value; below 1, a
            share of the run.
        total_steps: number of steps of the run.

    Raises:
        ValueError: the schedule has no such name, or the warm-up is longer than the run.
    """
    if not isinstance(warmup_steps, int | float) or not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"warmup_steps={warmup_steps!r} must be a number of steps below the "
            f"run's {total_steps}, or a share of them between 0 and 1."
        )
    rises = int(warmup_steps * total_steps) if warmup_steps < 1 else int(warmup_steps)
    rest = total_steps - rises

    def main() -> LRScheduler:
        if callable(schedule):
            return schedule(optimizer, rest)
        if schedule == "cosine":
            return CosineAnnealingLR(optimizer, rest)
        if schedule == "constant":
            return ConstantLR(optimizer, factor=1.0)
        raise ValueError(f"schedule='{schedule}' is neither 'constant' nor 'cosine'.")

    if not rises:
        return main()
    rising = LinearLR(optimizer, start_factor=1 / (rises + 1), total_iters=rises)
    return SequentialLR(optimizer, [rising, main()], milestones=[rises])
