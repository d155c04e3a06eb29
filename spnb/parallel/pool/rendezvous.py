"""How the ranks of a pool find each other.

The notebook hosts the store, on the loopback address only and on a port that the system picks:
no race for a port, and nobody outside the machine can talk to it. The ranks use it under a
prefix that counts the pool's failures, so a key that a failed run left behind is never read.
"""

from __future__ import annotations

import socket
from datetime import timedelta

import torch
import torch.distributed as dist

HOST = "127.0.0.1"

JOINING = "joining"
"""Where the store counts the ranks that have begun to join."""

_client: dist.TCPStore | None = None


def host_store() -> tuple[dist.TCPStore, int]:
    """Open a store in this process: it and its port."""
    listener = socket.create_server((HOST, 0))
    port = listener.getsockname()[1]
    store = dist.TCPStore(
        HOST,
        port,
        is_master=True,
        wait_for_workers=False,
        # Left to itself, the store would listen on all of the machine's addresses.
        master_listen_fd=listener.detach(),
    )
    return store, port


def join(
    port: int,
    generation: int,
    rank: int,
    world_size: int,
    backend: str,
    device: torch.device,
    timeout: float,
) -> None:
    """Make the default process group, where there is none."""
    global _client
    limit = timedelta(seconds=timeout)
    if _client is None:
        _client = dist.TCPStore(HOST, port, is_master=False, wait_for_workers=False, timeout=limit)
    store = _of_generation(generation, _client)
    store.add(JOINING, 1)
    dist.init_process_group(
        backend,
        store=store,
        rank=rank,
        world_size=world_size,
        timeout=limit,
        device_id=device if device.type == "cuda" else None,
    )


def all_join(store: dist.Store, generation: int, world_size: int) -> bool:
    """Whether all ranks have begun to join, so that each will be found by the others."""
    return int(_of_generation(generation, store).add(JOINING, 0)) == world_size


def _of_generation(generation: int, store: dist.Store) -> dist.Store:
    return dist.PrefixStore(f"generation {generation}", store)


def leave() -> None:
    """Destroy the default group and every other."""
    known = dist.distributed_c10d._world
    if known.pg_map and not dist.is_initialized():
        # A failure cut an attempt to join short, between the group and its place as the default:
        # its name would stay taken for good.
        dist.distributed_c10d._update_default_pg(next(iter(known.pg_map)))
    if dist.is_initialized():
        dist.destroy_process_group()
    # Groups are numbered, and a rank whose attempt to join failed has counted it: without this
    # it would wait for the others under another name than they for it.
    known.group_count = 0


def forget_store() -> None:
    """Connect to the store anew next time: the connection has been shut down."""
    global _client
    _client = None
