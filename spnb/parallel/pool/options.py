"""What the maker of a pool asks for, checked before any process starts."""

from __future__ import annotations

import math
import os
import warnings
from numbers import Integral, Real
from typing import Any

import torch.distributed as dist

from spnb.parallel import devices

MOST = 64
"""Workers, or threads of one, that any machine may start; larger ones eight for each core."""

SHORTEST, LONGEST = 1e-3, 1e9
"""Seconds that may be waited for: torch counts milliseconds, and nanoseconds in 64 bits."""

_NOT_FOR_A_RUN = ("undefined", "fake")
"""Names of backends by which no rank hears of another."""


def most() -> int:
    """The largest number of workers, or of threads of one, on this machine."""
    return max(MOST, 8 * (os.cpu_count() or 1))


def _is_a(kind: Any, number: Any) -> bool:
    """Whether something is a number of a kind, be it Python's or numpy's; a bool is none."""
    return isinstance(number, kind) and not isinstance(number, bool)


def check_whole(name: str, number: Any, least: int | None = None, limit: int | None = None) -> int:
    """Return a whole number within its limits; numpy's are whole numbers, too."""
    wanted = "a whole number"
    wanted += "" if least is None else f" of at least {least}"
    wanted += "" if limit is None else f", and at most {limit} on this machine"
    if not _is_a(Integral, number):
        raise TypeError(f"{name}={number!r} must be {wanted}.")
    if (least is not None and number < least) or (limit is not None and number > limit):
        raise ValueError(f"{name}={number} must be {wanted}.")
    return int(number)


def check_size(num_workers: int | None, device: str | None = None) -> int:
    """Return the number of ranks: the one asked for if it makes sense, else the best one."""
    gpus = 0 if device == "cpu" else devices.visible_gpus()
    best = gpus or devices.usable_cores()
    if num_workers is None:
        return best
    advice = f"WorkerPool() takes one for each {'GPU' if gpus else 'core'}, {best} here."
    if not _is_a(Integral, num_workers):
        raise TypeError(f"The number of workers must be an int, not {num_workers!r}: {advice}")
    if num_workers < 1:
        raise ValueError(f"The number of workers must be at least 1, not {num_workers}: {advice}")
    if num_workers > most():
        raise ValueError(
            f"{num_workers} workers are too many for this machine, which may start {most()}: "
            f"{advice}"
        )
    return int(num_workers)


def check_threads(threads: int | None, ranks: int) -> int:
    """Return the number of threads of a rank: the one asked for, else its share of the cores."""
    if threads is None:
        return devices.threads_per_rank(ranks)
    return check_whole("threads", threads, 1, most())


def check_seconds(name: str, seconds: float) -> float:
    """Return a number of seconds that can be waited for."""
    if not _is_a(Real, seconds):
        raise TypeError(f"{name}={seconds!r} must be a number of seconds.")
    if not SHORTEST <= seconds <= LONGEST:  # nor is NaN
        raise ValueError(
            f"{name}={seconds} must be a number of seconds between {SHORTEST:g} and {LONGEST:g}."
        )
    return float(seconds)


def check_limit(name: str, seconds: float | None) -> float | None:
    """Return seconds after which something happens; None, like infinitely many: never."""
    if seconds is None or (_is_a(Real, seconds) and seconds == math.inf):
        return None
    try:
        return check_seconds(name, seconds)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{str(error)[:-1]}, or None for never.") from None


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


def check_backend(backend: str | None, device: str) -> str | None:
    """Return the backend asked for, if ranks on such a device can use it here.

    Args:
        backend: As torch.distributed takes it: ``"gloo"``, or ``"cpu:gloo,cuda:nccl"``; None for
            the device's own.
        device: ``cpu`` or ``cuda``.
    """
    if backend is None:
        return None
    if not isinstance(backend, str):
        raise TypeError(
            f"backend={backend!r} must be the name of a backend of torch.distributed, or None."
        )
    for entry in backend.lower().split(","):
        name = entry.rpartition(":")[2]
        if name in _NOT_FOR_A_RUN or not dist.is_backend_available(name):
            there = [n for n in dist.Backend.backend_list if n not in _NOT_FOR_A_RUN]
            found = ", ".join(n for n in there if dist.is_backend_available(n))
            raise ValueError(
                f"backend={backend!r}: this torch has no backend {name!r}, but {found}; None takes "
                "the one that goes with the device."
            )
        if name == "nccl" and device == "cpu":
            raise ValueError(
                f"backend={backend!r}: NCCL needs a GPU for each rank, and these compute on the "
                "CPU; None takes the one that goes with the device."
            )
    return backend
