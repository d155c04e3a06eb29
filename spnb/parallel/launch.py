"""How the ranks that a launcher has started find each other, on one node or on many.

Slurm's ``srun`` tells each task its number and the names of the nodes, under names of its own
(`adopt_slurm`). ``python -m torch.distributed.run`` speaks torch's language, but hides a trap.

It hosts a store, and since torch 2.5 the same one for every attempt: when all ranks are
started again after a failure, a rank may read the address that a dead one left there, and wait for
it for ever (PyTorch's issue 135712; seen in about one restart of ten). So the ranks first agree on
a name that no earlier attempt can have used, by a greeting of three words, and keep all else under
it. The launcher's own count of its attempts would not do: on each node it counts for itself.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import subprocess
import time
from datetime import timedelta

import torch.distributed as dist

PORTS = range(12_000, 32_000)
"""Where the ranks of a job of Slurm meet: below the ports that a system gives away by itself."""

PAUSE = 0.005
"""Seconds between two looks into the store."""


def adopt_slurm() -> None:
    """Say in torch's words what Slurm has told this process, if it is a task of ``srun``.

    A batch script itself is none, nor is a notebook that runs alone in its job.
    """
    told = os.environ
    if "RANK" in told or "SLURM_STEP_ID" not in told:
        return
    world_size = int(told.get("SLURM_STEP_NUM_TASKS", "1"))
    if world_size == 1:
        return
    node, tasks = int(told["SLURM_NODEID"]), _tasks(told["SLURM_STEP_TASKS_PER_NODE"])
    job = int(told["SLURM_JOB_ID"]) * 31 + int(told["SLURM_STEP_ID"])
    told["RANK"], told["WORLD_SIZE"] = told["SLURM_PROCID"], str(world_size)
    told["LOCAL_RANK"], told["LOCAL_WORLD_SIZE"] = told["SLURM_LOCALID"], str(tasks[node])
    told.setdefault("MASTER_ADDR", _address(_first(told["SLURM_STEP_NODELIST"])))
    told.setdefault("MASTER_PORT", str(PORTS.start + job % len(PORTS)))


def _tasks(words: str) -> list[int]:
    """Slurm's short form of the tasks on each node, such as ``2(x3),1``: 2, 2, 2, 1."""
    found = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", words):
        found += [int(count)] * int(times or 1)
    return found


def _first(nodes: str) -> str:
    """The first of the nodes that Slurm's short form names, such as ``gpu[007-009,12],login``."""
    before, bracket, rest = re.match(r"([^\[,]*)(\[?)(.*)", nodes).groups()  # type: ignore[union-attr]
    if not bracket:
        return before
    numbers, _, after = rest.partition("]")
    return before + re.split("[-,]", numbers)[0] + after.partition(",")[0]


def _address(node: str) -> str:
    """Where a node of Slurm can be reached: its name, or what Slurm knows if nobody else does."""
    try:
        socket.getaddrinfo(node, None)
        return node
    except OSError:
        asked = ["scontrol", "show", "node", node]
        said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
        found = re.search(r"NodeAddr=(\S+)", said)
        return found[1] if found else node


def join(backend: str, timeout: timedelta = timedelta(minutes=10)) -> None:
    """Make the default process group of the ranks that a launcher has started.

    Args:
        backend: of torch.distributed.
        timeout: how long ranks wait for each other.

    Raises:
        TimeoutError: some ranks have not come.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # others set up a store anew for each attempt
        dist.init_process_group(backend, timeout=timeout)
        return
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store, _, _ = next(dist.rendezvous("env://", rank, world_size, timeout=timeout))
    name = agree_on_name(dist.PrefixStore("spnb", store), rank, world_size, timeout)
    dist.init_process_group(
        backend,
        store=dist.PrefixStore(name, store),
        rank=rank,
        world_size=world_size,
        timeout=timeout,
    )


def agree_on_name(store: dist.Store, rank: int, world_size: int, timeout: timedelta) -> str:
    """A name that all ranks know and that nobody has used before, whatever lies in the store.

    Every other rank says a word of its own; rank 0 answers with that word and the name; the rank
    says the name. An answer with one's own word cannot be an old one, nor can a name that rank 0
    has only just made up.

    Args:
        store: what all ranks can read and write; it may hold what earlier ranks wrote.
        rank: this one.
        world_size: how many there are.
        timeout: how long to wait.

    Raises:
        TimeoutError: says which ranks have not come.
    """
    end = time.monotonic() + timeout.total_seconds()
    word = secrets.token_hex(8)
    if rank:
        store.set(f"hello {rank}", word)
        while not (answer := _read(store, f"welcome {rank}")).startswith(word):
            _wait(end, [0])
        name = answer.removeprefix(word)
        store.set(f"confirmed {rank}", name)
        return name
    missing = set(range(1, world_size))
    while missing:
        for other in sorted(missing):
            if hello := _read(store, f"hello {other}"):
                store.set(f"welcome {other}", hello + word)
            if _read(store, f"confirmed {other}") == word:
                missing.remove(other)
        if missing:
            _wait(end, sorted(missing))
    return word


def _read(store: dist.Store, key: str) -> str:
    """What is written under a key now; nothing if nothing is."""
    return store.get(key).decode() if store.check([key]) else ""


def _wait(end: float, missing: list[int]) -> None:
    if time.monotonic() > end:
        raise TimeoutError(
            f"Rank{'s'[: len(missing) > 1]} {', '.join(map(str, missing))} did not come: see "
            "whether all processes were started, and reach each other."
        )
    time.sleep(PAUSE)
