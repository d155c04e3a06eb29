"""Sums and gathers through shared memory: right, in step, and ended when a rank is."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

import spnb
from spnb.parallel import blackboard as module
from spnb.parallel import devices
from spnb.parallel.blackboard import SIDE, Blackboard, blackboard
from spnb.parallel.collectives import Communicator

pytestmark = [
    pytest.mark.pool,
    pytest.mark.skipif(
        devices.usable_cores() < 2 or not module._possible(2), reason="needs a core for each rank"
    ),
]

HANG = 120.0
"""Seconds after which a test takes something for hanging: a collective would wait for 600."""

LENGTHS = (0, 1, 5, 1000, SIDE // 4, 2 * SIDE // 4 + 3)


@pytest.fixture(scope="module")
def pool() -> Iterator[spnb.WorkerPool]:
    with spnb.WorkerPool(2, silence=None) as pool:
        yield pool


def board_here(even_if_crowded: bool = False) -> Blackboard:
    if even_if_crowded:  # more ranks than cores: slow, but right
        module._possible = lambda size: True
    board = blackboard(dist.group.WORLD)
    assert board is not None
    return board


def sums_and_gathers(even_if_crowded: bool) -> list[bytes]:
    """Checked against gloo's within; the bits of the sums are returned."""
    board = board_here(even_if_crowded)
    rank, size = dist.get_rank(), dist.get_world_size()
    bits = []
    for dtype in (torch.float32, torch.float64, torch.int64):
        for length in LENGTHS:
            generator = torch.Generator().manual_seed(length)
            every = (100 * torch.randn(size, length, generator=generator)).to(dtype)
            found = every[rank].clone()
            board.sum(found)
            expected = every.double().sum(0).to(dtype)
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-4)
            bits.append(found.numpy().tobytes())
            whole = torch.stack(board.gather(every[rank].view(1, length)))
            assert torch.equal(whole, every.view(size, 1, length))
    return bits


def test_two_ranks(pool: spnb.WorkerPool) -> None:
    one, other = pool.run(sums_and_gathers, False)
    assert one == other


@pytest.mark.parametrize("size", [3, pytest.param(4, marks=pytest.mark.exhaustive)])
def test_more_ranks(size: int) -> None:
    with spnb.WorkerPool(size, silence=None) as pool:
        first, *others = pool.run(sums_and_gathers, True)
    assert all(bits == first for bits in others)


def many_in_a_row() -> float:
    """Ranks that dawdle at random meet all the same; the largest error.

    The pauses are what is tested: shorter and longer than a rank looks without one.
    """
    board, rank = board_here(), dist.get_rank()
    dawdle = random.Random(rank)
    worst = 0.0
    for turn in range(3000):
        if dawdle.random() < 0.02:
            time.sleep(dawdle.choice((1e-5, 1e-3, 1.5 * module.SPIN)))
        found = torch.full((turn % 50 + 1,), float((rank + 1) * turn))
        if turn % 3 == 2:
            whole = board.gather(found)
            worst = max(worst, *((w - (r + 1) * turn).abs().max() for r, w in enumerate(whole)))
        else:
            board.sum(found)
            worst = max(worst, (found - 3 * turn).abs().max())
    return float(worst)


def test_ranks_stay_in_step(pool: spnb.WorkerPool) -> None:
    assert pool.run(many_in_a_row) == [0.0, 0.0]


def test_the_communicator_uses_it_and_counts(pool: spnb.WorkerPool) -> None:
    def step() -> tuple[bool, list[float], int, bool]:
        comm = Communicator.join(spnb.Layout(sample=2))
        tensor = torch.arange(3.0) + comm.rank
        before = blackboard(dist.group.WORLD)
        start = time.perf_counter()
        comm.sum(tensor)
        elapsed = time.perf_counter() - start
        counted = sum(traffic.seconds for traffic in comm.traffic.values())
        return before is not None, tensor.tolist(), comm.sent_bytes, 0 < counted <= elapsed

    assert pool.run(step) == [(True, [1.0, 3.0, 5.0], 12, True)] * 2


def wait_while_the_other(end: str) -> None:
    board = board_here()
    if dist.get_rank() == 0:
        board.sum(torch.ones(3))
    elif end == "raises":
        raise LookupError("of my own")
    else:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(("end", "error"), [("raises", LookupError), ("dies", spnb.WorkerDied)])
def test_the_cause_is_named_and_the_next_run_is_whole(
    pool: spnb.WorkerPool, end: str, error: type[Exception]
) -> None:
    pool.run(open_files)  # which makes the board
    start = time.perf_counter()
    with pytest.raises(error):
        pool.run(wait_while_the_other, end)
    assert time.perf_counter() - start < HANG
    one, other = pool.run(sums_and_gathers, False)
    assert one == other


ALONE = """
import os, sys, torch, torch.distributed as dist
from spnb.parallel.blackboard import blackboard
dist.init_process_group("gloo")
board = blackboard(dist.group.WORLD)
if dist.get_rank() == 1:
    os._exit(0)
try:
    board.sum(torch.ones(3))
except RuntimeError as error:
    print(error, flush=True)
os._exit(0)
"""


def test_an_end_is_noticed_without_a_notebook() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", ALONE],
            env={**os.environ, **place, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said, _ = (rank.communicate(timeout=HANG)[0] for rank in ranks)
    assert said.startswith(f"rank 1 (process {ranks[1].pid}) ended while rank 0 (process ")


def come_late() -> list[str]:
    board, messages = board_here(), []
    if dist.get_rank() == 0:
        board._timeout = 0.1
        for _ in range(2):
            with pytest.raises(RuntimeError) as caught:
                board.sum(torch.ones(3))
            messages.append(str(caught.value))
    dist.barrier()  # until then rank 1 is alive, and does not come
    return messages


def test_waiting_has_an_end_and_nothing_is_summed_after_it() -> None:
    with spnb.WorkerPool(2, silence=None) as pool:
        late, broken = pool.run(come_late)[0]
    assert "rank 1 (process " in late and "has not come to a collective" in late
    assert broken.startswith("An earlier collective of these ranks was broken off")


def one_cannot() -> bool:
    if dist.get_rank() == 1:
        module._possible = lambda size: False
    without = blackboard(dist.group.WORLD) is None
    comm = Communicator.join(spnb.Layout(sample=2))
    tensor = torch.ones(3)
    comm.sum(tensor)
    return without and tensor.tolist() == [2.0, 2.0, 2.0]


def test_all_send_messages_where_one_has_to() -> None:
    with spnb.WorkerPool(2, silence=None) as pool:
        assert pool.run(one_cannot) == [True, True]


def open_files() -> int:
    board_here()
    return len(os.listdir("/proc/self/fd"))


def test_old_boards_are_given_back(pool: spnb.WorkerPool) -> None:
    before = pool.run(open_files)
    for _ in range(3):
        with pytest.raises(LookupError):
            pool.run(wait_while_the_other, "raises")
        after = pool.run(open_files)
    assert max(a - b for a, b in zip(after, before, strict=True)) <= 2


def test_another_host_is_noticed() -> None:
    assert module._map(os.getpid(), 10_000, b"") is None
    with open(os.devnull) as other:
        assert module._map(os.getpid(), other.fileno(), b"") is None
    descriptor, _ = module.memory_file([memoryview(bytearray(module.PAGE + 2 * SIDE))])
    assert module._map(os.getpid(), descriptor, bytes(32)) is not None
    assert module._map(os.getpid(), descriptor, b"another's" + bytes(23)) is None
    os.close(descriptor)
