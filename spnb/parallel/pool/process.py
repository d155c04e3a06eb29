"""One worker process, seen from the notebook.

A plain new Python process, in a session of its own from the very start: the notebook's interrupt,
which is sent to the kernel's whole process group, never reaches it, whatever it is doing; and it
knows nothing of the notebook's ``__main__``, so nothing is executed again. Its environment is set
before it has loaded anything, so torch reads the right number of threads.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import Literal

from spnb.parallel.devices import DEVICE_VARIABLE
from spnb.parallel.pool.channel import Channel

State = Literal["starting", "idle", "running", "ended"]

_PROGRAM = """\
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from spnb.parallel.pool.worker import main
main(int(sys.argv[2]), int(sys.argv[3]))
"""

_NOT_INHERITED = re.compile(
    r"((LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)|TORCHELASTIC_\w+)"
)


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
    """

    rank: int
    device: str
    pid: int | None
    memory: int
    threads: int
    state: State


class WorkerProcess:
    """The process of one rank, its message channel and its output pipe."""

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
        ours, theirs = socket.socketpair()
        output, output_end = os.pipe()
        try:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    _PROGRAM,
                    json.dumps([*map(str, sys.path)]),
                    str(theirs.fileno()),
                    str(os.getpid() if tied else 0),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output_end,
                stderr=output_end,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env=_environment(rank, world_size, store_port, threads, device),
            )
        except BaseException:
            ours.close()
            os.close(output)
            raise
        finally:
            theirs.close()
            os.close(output_end)
        os.set_blocking(output, False)
        self.output = output
        self.channel = Channel(ours)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def exit_code(self, patience: float = 0.0) -> int | None:
        """Return the exit code, or None if the process still runs after so many seconds."""
        try:
            return self._process.wait(patience)
        except subprocess.TimeoutExpired:
            return None

    def refresh(self) -> None:
        """Between runs: notice that the worker is ready, or that it has ended."""
        while self.state != "ended" and select.select([self.channel], [], [], 0)[0]:
            received = self.channel.receive()
            if received is None:
                self.exit_code(patience=1.0)
                self.kill()
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

    def kill(self) -> None:
        """End the process, and all that it has started, now; it is gone when this returns."""
        self.state = "ended"
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()

    def close(self) -> None:
        """Kill the process and give back what it held here."""
        self.kill()
        self.channel.close()
        if self.output >= 0:
            os.close(self.output)
            self.output = -1


def close_all(processes: list[WorkerProcess]) -> None:
    """Close all processes, and forget them."""
    for process in processes:
        process.close()
    processes.clear()


def _environment(
    rank: int, world_size: int, store_port: int, threads: int, device: str
) -> dict[str, str]:
    """Build a worker's environment: the notebook's, without the traces of another launcher."""
    env = {k: v for k, v in os.environ.items() if not _NOT_INHERITED.fullmatch(k)}
    env |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store_port),
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
        "MPLBACKEND": "Agg",  # the notebook's own backend works only in the notebook
        DEVICE_VARIABLE: device,
    }
    # When a rank is woken, torch logs each connection that it loses, with a page of C++ frames.
    # The error itself is raised in any case; only NCCL logs what cannot be learned otherwise.
    env.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL" if device == "cpu" else "ERROR")
    return env
