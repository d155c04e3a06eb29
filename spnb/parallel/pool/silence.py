"""Ranks of which nothing is heard: say where they are and, if that is wanted, give them up.

A rank that hangs makes the others wait for it, so all of them fall silent. Each is asked for its
stack; those that wait in a collective are victims, the one that is anywhere else, or does not even
answer, is the cause.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable

from spnb.parallel.pool.process import WorkerProcess

ANSWER = 1.0
"""Seconds that a rank has to say where it is."""

IMPORTS = 60.0
"""Seconds that a silent rank may import modules, as a new process does on a slow file system."""

_WAITING = ("/torch/distributed/", "/spnb/parallel/blackboard.py", "/spnb/parallel/collectives.py")


class Silence:
    """Watches for silence during one run.

    Args:
        number: of the run.
        processes: the workers.
        hint: seconds of silence after which the cell says where a rank is; None: never.
        patience: seconds after which silent ranks are given up; None: never.
    """

    def __init__(
        self,
        number: int,
        processes: list[WorkerProcess],
        hint: float | None,
        patience: float | None,
    ) -> None:
        self._number, self._processes = number, processes
        self._hint, self._patience = hint, patience
        self._heard = [time.monotonic()] * len(processes)
        self._asked_at: float | None = None
        self._stacks: dict[int, str] = {}

    def heard(self, rank: int) -> None:
        """A rank has printed something, or sent a message."""
        self._heard[rank] = time.monotonic()

    def answered(self, rank: int, stack: str) -> None:
        """A rank has said where it is; no sign of life, since its main thread may hang."""
        self._stacks[rank] = stack

    def place(self, rank: int) -> str:
        """Where a rank said that it was."""
        return self._stacks.get(rank, "  (no answer: it is busy in compiled code)\n")

    def look(self, waiting: Iterable[int]) -> dict[int, str]:
        """See whether it has been silent for too long.

        Args:
            waiting: the ranks that have not finished.

        Returns:
            Ranks to give up on, each with a sentence; mostly none.
        """
        limits = [limit for limit in (self._hint, self._patience) if limit is not None]
        ranks, now = sorted(waiting), time.monotonic()
        if not limits or not ranks:
            return {}
        if self._asked_at is None:
            quiet = [r for r in ranks if self._seconds(r) > min(limits) and self._running(r)]
            if quiet and (len(ranks) < len(self._processes) or len(quiet) == len(ranks)):
                self._ask(quiet)
            return {}
        if now - self._asked_at < ANSWER:
            return {}
        self._asked_at = None
        if self._patience is not None and min(map(self._seconds, ranks)) > self._patience:
            return self._causes(ranks)
        self._say_where(ranks)
        return {}

    def _seconds(self, rank: int) -> float:
        return time.monotonic() - self._heard[rank]

    def _running(self, rank: int) -> bool:
        return self._processes[rank].state == "running"

    def _ask(self, ranks: Iterable[int]) -> None:
        self._asked_at, self._stacks = time.monotonic(), {}
        for rank in ranks:
            with contextlib.suppress(OSError):
                self._processes[rank].channel.send("where", self._number)

    def _say_where(self, ranks: list[int]) -> None:
        for rank in ranks:
            print(
                f"rank {rank} silent for {self._seconds(rank):.0f} s; it is here:\n"
                f"{self.place(rank)}",
                file=sys.stderr,
                end="",
            )
        print("If this is a deadlock, the stop button ends it.", file=sys.stderr)
        if self._hint is not None:
            self._hint *= 2

    def _causes(self, ranks: list[int]) -> dict[int, str]:
        """The ranks for which the others wait; all of them in a deadlock."""
        causes = {}
        for rank in ranks:
            stack = self._stacks.get(rank)
            if stack and "<frozen importlib" in stack and self._seconds(rank) < IMPORTS:
                return {}
            if stack is None:
                where = "and does not answer: it is stopped, or busy in compiled code"
            elif any(place in _last_place(stack) for place in _WAITING):
                continue
            else:
                where = f"in {_last_place(stack)}"
            causes[rank] = f"rank {rank} hung, {where}; it was killed."
        deadlock = "waits in a collective as all ranks do: not all of them called the same ones"
        return causes or {rank: f"rank {rank} {deadlock}; it was killed." for rank in ranks}


def _last_place(stack: str) -> str:
    """The innermost line of a formatted stack, without its source."""
    places = [line.strip() for line in stack.splitlines() if line.startswith("  File ")]
    return places[-1] if places else ""
