"""One worker process, seen from the notebook.

It is started by `torch.multiprocessing`'s spawn: a fresh interpreter, so it does not matter what
the notebook has done with threads or CUDA before. Two traps of spawn in a notebook are kept shut
here: it would execute the notebook's ``__main__`` again where that has a file, and a new process
shares the kernel's process group, whose interrupt it must not get. A third one is of fork: Python
has whatever is forked from the notebook end the notebook's workers (`WorkerProcess.disown`).
"""

from __future__ import annotations

import contextlib
import multiprocessing.process
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from typing import Any, Literal

import torch.multiprocessing

from spnb.parallel.pool import worker
from spnb.parallel.pool.channel import Channel
from spnb.parallel.pool.place import Place
from spnb.parallel.progress import Report

State = Literal["starting", "idle", "running", "ended"]

FAREWELL = 2.0
"""Seconds that idle workers get to end by themselves."""


@dataclass(frozen=True)
class RankStatus:
    """What a pool knows about one rank: `WorkerPool.status` lists them.

    Attributes:
        rank: Its number.
        device: Where it computes.
        pid: Its process id, None if it is not running.
        memory: Its resident memory in bytes, without what is shared with others.
        threads: How many threads torch uses in it.
        state: starting, idle, running or ended (then it is started again by the next run).
        report: What it last told of its progress, in this run or the last; None if nothing.
    """

    rank: int
    device: str
    pid: int | None
    memory: int
    threads: int
    state: State
    report: Report | None = None

    @classmethod
    def of(
        cls,
        rank: int,
        process: WorkerProcess | None,
        device: str,
        threads: int,
        report: Report | None,
    ) -> RankStatus:
        """The status of a rank with its process, None if it has none yet."""
        alive = process is not None and process.state != "ended"
        return cls(
            rank=rank,
            device=f"cuda:{rank}" if device == "cuda" else "cpu",
            pid=process.pid if process and alive else None,
            memory=process.memory() if process and alive else 0,
            threads=threads,
            state=process.state if process else "ended",
            report=report,
        )


class WorkerProcess:
    """The process of one rank, its message channel and its output pipe.

    Attributes:
        rank: Its number.
        pid: Its process id.
        state: What it does, as far as is known.
        sent_sources: Names of the notebook's cells whose source it has.
        channel: The line to it.
        output: The descriptor from which all that it prints is read; negative when it is closed.
    """

    def __init__(
        self,
        rank: int,
        world_size: int,
        store_port: int,
        threads: int,
        device: str,
    ) -> None:
        self.rank = rank
        self.state: State = "starting"
        self.sent_sources: set[str] = set()
        # The system kills the worker as soon as the *thread* that started it ends, so ask for
        # that only in the main thread, which ends with the process.
        tied = threading.current_thread() is threading.main_thread()
        place = Place(rank, world_size, store_port, threads, device, os.getpid() if tied else 0)
        context = torch.multiprocessing.get_context("spawn")
        ours, theirs = socket.socketpair()
        output, output_end = context.Pipe(duplex=False)
        # As a daemon it is ended with the notebook, whatever else fails.
        self._process = context.Process(
            target=worker.main, args=(theirs, output_end, place), daemon=True
        )
        try:
            with _main_hidden():
                self._process.start()
        except BaseException:
            ours.close()
            output.close()
            raise
        finally:
            theirs.close()
            output_end.close()
        self.output = os.dup(output.fileno())
        output.close()
        os.set_blocking(self.output, False)
        self.channel = Channel(ours)
        self.pid = self._process.pid or 0

    def bury(self) -> int:
        """Notice that the process has ended: its exit code. What it had started is ended, too."""
        connection.wait([self._process.sentinel], 1.0)  # it hangs up a moment before its end
        self.kill()
        return self._process.exitcode or 0

    def await_end(self, seconds: float) -> None:
        """Wait until the process has ended, if it does so in time."""
        self._process.join(seconds)

    def refresh(self) -> None:
        """Between runs: notice that the worker is ready, or that it has ended."""
        while self.state != "ended" and select.select([self.channel], [], [], 0)[0]:
            received = self.channel.receive()
            if received is None:
                self.bury()
                return
            (kind, *_), descriptors = received
            for descriptor in descriptors:  # a late answer to a run that was given up
                os.close(descriptor)
            if kind == "ready":
                self.state = "idle"

    def memory(self) -> int:
        """Resident bytes of the process, without pages that it shares; 0 if it has ended."""
        try:
            with open(f"/proc/{self.pid}/statm") as file:
                _, resident, shared, *_ = map(int, file.read().split())
        except OSError:
            return 0
        return (resident - shared) * os.sysconf("SC_PAGE_SIZE")

    def ask_to_end(self) -> None:
        """Let an idle worker end by itself, so that what it does at its exit is done."""
        self.refresh()
        if self.state == "idle":
            with contextlib.suppress(OSError):
                self.channel.send("end", 0)

    def kill(self) -> None:
        """End the process, and all that it has started, now; it is gone when this returns."""
        self.state = "ended"
        process: Any = self._process
        if process._popen.returncode is None:  # else its number may be another's by now
            # It leads a group of its own, unless it has only just been started.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            process.kill()
            process.join()

    def close(self) -> None:
        """Kill the process and give back what it held here."""
        if self.output < 0:
            return
        self.kill()
        self._process.close()
        self.channel.close()
        os.close(self.output)
        self.output = -1

    def disown(self) -> None:
        """Forget the process, where this one was forked from the notebook's: it is not its child.

        Multiprocessing would end it as its own; and with these descriptors open, it would not hear
        that the notebook has ended.
        """
        if self.output < 0:
            return
        multiprocessing.process._children.discard(self._process)  # type: ignore[attr-defined]
        self.state = "ended"
        self.channel.close()
        os.close(self.output)
        self.output = -1


def close_all(processes: list[WorkerProcess]) -> None:
    """End all processes, in peace where they are idle, and forget them."""
    for process in processes:
        process.ask_to_end()
    limit = time.monotonic() + FAREWELL
    for process in processes:
        if process.state == "idle":
            process.await_end(max(0.0, limit - time.monotonic()))
        process.close()
    processes.clear()


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold interrupts back while processes are started: they arrive when all of them have been.

    A new process takes this over from the thread that starts it, so that it is not interrupted
    before it can deal with that.
    """
    resource_tracker.ensure_running()  # started later, it would let them through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _main_hidden() -> Iterator[None]:
    """Hide what spawn would execute again in the new process: the program's own file."""
    main = sys.modules["__main__"]
    hidden = {name: getattr(main, name) for name in ("__file__", "__spec__") if hasattr(main, name)}
    for name in hidden:
        setattr(main, name, None)
    try:
        yield
    finally:
        for name, value in hidden.items():
            setattr(main, name, value)
