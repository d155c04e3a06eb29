"""A real Jupyter kernel to drive, as a notebook's front end would."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any

import psutil
import pytest
from jupyter_client.manager import KernelManager, start_new_kernel

ROOT = Path(__file__).parents[3]
ANSI = re.compile(r"\x1b\[[0-9;]*m")

PREAMBLE = """
import os, time, threading, torch
import torch.distributed as dist
from spnb.parallel.memory import share
from spnb.parallel.pool import WorkerPool, WorkerDied
def clock(function, *args, **kwargs):
    start = time.perf_counter()
    function(*args, **kwargs)
    return time.perf_counter() - start
"""


@dataclass
class Reply:
    """What one cell produced.

    Attributes:
        texts: What was printed, with the seconds after the start of the cell.
        error: Name and message of its exception, and the traceback as shown.
        displays: Data of each output that was displayed; updates replace their data.
        updates: How often a display was redrawn.
        seconds: How long the cell took.
    """

    texts: list[tuple[float, str]] = field(default_factory=list)
    result: str = ""
    error: tuple[str, str] | None = None
    trace: str = ""
    displays: dict[str, dict[str, str]] = field(default_factory=dict)
    updates: int = 0
    seconds: float = 0.0

    @property
    def text(self) -> str:
        return "".join(text for _, text in self.texts)


class Kernel:
    """A kernel and its client."""

    def __init__(self) -> None:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.manager: KernelManager
        self.manager, self.client = start_new_kernel(env=env)
        self.pid: int = self.manager.provisioner.process.pid
        self._message = ""
        self._start = 0.0

    def begin(self, code: str) -> None:
        """Start a cell."""
        self._start = time.monotonic()
        self._message = self.client.execute(code)

    def end(self, limit: float = 25.0, until: str | None = None) -> Reply:
        """Collect what the cell produces until it is over, or has printed a text."""
        reply = Reply()
        while True:
            left = self._start + limit - time.monotonic()
            try:
                message = self.client.get_iopub_msg(timeout=max(0.01, left))
            except Empty:
                raise AssertionError(f"not done in {limit} s; so far:\n{reply.text}") from None
            if message["parent_header"].get("msg_id") != self._message:
                continue
            if self._take(message["msg_type"], message["content"], reply):
                reply.seconds = time.monotonic() - self._start
                return reply
            if until is not None and until in reply.text:
                return reply

    def _take(self, kind: str, content: dict[str, Any], reply: Reply) -> bool:
        if kind == "stream":
            reply.texts.append((time.monotonic() - self._start, content["text"]))
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

    def run(self, code: str, limit: float = 25.0) -> Reply:
        """Run a cell."""
        self.begin(code)
        return self.end(limit)

    def value(self, code: str, limit: float = 25.0) -> Any:
        """Run a cell that must succeed, and return its value."""
        reply = self.run(code, limit)
        assert reply.error is None, reply.trace
        return eval(reply.result) if reply.result else None

    def interrupt(self) -> None:
        """Press the stop button."""
        self.manager.interrupt_kernel()

    def children(self) -> list[psutil.Process]:
        """List the processes that the kernel has started, but for multiprocessing's own."""
        children = psutil.Process(self.pid).children(recursive=True)
        return [p for p in children if "resource_tracker" not in " ".join(p.cmdline())]

    def kill(self) -> None:
        """Kill the kernel with no chance to tidy up."""
        os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel()  # in peace, so that what it ran counts as covered


def gone(processes: list[psutil.Process], within: float) -> bool:
    """Whether all processes end within so many seconds."""
    limit = time.monotonic() + within
    while time.monotonic() < limit:
        if not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes):
            return True
        time.sleep(0.02)
    return False


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
    assert gone(processes, 2.0)


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test with the shared kernel: the pool works, and nothing but it is alive."""
    yield
    if "kernel" not in request.fixturenames:
        return
    kernel: Kernel = request.getfixturevalue("kernel")
    sums = "pool.run(lambda: (x := torch.ones(1), dist.all_reduce(x))[0].item())"
    assert kernel.value(sums, limit=15.0) == [2.0, 2.0]
    assert len(kernel.children()) == 2
