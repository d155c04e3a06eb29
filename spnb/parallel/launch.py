"""How the ranks that a launcher has started find each other: ``python -m torch.distributed.run``.

The launcher hosts a store, and since torch 2.5 the same one for every attempt: when all ranks are
started again after a failure, a rank may read the address that a dead one left there, and wait for
it for ever (PyTorch's issue 135712; seen in about one restart of ten). So the ranks first agree on
a name that no earlier attempt can have used, by a greeting of three words, and keep all else under
it. The launcher's own count of its attempts would not do: on each node it counts for itself.
"""

from __future__ import annotations

import os
import secrets
import time
from datetime import timedelta

import torch.distributed as dist

PAUSE = 0.005
"""Seconds between two looks into the store."""


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
