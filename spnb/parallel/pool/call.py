"""One run of a function on all ranks: waiting, showing, interrupting, and finding the cause.

Everything happens in the thread that called `run`: a background thread would print into the wrong
cell. While it waits, the stop button's signal is only counted, and acted on step by step:

| after | a rank that has not stopped |
|---|---|
| 0 s | is interrupted: `KeyboardInterrupt` in its function |
| 1 s (at once if another rank failed) | is woken from the collective that it waits in |
| 0.3 s later | is woken from the store, where a rank waits for one that never came |
| 4 s | is killed; the next run starts it anew, and the cell says where it was |

Another press of the button takes the next step at once.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from spnb.parallel.pool.channel import Payload
from spnb.parallel.pool.failure import Failure, WorkerDied, obituary, rebuild
from spnb.parallel.pool.output import RankOutput, write
from spnb.parallel.pool.process import WorkerProcess
from spnb.parallel.pool.silence import Silence
from spnb.parallel.progress import Panel, Report

WAKE_AFTER = 1.0
STORE_AFTER = 0.3
KILL_AFTER = 4.0
ASK_BEFORE = 0.5
TICK = 0.05

SAME_TIME = 0.5
"""A death is seen a little later than the failures that it causes on other ranks."""


class Call:
    """One run, from the message to the workers until each of them has answered.

    Attributes:
        results: The packed results by rank.
        intact: Whether the process groups can be used for another run.
    """

    def __init__(
        self,
        number: int,
        processes: list[WorkerProcess],
        outputs: list[RankOutput],
        silence: Silence,
        look: Callable[[dict[int, Report]], None],
        all_join: Callable[[], bool],
    ) -> None:
        self.results: dict[int, Payload] = {}
        self.intact = True
        self._number = number
        self._processes = processes
        self._outputs = outputs
        self._pids = [process.pid for process in processes]
        self._silence = silence
        self._look = look
        self._all_join = all_join
        self._panel = Panel(len(processes))
        self._waiting = set(range(len(processes)))
        self._failures: dict[int, tuple[float, Failure]] = {}
        self._dead: dict[int, tuple[float, str]] = {}
        self._presses = 0
        self._abandoned = False
        self._pressed_at = float("inf")
        self._plan: list[tuple[float, str]] = []
        self._given_up: dict[int, str] = {}

    def interrupt(self) -> None:
        """Stop the run (callable from a signal handler or another thread)."""
        self._presses += 1

    def abandon(self) -> None:
        """Kill all ranks that have not answered (callable as `interrupt` is)."""
        self._abandoned = True

    def start(self, message: dict[str, Any], payload: Payload) -> None:
        """Send the function to all ranks."""
        for process in self._processes:
            sources = {k: v for k, v in message["sources"].items() if k not in process.sent_sources}
            process.sent_sources.update(sources)
            mine = {**message, "sources": sources, "ranks": self._pids, "payload": payload}
            with contextlib.suppress(OSError):  # its death is noticed when its end of file is
                process.channel.send("run", self._number, mine, descriptors=payload.descriptors)
            if process.state == "idle":
                process.state = "running"

    def wait(self) -> None:
        """Wait until every rank has answered or died, and show what they print."""
        try:
            self._wait()
        except BaseException:  # such as of a pipe that nobody reads: the ranks are still at work
            self._kill_waiting()
            raise

    def _wait(self) -> None:
        poll = select.poll()
        places: dict[int, tuple[str, int]] = {}
        for rank, process in enumerate(self._processes):
            places[process.channel.fileno()] = ("channel", rank)
            places[process.output] = ("output", rank)
        for descriptor in places:
            poll.register(descriptor, select.POLLIN)
        pressed = 0
        while self._waiting:
            for descriptor, _ in poll.poll(TICK * 1000):
                what, rank = places[descriptor]
                if what == "output":
                    self._silence.heard(rank)
                    alive = self._outputs[rank].read(descriptor)
                else:
                    alive = self._hear(rank)
                if not alive:
                    poll.unregister(descriptor)
            if self._abandoned:
                self._kill_waiting()
            if self._presses > pressed:
                pressed = self._presses
                self._press()
            self._follow_plan()
            if not self._plan:
                self._give_up(self._silence.look(self._waiting))
            self._panel.draw()
            self._look(self._panel.reports)
        for output, process in zip(self._outputs, self._processes, strict=True):
            output.finish(process.output)
        self._panel.finish("stopped" if self._plan else "")

    def error(self) -> BaseException | None:
        """Return what the run failed with, and show the last lines of the rank that did."""
        failed_at = {rank: when for rank, (when, _) in self._failures.items()}
        died_at = {rank: when - SAME_TIME for rank, (when, _) in self._dead.items()}
        causes = failed_at | died_at
        if len(self.results) == len(self._processes):
            return None  # perhaps interrupted, but then the function has dealt with it itself
        if self._pressed_at < min(causes.values(), default=float("inf")) or not causes:
            return KeyboardInterrupt("all ranks were stopped; the pool can be used again")
        rank = min(causes, key=lambda r: causes[r])
        if lines := self._outputs[rank].last_lines():
            write(lines)
        if rank in self._dead:
            return WorkerDied(f"{self._dead[rank][1]} The next run starts it again.")
        return rebuild(self._failures[rank][1], rank)

    def close(self) -> None:
        """Give back the descriptors of answers that nobody takes."""
        for payload in self.results.values():
            payload.close()
        for _, failure in self._failures.values():
            if failure.exception:
                failure.exception.close()

    def _hear(self, rank: int) -> bool:
        """Take one message of a rank; false if it has hung up."""
        process = self._processes[rank]
        received = process.channel.receive()
        if received is None:
            self._bury(rank)
            return False
        (kind, number, *rest), descriptors = received
        if kind == "ready":
            process.state = "running"
        elif number != self._number:  # an answer to a run that was given up
            for descriptor in descriptors:
                os.close(descriptor)
        elif kind == "where":
            self._silence.answered(rank, rest[0])
            return True
        elif kind == "progress":
            self._panel.update(rank, *rest)
        elif kind == "done":
            self._answered(rank)
            self.results[rank], intact = rest
            self.results[rank].descriptors = descriptors
            self.intact &= intact
        elif kind == "failed":
            self._answered(rank)
            when, failure, sound = rest
            if not sound:
                process.kill()  # the next run starts it anew
            if failure.exception:
                failure.exception.descriptors = descriptors
            self._failures[rank] = (when, failure)
            self._fail()
        self._silence.heard(rank)
        return True

    def _answered(self, rank: int) -> None:
        self._processes[rank].state = "idle"
        self._waiting.discard(rank)

    def _bury(self, rank: int) -> None:
        process = self._processes[rank]
        started = process.state != "starting"
        code = process.bury()
        if rank in self._waiting:
            self._waiting.discard(rank)
            words = self._given_up.get(rank) or obituary(rank, code, started)
            self._dead[rank] = (time.monotonic(), words)
        self._fail()

    def _give_up(self, ranks: dict[int, str]) -> None:
        """Kill ranks that hang; their end is noticed as any other."""
        self._given_up |= ranks
        for rank in ranks:
            self._processes[rank].kill()

    def _kill_waiting(self) -> None:
        self.intact = False
        for rank in self._waiting:
            self._processes[rank].kill()
        self._waiting.clear()

    def _press(self) -> None:
        """Begin to stop, or go on to the next step."""
        now = time.monotonic()
        self.intact = False
        self._pressed_at = min(self._pressed_at, now)
        if self._plan:
            self._plan[0] = (now, self._plan[0][1])
        else:
            self._plan = _plan(now, WAKE_AFTER)

    def _fail(self) -> None:
        """Stop the other ranks: one cannot go on."""
        now = time.monotonic()
        if self.intact or any(step == "wake" and when > now for when, step in self._plan):
            self.intact = False
            self._plan = _plan(now, 0.0)

    def _follow_plan(self) -> None:
        while self._plan and self._plan[0][0] <= time.monotonic() and self._waiting:
            _, step = self._plan.pop(0)
            if not self._plan:  # the last step is repeated for as long as it takes
                self._plan = [(time.monotonic() + 1.0, "kill")]
            for rank in sorted(self._waiting):
                self._stop(rank, step)

    def _stop(self, rank: int, step: str) -> None:
        process = self._processes[rank]
        with contextlib.suppress(OSError):
            if step == "interrupt":
                process.channel.send("interrupt", self._number)
                if process.state == "starting":
                    # It will find the run cancelled when it is ready; no need to wait for that.
                    self._waiting.discard(rank)
            elif step == "wake":
                process.channel.send("wake", self._number, self._pids)
            elif step == "wake from store":
                process.channel.send(step, self._number, self._all_join())
            elif step == "where":
                process.channel.send(step, self._number)
            else:
                process.kill()
                self._waiting.discard(rank)
                print(
                    f"rank {rank} could not be interrupted and was killed; the next run starts it "
                    f"again. It was here:\n{self._silence.place(rank)}",
                    file=sys.stderr,
                    end="",
                )


def _plan(now: float, wake_after: float) -> list[tuple[float, str]]:
    return [
        (now, "interrupt"),
        (now + wake_after, "wake"),
        (now + wake_after + STORE_AFTER, "wake from store"),
        (now + KILL_AFTER - ASK_BEFORE, "where"),
        (now + KILL_AFTER, "kill"),
    ]


@contextlib.contextmanager
def interrupts_to(call: Call) -> Iterator[None]:
    """Lead the stop button (SIGINT) to a call, if this is the thread that gets it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def press(signum: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            call.interrupt()
        else:  # forked from the notebook's process meanwhile
            signal.default_int_handler(signum, frame)

    before = signal.signal(signal.SIGINT, press)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler if before is None else before)
