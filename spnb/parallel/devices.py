"""Where a rank computes, with which backend, and with how many threads: decided here, only here.

The notebook's own process calls these functions too, so none of them may initialise CUDA:
devices are counted, never touched (a process that has initialised CUDA holds memory on the GPU
and can no longer be forked).
"""

from __future__ import annotations

import ctypes
import os
import warnings
from pathlib import Path

import torch

DEVICE_VARIABLE = "SPNB_DEVICE"
"""Environment variable that overrules the choice: ``cpu`` or ``cuda``."""

NCCL_SHARED_MEMORY = 128 * 2**20
"""Free bytes in /dev/shm below which NCCL is likely to fail (Docker gives 64 MB by default)."""

KEPT_MEMORY = 256 * 2**20
"""Bytes up to which `keep_freed_memory` keeps what is freed."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from malloc.h


def visible_gpus() -> int:
    """Count the CUDA devices this process may use, without initialising CUDA."""
    return torch.cuda.device_count() if torch.backends.cuda.is_built() else 0


def usable_cores() -> int:
    """Count the cores this process may really use: CPU affinity and cgroup quota, at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, cores if quota is None else min(cores, int(quota)))


def threads_per_rank(ranks: int) -> int:
    """Share the usable cores among the ranks of this machine, at least one thread each."""
    return max(1, usable_cores() // ranks)


def choose(local_rank: int, local_world_size: int) -> tuple[torch.device, str]:
    """Choose the device and the torch.distributed backend of one rank.

    Each rank has a GPU of its own, or all ranks compute on the CPU: two ranks on one GPU would
    only wait for each other, and NCCL refuses it.

    Args:
        local_rank: The rank's number on this machine.
        local_world_size: How many ranks this machine runs.

    Returns:
        ``(cuda:<local_rank>, "nccl")`` if enough GPUs are visible, else ``(cpu, "gloo")``. With
        too few GPUs a warning says so. ``SPNB_DEVICE=cpu`` or ``cuda`` in the environment
        overrules the choice.
    """
    wanted = os.environ.get(DEVICE_VARIABLE, "")
    if wanted not in ("", "cpu", "cuda"):
        raise ValueError(f"{DEVICE_VARIABLE}={wanted!r} is not a device: use 'cpu' or 'cuda'.")
    gpus = 0 if wanted == "cpu" else visible_gpus()
    if gpus == 1 < local_world_size <= int(os.environ.get("SLURM_GPUS_ON_NODE", "0")):
        return torch.device("cuda", 0), "nccl"  # Slurm shows each task its own GPU alone
    if gpus >= local_world_size:
        return torch.device("cuda", local_rank), "nccl"
    few = f"{local_world_size} ranks need {local_world_size} GPUs, but {gpus} can be seen"
    if wanted == "cuda":
        fewer = f"at most {gpus} ranks, or " if gpus else ""
        raise RuntimeError(f"{few}: use {fewer}{DEVICE_VARIABLE}=cpu.")
    if gpus and local_rank == 0:
        warnings.warn(
            f"{few}, so all ranks compute on the CPU: with {gpus} "
            f"{'rank' if gpus == 1 else 'ranks'} each would have a GPU.",
            stacklevel=2,
        )
    return torch.device("cpu"), "gloo"


def keep_freed_memory(size: int = KEPT_MEMORY) -> None:
    """Have the C library keep freed memory for the next allocation, where it is glibc.

    A training step allocates and frees the same tensors again and again. Given back to the system
    each time, their pages have to be mapped and cleared anew, which can take longer than to compute
    with them.

    Args:
        size: blocks up to this many bytes are kept.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return
    libc.mallopt(_M_MMAP_THRESHOLD, size)
    libc.mallopt(_M_TRIM_THRESHOLD, size)


def shared_memory_warning(path: str = "/dev/shm") -> str | None:
    """Say in one sentence if NCCL is likely to run out of shared memory, else return None."""
    try:
        disk = os.statvfs(path)
    except OSError:
        return None
    free = disk.f_bavail * disk.f_frsize
    if free >= NCCL_SHARED_MEMORY:
        return None
    return (
        f"{path} has only {free / 2**20:.0f} MB free, and NCCL may fail with less than "
        f"{NCCL_SHARED_MEMORY / 2**20:.0f} MB: give the container more (docker --shm-size=1g), "
        "or set NCCL_SHM_DISABLE=1."
    )


def _cgroup_quota(
    root: Path = Path("/sys/fs/cgroup"), me: Path = Path("/proc/self/cgroup")
) -> float | None:
    """Return the tightest CPU quota, in cores, of this process's cgroup and those above it."""
    try:
        lines = me.read_text().splitlines()
    except OSError:
        return None
    quotas = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Version 2 has one unnamed hierarchy; version 1 a folder for each set of controllers.
        base = root / controllers if controllers else root
        here = base / path.lstrip("/")
        for folder in (here, *here.parents):
            quotas += _read_quota(folder)
            if folder == base:
                break
    return min(quotas, default=None)


def _read_quota(folder: Path) -> list[float]:
    """Read one cgroup folder's CPU quota in cores: an empty list if it sets none."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        return [float(quota) / float(period)] if float(quota) > 0 else []
    except (OSError, ValueError):  # no such file, or the word "max"
        return []
