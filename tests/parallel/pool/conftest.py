"""A real Jupyter kernel to drive, as a notebook's front end would."""

from __future__ import annotations

import os
import re
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any

import psutil
import pytest
from jupyter_client.manager import KernelManager, start_new_kernel

ROOT = Path(__file__).parents[3]
ANSI = re.compile(r"\x1b\[[0-9;]*m")

HANG = 120.0
"""Seconds after which a test takes something for hanging; nothing else has a limit."""

PREAMBLE = """
import os, time, threading, torch
import torch.distributed as dist
from spnb.parallel.memory import share
from spnb.parallel.pool import WorkerPool, WorkerDied, call, process
# Beside other work a rank may be slow: it is not killed for that, nor cut short at its end.
kill_after = call.KILL_AFTER
call.KILL_AFTER = process.FAREWELL = 100.0
def clock(function, *args, **kwargs):
    start = time.perf_counter()
    function(*args, **kwargs)
    return time.perf_counter() - start
def here():
    "Tell the test that this rank has come so far."
    open(os.path.join(os.environ["HERE"], os.environ["RANK"]), "w").close()
"""
"""What every kernel knows."""


@dataclass
class Reply:
    """What one cell produced.

    Attributes:
        text: What was printed.
        error: Name and message of its exception, and the traceback as shown.
        displays: Data of each output that was displayed; updates replace their data.
        updates: How often a display was redrawn.
        seconds: How long the cell took.
    """

    text: str = ""
    result: str = ""
    error: tuple[str, str] | None = None
    trace: str = ""
    displays: dict[str, dict[str, str]] = field(default_factory=dict)
    updates: int = 0
    seconds: float = 0.0


class Kernel:
    """A kernel and its client."""

    def __init__(self) -> None:
        self._here = tempfile.TemporaryDirectory()
        env = {**os.environ, "PYTHONPATH": str(ROOT), "HERE": self._here.name}
        self.manager: KernelManager
        self.manager, self.client = start_new_kernel(env=env)
        self.pid: int = self.manager.provisioner.process.pid
        self._message = ""
        self._start = 0.0

    def begin(self, code: str) -> None:
        """Start a cell."""
        self._start = time.monotonic()
        self._message = self.client.execute(code)

    def end(self, *until: str) -> Reply:
        """Collect what the cell produces until it is over, or has printed all these texts."""
        reply, limit = Reply(), time.monotonic() + HANG
        while True:
            left = limit - time.monotonic()
            try:
                message = self.client.get_iopub_msg(timeout=max(0.01, left))
            except Empty:
                raise AssertionError(f"not done in {HANG} s; so far:\n{reply.text}") from None
            if message["parent_header"].get("msg_id") != self._message:
                continue
            if self._take(message["msg_type"], message["content"], reply):
                reply.seconds = time.monotonic() - self._start
                return reply
            if until and all(text in reply.text for text in until):
                return reply

    def meet(self, ranks: int = 2, resting: bool = True) -> None:
        """Wait until the function that a cell runs has called `here` on each rank.

        Args:
            ranks: How many there are.
            resting: Whether the ranks wait for something thereafter, and that is waited for, too:
                that the main thread of each worker sleeps and goes on sleeping. One that is only
                slow does not sleep, and one that polls, or wants Python's lock, wakes up.
        """
        folder = Path(self._here.name)
        wait_for(lambda: len(list(folder.iterdir())) == ranks, "the ranks to come")
        for file in folder.iterdir():
            file.unlink()
        if not resting:
            return
        looks: list[object] = []

        def rest() -> bool:
            look = [(w.status(), w.num_ctx_switches()) for w in self.workers()]
            looks.append(look)
            asleep = all(status == psutil.STATUS_SLEEPING for status, _ in look)
            return asleep and looks[-10:] == 10 * [look]

        wait_for(rest, "the ranks to rest")

    def _take(self, kind: str, content: dict[str, Any], reply: Reply) -> bool:
        if kind == "stream":
            reply.text += content["text"]
        elif kind == "execute_result":
            reply.result = content["data"]["text/plain"]
        elif kind == "error":
            reply.error = (content["ename"], content["evalue"])
            reply.trace = ANSI.sub("", "\n".join(content["traceback"]))
        elif kind == "display_data":
            name = content.get("transient", {}).get("display_id", str(len(reply.displays)))
            reply.displays[name] = content["data"]
        elif kind == "update_display_data":
            reply.displays[content["transient"]["display_id"]] = content["data"]
            reply.updates += 1
        return kind == "status" and content["execution_state"] == "idle"

    def run(self, code: str) -> Reply:
        """Run a cell."""
        self.begin(code)
        return self.end()

    def value(self, code: str) -> Any:
        """Run a cell that must succeed, and return its value."""
        reply = self.run(code)
        assert reply.error is None, reply.trace
        return eval(reply.result) if reply.result else None

    def interrupt(self) -> None:
        """Press the stop button."""
        self.manager.interrupt_kernel()

    def children(self) -> list[psutil.Process]:
        """List the processes that the kernel has started, but for multiprocessing's own."""
        children = psutil.Process(self.pid).children(recursive=True)
        return [p for p in children if "resource_tracker" not in command(p)]

    def workers(self) -> list[psutil.Process]:
        """List the workers among them."""
        return [p for p in self.children() if "spawn_main" in command(p)]

    def kill(self) -> None:
        """Kill the kernel with no chance to tidy up."""
        os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel()  # in peace, so that what it ran counts as covered
        self._here.cleanup()


def command(process: psutil.Process) -> str:
    """The command of a process; nothing if it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is the case."""
    limit = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < limit, f"waited {HANG} s for {what}"
        time.sleep(0.02)


def wait_until_gone(processes: list[psutil.Process]) -> None:
    """Wait until all these processes have ended."""

    def alive(process: psutil.Process) -> bool:
        try:
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:  # it ended between the two questions
            return False

    wait_for(lambda: not any(map(alive, processes)), "processes to end")


@pytest.fixture
def new_kernel() -> Iterator[Kernel]:
    """A kernel of one's own."""
    kernel = Kernel()
    kernel.run(PREAMBLE)
    yield kernel
    kernel.close()


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    """A kernel with a pool of two ranks, `pool`, used by all tests of a module."""
    kernel = Kernel()
    kernel.value(
        PREAMBLE + "pool = WorkerPool(2)\nranks = pool.run(lambda: int(os.environ['RANK']))"
    )
    yield kernel
    processes = kernel.children()
    kernel.close()
    wait_until_gone(processes)


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test with the shared kernel: the pool works, and nothing but it is alive."""
    yield
    if "kernel" not in request.fixturenames:
        return
    kernel: Kernel = request.getfixturevalue("kernel")
    sums = "pool.run(lambda: (x := torch.ones(1), dist.all_reduce(x))[0].item())"
    assert kernel.value(sums) == [2.0, 2.0]
    assert len(kernel.children()) == 2
