"""The optimiser of a run: Adam, a schedule from torch, and weight decay where it belongs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch.optim import LBFGS, AdamW, Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    ReduceLROnPlateau,
    SequentialLR,
)

from spnb.maths.posteriors import Posterior
from spnb.parallel.arguments import real
from spnb.parallel.keyed import Key
from spnb.run.work import Work

Schedule = Literal["constant", "cosine"] | Callable[[Optimizer, int], LRScheduler]
_NEEDS_CLOSURE = (
    "LBFGS evaluates the loss several times a step, and fit once: use Adam, SGD or another "
    "optimiser whose step needs no closure."
)
OptimizerLike = type[Optimizer] | Callable[[Posterior], Optimizer]


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
    """Adam with decoupled weight decay (arXiv 1412.6980, 1711.05101)."""
    fused = next(posterior.parameters()).device.type in ("cpu", "cuda")
    return AdamW(parameter_groups(posterior, weight_decay), lr=learning_rate, fused=fused)


def _made(
    optimizer: OptimizerLike, posterior: Posterior, learning_rate: float, weight_decay: float
) -> Optimizer:
    """The optimiser that a user asked for.

    Raises:
        TypeError: there is none.
        ValueError: it moves other parameters than the posterior's.
        NotImplementedError: it evaluates the loss itself.
    """
    given: Any = optimizer
    if isinstance(given, LBFGS) or given is LBFGS:
        raise NotImplementedError(_NEEDS_CLOSURE)
    if isinstance(given, Optimizer):
        raise TypeError(
            f"optimizer is a {type(given).__name__} over other parameters, since fit trains a "
            f"copy of the posterior: give the class, optimizer=torch.optim."
            f"{type(given).__name__}, or a function of the posterior."
        )
    if isinstance(given, type) and Optimizer in given.__mro__:
        made = given(parameter_groups(posterior, weight_decay), lr=learning_rate)
    else:
        made = given(posterior) if callable(given) else given
    if not isinstance(made, Optimizer):
        raise TypeError(
            f"optimizer gave a {type(made).__name__}, not a torch.optim.Optimizer: give a class "
            "such as torch.optim.SGD, or a function such as "
            "lambda posterior: torch.optim.SGD(posterior.parameters(), lr=0.1)."
        )
    if isinstance(made, LBFGS):
        raise NotImplementedError(_NEEDS_CLOSURE)
    own = {id(parameter) for parameter in posterior.parameters()}
    moved = [parameter for group in made.param_groups for parameter in group["params"]]
    if strange := sum(id(parameter) not in own for parameter in moved):
        raise ValueError(
            f"{strange} of the optimiser's {len(moved)} parameters are not those of the posterior "
            "that fit hands over: make it of posterior.parameters(), not of the net's."
        )
    return made


def update_rule(
    work: Work,
    optimizer: OptimizerLike | None,
    learning_rate: float,
    weight_decay: float,
    schedule: Schedule,
    warmup_steps: float,
    total_steps: int,
) -> tuple[Optimizer, LRScheduler | None]:
    """What makes the updates of a run: the posterior's own moves, a given optimiser, or Adam.

    Args:
        work: the run.
        optimizer: as for `spnb.fit`; None: `adam`.
        learning_rate: of `adam` or an optimiser's class, or of the posterior's moves.
        weight_decay: of `adam` or an optimiser's class.
        schedule: as for `scheduler`.
        warmup_steps: as for `scheduler`.
        total_steps: number of steps of the run.

    Raises:
        ValueError: bad numbers, or something for an optimiser where there is none.
    """
    posterior = work.posterior
    per_step = work.objective.temperature / work.num_data
    own = posterior.moves(learning_rate, per_step, Key(work.seed).fold("moves"), total_steps)
    if own is None:
        if optimizer is None:
            adapt = adam(posterior, learning_rate, weight_decay)
        else:
            adapt = _made(optimizer, posterior, learning_rate, weight_decay)
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
        TypeError: the function gives no scheduler.
        ValueError: the schedule has no such name, the scheduler is of another optimiser, or the
            warm-up is longer than the run.
        NotImplementedError: it needs more than the number of the step.
    """
    if not callable(schedule) and schedule not in ("constant", "cosine"):
        raise ValueError(
            f"schedule='{schedule}' is neither 'constant' nor 'cosine', nor a function "
            "(optimizer, steps) -> scheduler."
        )
    if not real("warmup_steps", warmup_steps) < total_steps:
        raise ValueError(
            f"warmup_steps={warmup_steps!r} must be a number of steps below the "
            f"run's {total_steps}, or a share of them between 0 and 1."
        )
    rises = int(warmup_steps * total_steps) if warmup_steps < 1 else int(warmup_steps)
    rest = total_steps - rises

    def main() -> LRScheduler:
        if callable(schedule):
            return _checked(schedule(optimizer, rest), optimizer)
        if schedule == "cosine":
            return CosineAnnealingLR(optimizer, rest)
        return ConstantLR(optimizer, factor=1.0)

    if not rises:
        return main()
    rising = LinearLR(optimizer, start_factor=1 / (rises + 1), total_iters=rises)
    return SequentialLR(optimizer, [rising, main()], milestones=[rises])


def _checked(made: Any, optimizer: Optimizer) -> LRScheduler:
    if isinstance(made, ReduceLROnPlateau):
        raise NotImplementedError(
            "ReduceLROnPlateau waits for a score, and fit steps its schedule once a step without "
            "one: use 'cosine', or another scheduler of torch.optim.lr_scheduler."
        )
    if not isinstance(made, LRScheduler):
        raise TypeError(
            f"schedule gave a {type(made).__name__}, not a scheduler of torch.optim.lr_scheduler."
        )
    if made.optimizer is not optimizer:
        raise ValueError(
            "schedule gave a scheduler of another optimiser than the one that it was handed: make "
            "it of its first argument."
        )
    return made
