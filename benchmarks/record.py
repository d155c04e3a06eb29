"""The record of a run: where the numbers come from, and the file that holds them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import spnb
from benchmarks.peers import PARALLEL_PEERS, PEERS
from benchmarks.workloads import SEED, WORKLOADS
from spnb.parallel import devices
from spnb.teach.passport import usable_memory

ROOT = Path(__file__).parents[1]
Record = dict[str, Any]
DISTURBED = 0.2
"""Cores that other programs keep busy, from which on a figure says so."""


def provenance() -> Record:
    """Machine, versions, commit, seed, date."""
    memory = usable_memory()
    return {
        "machine": {
            "processor": processor(),
            "cores": devices.usable_cores(),
            "memory_gib": memory and round(memory, 1),
            "gpus": gpus(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "pyro": installed("pyro-ppl"),
            "spnb": spnb.__version__,
        },
        "peers": {
            peer.package: peer.version()
            for peer in (PEERS | PARALLEL_PEERS).values()
            if peer.package not in ("torch", "pyro-ppl")
        },
        "workloads": {
            key: {"name": work.name, "batch_size": work.batch_size, "num_data": work.num_data}
            for key, work in WORKLOADS.items()
        },
        "commit": commit(),
        "seed": SEED,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def line(part: Record) -> str:
    """Where a part's numbers come from, in a line for a figure."""
    origin, device = part["provenance"], part.get("device", "cpu")
    machine, versions = origin["machine"], origin["versions"]
    where = f"{machine['cores']} cores, {machine['processor']}"
    if device.startswith("cuda"):
        where = ", ".join(machine["gpus"]) or device
    busy = part.get("others_busy") or 0.0
    return (
        ("quick run; " if part.get("quick") else "")
        + (f"{busy:.1f} cores busy with other programs; " if busy >= DISTURBED else "")
        + f"{where}; Python {versions['python']}, torch {versions['torch']}, "
        f"spnb {versions['spnb']} ({origin['commit'] or 'no commit'}); seed {origin['seed']}"
    )


def others(earlier: tuple[float, ...] | None, later: tuple[float, ...] | None) -> float | None:
    """How many cores other programs kept busy between two looks at the clocks.

    Args:
        earlier: what `clocks` told.
        later: likewise, when all processes started in between have ended.
    """
    if earlier is None or later is None:
        return None
    wall, machine, ours = (after - before for before, after in zip(earlier, later, strict=True))
    return round(max(0.0, machine - ours) / wall, 2)


def clocks() -> tuple[float, ...] | None:
    """Seconds: by the wall, of all cores at work, of this process and its ended children."""
    try:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    except OSError:  # not Linux
        return None
    ticks = [int(field) for field in fields]
    idle, waiting = 3, 4
    busy = (sum(ticks) - ticks[idle] - ticks[waiting]) / os.sysconf("SC_CLK_TCK")
    return time.perf_counter(), busy, sum(os.times()[:4])


def processor() -> str:
    """The processor's name, as the kernel tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1] for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return " ".join(name.replace("(R)", "").replace("(TM)", "").split())


def gpus() -> list[str]:
    """Names of the GPUs, as the driver tells them without touching one."""
    if not devices.visible_gpus():
        return []
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    return output(command).splitlines() or [f"{devices.visible_gpus()} GPUs"]


def commit() -> str | None:
    """The commit that was measured, with a ``+`` if files differ from it."""
    name = output(["git", "rev-parse", "--short=12", "HEAD"]).strip()
    changed = output(["git", "status", "--porcelain"]).strip()
    return f"{name}{'+' if changed else ''}" if name else None


def output(command: list[str]) -> str:
    """What a command prints; nothing if it fails or is not there."""
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def installed(package: str) -> str | None:
    """Version of a package, None where there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def read(path: Path) -> Record:
    """All parts measured so far, by name."""
    return json.loads(path.read_text("utf-8"))["parts"] if path.exists() else {}


def write(path: Path, name: str, part: Record) -> Record:
    """Put a part into the file, beside the others, each of which tells where it comes from.

    Args:
        path: the file; made if it is not there.
        name: the part's name.
        part: what was measured.

    Returns:
        All parts.
    """
    parts = read(path) | {name: part}
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps({"parts": parts}, indent=1, ensure_ascii=False) + "\n", "utf-8")
    draft.replace(path)  # never half a file
    return parts
