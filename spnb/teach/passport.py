"""The hardware passport: what this machine offers, and what a worker pool will make of it.

It is the first thing that the course shows, and the first thing to paste into a report. Making it
touches no GPU: devices are counted, CUDA is not initialised in the notebook's own process.
"""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import spnb
from spnb.parallel import devices

GIB = 2**30
_CELL = "padding: 0.1em 1.2em 0.1em 0; text-align: left; background: none;"


@dataclass(frozen=True)
class Passport:
    """What the machine has, and how so many ranks would use it.

    Attributes:
        ranks: Number of ranks that it is made out for.
        system: Operating system and processor architecture.
        cores: Cores that this process may really use (affinity and container quota).
        threads_per_rank: Threads that each rank gets.
        memory_gib: Memory of the machine, or of the container if that has less, in GiB; None
            where the system does not tell.
        gpus: CUDA devices that can be seen.
        device: Where the ranks will compute, ``"cpu"`` or ``"cuda"``.
        backend: What they will talk through, ``"gloo"`` or ``"nccl"``.
        versions: Versions of what matters, by name.
    """

    ranks: int
    system: str
    cores: int
    threads_per_rank: int
    memory_gib: float | None
    gpus: int
    device: str
    backend: str
    versions: dict[str, str]

    def as_dict(self) -> dict[str, object]:
        """The entries as a plain dictionary, ready for JSON."""
        return asdict(self)

    def rows(self) -> list[tuple[str, str, str]]:
        """What a reader sees: name, value, and what it means."""
        memory = "not told" if self.memory_gib is None else f"{self.memory_gib:.1f} GiB"
        shared = self.cores < self.ranks
        threads = "ranks share a core: slower, same results" if shared else "the cores, shared out"
        where = "one GPU each" if self.device == "cuda" else "all ranks on the CPU"
        return [
            ("system", self.system, ""),
            ("cores", str(self.cores), "that this process may really use"),
            ("ranks", str(self.ranks), "worker processes, for which this is made out"),
            ("threads per rank", str(self.threads_per_rank), threads),
            ("memory", memory, "for the notebook and all ranks together"),
            ("GPUs", str(self.gpus), "counted, not touched"),
            ("device", self.device, where),
            ("backend", self.backend, "what the ranks talk through"),
            *((name, value, "") for name, value in self.versions.items()),
        ]

    def __str__(self) -> str:
        """The passport as aligned text."""
        rows = self.rows()
        names, values = (max(len(row[i]) for row in rows) for i in (0, 1))
        lines = [f"{name:<{names}}  {value:<{values}}  {note}" for name, value, note in rows]
        return "\n".join(line.rstrip() for line in ("Hardware passport", *lines))

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr style="background: none"><th scope="row" style="{_CELL}">{escape(name)}</th>'
            f'<td style="{_CELL}">{escape(value)}</td>'
            f'<td style="{_CELL} opacity: 0.75">{escape(note)}</td></tr>'
            for name, value, note in self.rows()
        )
        return (
            '<div style="display: inline-block; border: 1px solid #999; border-radius: 6px; '
            'padding: 0.5em 1em; color: inherit"><b>Hardware passport</b>'
            f'<table style="border: none; margin: 0.3em 0 0 0">{rows}</table></div>'
        )


def passport(ranks: int = 2) -> Passport:
    """Make out a passport for a pool of so many ranks on this machine.

    Args:
        ranks: Number of ranks, at least 1.

    Raises:
        ValueError: There is no rank at all.
    """
    if ranks < 1:
        raise ValueError(f"ranks={ranks} must be at least 1.")
    gpus = devices.visible_gpus()
    device, backend = devices.choose(0, ranks)
    return Passport(
        ranks=ranks,
        system=f"{platform.system()} {platform.machine()}",
        cores=devices.usable_cores(),
        threads_per_rank=devices.threads_per_rank(ranks),
        memory_gib=usable_memory(),
        gpus=gpus,
        device=device.type,
        backend=backend,
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "pyro": _version("pyro-ppl"),
            "spnb": spnb.__version__,
        },
    )


def provenance(seed: int) -> str:
    """One line that says where the numbers of a notebook come from."""
    gpus = devices.visible_gpus()
    return (
        f"{devices.usable_cores()} cores, {gpus} GPUs, {platform.system()} {platform.machine()}; "
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"pyro {_version('pyro-ppl')}; seed {seed}"
    )


def usable_memory(
    limits: tuple[str, ...] = (
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ),
) -> float | None:
    """Memory of the machine in GiB, or of its container where that is less.

    Args:
        limits: Files in which a container's limit may stand, in bytes.
    """
    found = []
    try:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):  # the system does not tell
        pass
    for name in limits:
        try:
            found.append(int(Path(name).read_text()))
        except (OSError, ValueError):  # no such file, or the word "max"
            continue
    return min(found) / GIB if found else None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
