"""Sums and gathers of ranks that share a host, through memory that they share.

What goes through a socket waits for the kernel to wake a sleeping thread on each side, and on a
machine that is otherwise idle that takes longer than to add up the gradient of a small network.
Ranks that have a core each need no kernel: each writes what it has on a board of its own, counts
up, and looks at the counters of the others until all have come as far.

A sum is made in two turns: each rank adds up its part of everybody's numbers, then takes the other
parts from those who have added them up. So all ranks get the same bits, and the work of each does
not grow with their number. What is larger than a board is sent piece by piece. Every board has two
sides, used in turn: a rank writes on one while another still reads the other.
"""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import select
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from spnb.parallel import devices
from spnb.parallel.memory import PAGE, Region, memory_file

SIDE = 2**20
"""Bytes of one side of a board: little enough to stay in a core's cache."""

SPIN = 0.01
"""Seconds for which a rank looks without a pause, which keeps its core busy."""

PAUSE = 1e-4
"""Seconds between two looks after that."""

TOKEN = slice(64, 96)
"""Where a board carries its name; the counter has the first cache line for itself."""


class Blackboard:
    """What the ranks of a process group have in front of them.

    Args:
        rank: number of this rank in the group.
        boards: the memory of each rank.
        processes: their process ids.
        timeout: seconds after which waiting is an error.
    """

    def __init__(
        self, rank: int, boards: Sequence[Region], processes: Sequence[int], timeout: float
    ) -> None:
        self.rank, self.size = rank, len(boards)
        self._processes, self._timeout = processes, timeout
        self._counters = [memoryview(board)[:8].cast("q") for board in boards]
        whole = [torch.frombuffer(board, dtype=torch.uint8, offset=PAGE) for board in boards]
        self._sides = [[board[start : start + SIDE] for board in whole] for start in (0, SIDE)]
        self._count = self._turn = 0
        self._broken_off = False
        self._ends = {os.pidfd_open(pid): number for number, pid in enumerate(processes)}
        self._poll = select.poll()
        for descriptor in self._ends:
            self._poll.register(descriptor, select.POLLIN)

    def __del__(self) -> None:
        for descriptor in getattr(self, "_ends", ()):
            os.close(descriptor)

    def sum(self, tensor: Tensor) -> None:
        """Replace a contiguous tensor by its sum over the ranks; all get the same bits."""
        with self._whole():
            for piece, boards in self._pieces(tensor.detach().view(-1)):
                parts = [
                    slice(len(piece) * r // self.size, len(piece) * (r + 1) // self.size)
                    for r in range(self.size)
                ]
                boards[self.rank].copy_(piece)
                self._meet()
                own = parts[self.rank]
                for number, board in enumerate(boards):
                    if number != self.rank:
                        boards[self.rank][own].add_(board[own])
                self._meet()
                for part, board in zip(parts, boards, strict=True):
                    piece[part] = board[part]

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Tensors of the same shape from all ranks, in their order."""
        found = [torch.empty_like(tensor, requires_grad=False) for _ in range(self.size)]
        with self._whole():
            start = 0
            for piece, boards in self._pieces(tensor.detach().view(-1)):
                boards[self.rank].copy_(piece)
                self._meet()
                for into, board in zip(found, boards, strict=True):
                    into.view(-1)[start : start + len(piece)] = board
                start += len(piece)
        return found

    def gather_windows(self, flat: Tensor) -> None:
        """Fill a vector from equal windows of it, of which each rank has its own; in place."""
        windows = flat.view(self.size, -1)
        with self._whole():
            start = 0
            for piece, boards in self._pieces(windows[self.rank]):
                boards[self.rank].copy_(piece)
                self._meet()
                for number, board in enumerate(boards):
                    if number != self.rank:
                        windows[number, start : start + len(piece)] = board
                start += len(piece)

    def sum_windows(self, flat: Tensor) -> None:
        """Replace a rank's own window of a vector by its sum over the ranks; the rest is lost."""
        windows = flat.view(self.size, -1)
        room = SIDE // flat.element_size() // self.size
        with self._whole():
            for start in range(0, windows.shape[1], room):
                part = windows[:, start : start + room]
                self._turn = 1 - self._turn
                boards = [
                    side.view(flat.dtype)[: part.numel()].view(part.shape)
                    for side in self._sides[self._turn]
                ]
                boards[self.rank].copy_(part)
                self._meet()
                own = part[self.rank].copy_(boards[0][self.rank])  # all in the order of the ranks
                for board in boards[1:]:
                    own.add_(board[self.rank])

    def _pieces(self, flat: Tensor) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Pieces of a vector, each with room for it on all boards."""
        for piece in flat.split(SIDE // flat.element_size()):
            self._turn = 1 - self._turn
            yield piece, [b.view(flat.dtype)[: len(piece)] for b in self._sides[self._turn]]

    def _meet(self) -> None:
        """Wait until all ranks have come as far as this one."""
        self._count += 1
        self._counters[self.rank][0] = self._count
        start = time.perf_counter()
        for number, counter in enumerate(self._counters):
            while counter[0] < self._count:
                waited = time.perf_counter() - start
                if waited < SPIN:
                    os.sched_yield()  # whoever else has work goes first
                    continue
                time.sleep(PAUSE)
                ended = [self._ends[descriptor] for descriptor, _ in self._poll.poll(0)]
                if ended and counter[0] < self._count:
                    raise RuntimeError(
                        f"{self._name(ended[0])} ended while {self._name(self.rank)} was waiting "
                        "for it in a collective."
                    )
                if waited > self._timeout:
                    raise RuntimeError(
                        f"{self._name(number)} has not come to a collective in which "
                        f"{self._name(self.rank)} has waited for {waited:.0f} s: do all ranks take "
                        "the same steps?"
                    )

    def _name(self, number: int) -> str:
        return f"rank {number} (process {self._processes[number]})"

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        """Refuse to go on after a collective that was broken off: the counters tell lies then."""
        if self._broken_off:
            raise RuntimeError(
                "An earlier collective of these ranks was broken off: make the process group anew."
            )
        self._broken_off = True
        yield
        self._broken_off = False


#: by process group: the default group in which it was made, and its board or None
_made: dict[Any, tuple[Any, Blackboard | None]] = {}


def blackboard(group: Any) -> Blackboard | None:
    """The blackboard of a process group, None where its ranks have to send messages.

    It is made when it is first asked for, by all ranks of the group together.
    """
    if group not in _made:
        world = dist.group.WORLD
        for stale in [g for g, (its_world, _) in _made.items() if its_world is not world]:
            del _made[stale]
        _made[group] = world, _make(group)
    return _made[group][1]


def _make(group: Any) -> Blackboard | None:
    if dist.get_backend(group) != "gloo":
        return None
    size = dist.get_world_size(group)
    descriptor, token = -1, secrets.token_bytes(TOKEN.stop - TOKEN.start)
    if _possible(size):
        room = bytearray(PAGE + 2 * SIDE)
        room[TOKEN] = token
        descriptor, _ = memory_file([memoryview(room)])
    try:
        offers = _exchange((os.getpid(), descriptor, token), group)
        board = _look(offers, group)
        everybody = _exchange(board is not None, group)  # then the descriptor may be closed
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return board if all(everybody) else None


def _look(offers: Sequence[tuple[int, int, bytes]], group: Any) -> Blackboard | None:
    """This process' view of the boards that were offered; None if one cannot be seen."""
    timeout = group._get_backend(torch.device("cpu")).options._timeout.total_seconds()
    boards = [_map(*offer) for offer in offers]
    mapped = [board for board in boards if board is not None]
    if len(mapped) < len(boards):
        return None
    try:
        return Blackboard(dist.get_rank(group), mapped, [pid for pid, _, _ in offers], timeout)
    except OSError:  # a container may forbid to watch other processes
        return None


def _possible(size: int) -> bool:
    """Whether this process can take part.

    Looking at each other needs a core for each rank, and a processor on which what one core writes
    is seen by the others in that order.
    """
    return (
        hasattr(os, "pidfd_open")
        and platform.machine() in ("x86_64", "AMD64")
        and devices.usable_cores() >= int(os.environ.get("LOCAL_WORLD_SIZE", size))
    )


def _exchange(value: Any, group: Any) -> list[Any]:
    found = [None] * dist.get_world_size(group)
    dist.all_gather_object(found, value, group=group)
    return found


def _map(process: int, descriptor: int, token: bytes) -> Region | None:
    """Map another process' board; None if it has none, or is on another host."""
    try:
        opened = os.open(f"/proc/{process}/fd/{descriptor}", os.O_RDWR)
    except OSError:
        return None
    try:
        if os.fstat(opened).st_size != PAGE + 2 * SIDE:
            return None
        board = Region(opened, shared=True)
    finally:
        os.close(opened)
    return board if board[TOKEN] == token else None
