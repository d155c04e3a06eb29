"""Ranks find each other, whatever dead ones have left in the store."""

from __future__ import annotations

import socket
import threading
import time
from datetime import timedelta

import pytest
import torch.distributed as dist

from spnb.parallel.launch import agree_on_name

HANG = 120.0
"""Seconds after which a test takes something for hanging."""


def store() -> dist.TCPStore:
    listener = socket.create_server(("127.0.0.1", 0))
    return dist.TCPStore(
        "127.0.0.1",
        listener.getsockname()[1],
        is_master=True,
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )


def words(shared: dist.Store, ranks: list[int]) -> list[bytes]:
    """What ranks but the first have said, now or in an earlier attempt."""
    return [shared.get(name) if shared.check([name := f"hello {r}"]) else b"" for r in ranks if r]


def agreed(shared: dist.Store, world_size: int, late: int | None = None) -> list[str]:
    """What each of some ranks takes for the name; one of them may come late."""
    found: dict[int, str] = {}

    def meet(rank: int) -> None:
        found[rank] = agree_on_name(shared, rank, world_size, timedelta(seconds=HANG))

    ranks = [threading.Thread(target=meet, args=(rank,)) for rank in range(world_size)]
    early = [rank for rank in range(world_size) if rank != late]
    before = words(shared, early)
    for rank in early:
        ranks[rank].start()
    if late is not None:
        limit = time.monotonic() + HANG
        while any(one == other for one, other in zip(words(shared, early), before, strict=True)):
            assert time.monotonic() < limit
            time.sleep(0.01)
        ranks[late].start()  # the others are there and wait for it
    for thread in ranks:
        thread.join()
    return [found[rank] for rank in range(world_size)]


@pytest.mark.parametrize("late", [None, 0, 2])
def test_all_ranks_agree_and_never_twice_on_the_same_name(late: int | None) -> None:
    shared, names = store(), set()
    for _ in range(5):  # one attempt after the other, in the same store
        found = agreed(shared, 3, late)
        assert len(set(found)) == 1
        names.add(found[0])
    assert len(names) == 5


def test_who_does_not_come_is_named() -> None:
    shared = store()
    with pytest.raises(TimeoutError, match="Ranks 1, 2 did not come"):
        agree_on_name(shared, 0, 3, timedelta(seconds=0.1))
    with pytest.raises(TimeoutError, match="Rank 0 did not come"):
        agree_on_name(shared, 1, 3, timedelta(seconds=0.1))
