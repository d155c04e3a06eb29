"""What the maker of a pool asks for, checked before any process starts."""

from __future__ import annotations

import warnings

from spnb.parallel import devices


def check_size(num_workers: int | None, device: str | None) -> int:
    """Return the number of ranks: the one asked for if it makes sense, else the best one."""
    gpus = 0 if device == "cpu" else devices.visible_gpus()
    best = gpus or devices.usable_cores()
    if num_workers is None:
        return best
    advice = f"WorkerPool() takes one for each {'GPU' if gpus else 'core'}, {best} here."
    if not isinstance(num_workers, int) or isinstance(num_workers, bool):
        raise TypeError(f"The number of workers must be an int, not {num_workers!r}: {advice}")
    if num_workers < 1:
        raise ValueError(f"The number of workers must be at least 1, not {num_workers}: {advice}")
    return num_workers


def choose_device(ranks: int, wanted: str | None) -> str:
    """Choose ``cpu`` or ``cuda`` for all ranks, and warn of what will not go well."""
    if wanted not in (None, "cpu", "cuda"):
        raise ValueError(f"device must be 'cpu' or 'cuda', not {wanted!r}.")
    if wanted == "cpu":
        return wanted
    kind = devices.choose(0, ranks)[0].type
    if wanted == "cuda" and kind != "cuda":
        raise ValueError(
            f"device='cuda' with {ranks} ranks needs {ranks} GPUs, but {devices.visible_gpus()} "
            "can be seen."
        )
    if kind == "cuda" and (warning := devices.shared_memory_warning()):
        warnings.warn(warning, stacklevel=3)
    return kind


def check_limits(*limits: float | None) -> tuple[float | None, ...]:
    """Return seconds of silence that are allowed, if they are positive numbers or None."""
    for limit in limits:
        number = isinstance(limit, int | float) and not isinstance(limit, bool)
        if limit is not None and not (number and limit > 0):
            raise ValueError(
                f"silence and patience must be positive seconds or None, not {limit!r}."
            )
    return limits


def check_restarts(restarts: int) -> int:
    """Return how often a run may be begun again, if it is a number of times."""
    if not isinstance(restarts, int) or isinstance(restarts, bool) or restarts < 0:
        raise ValueError(f"restarts={restarts!r} must be a whole number, 0 or more.")
    return restarts
