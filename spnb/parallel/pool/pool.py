"""The worker pool: what a notebook uses to compute on several processes.

    with spnb.WorkerPool(2) as pool:
        results = pool.run(function, data, steps=100)

`function` runs on every rank at once, with torch.distributed ready, and may be defined in a cell.
The processes live on between runs, so a second run starts within milliseconds; they survive an
interrupt and an exception; and they never outlive the notebook.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, Literal

import torch.distributed as dist

from spnb.parallel import devices
from spnb.parallel.pool import view, worker
from spnb.parallel.pool.call import Call, interrupts_to
from spnb.parallel.pool.culprit import explain_call
from spnb.parallel.pool.failure import WorkerDied, cell_sources
from spnb.parallel.pool.options import check_limits, check_restarts, check_size, choose_device
from spnb.parallel.pool.output import RankOutput
from spnb.parallel.pool.pickling import dumps, loads_all
from spnb.parallel.pool.process import RankStatus, WorkerProcess, close_all
from spnb.parallel.pool.rendezvous import host_store
from spnb.parallel.pool.silence import Silence
from spnb.parallel.pool.watch import Watchers


class WorkerPool:
    """Live worker processes behind a notebook, one a rank.

    Args:
        num_workers: How many. Default: one for each GPU, else one for each usable core.
        timeout: Seconds after which a collective that waits for a rank gives up.
        output: Whose prints appear in the cell, ``"rank0"`` or ``"all"``. The other ranks' last
            lines are shown when they fail, and `output` returns them at any time.
        device: ``"cpu"`` or ``"cuda"`` instead of the automatic choice.
        backend: A torch.distributed backend instead of the device's own.
        threads: Threads of each rank. Default: its share of the usable cores.
        idle_timeout: Seconds without a run after which the processes are let go, and with them
            the memory they hold on a GPU; the next run starts them again. Default: never.
        silence: Seconds without a sign of life after which the cell says where a rank is.
        patience: Seconds without a sign of life of any rank after which those that hang are killed,
            and the run fails with `WorkerDied`. Default: it waits until it is interrupted.
        restarts: How many times a run whose worker died is begun again by itself: for functions
            that go on where they were, as `fit` does with ``checkpoints`` and ``resume=True``.
    """

    def __init__(
        self,
        num_workers: int | None = None,
        *,
        timeout: float = 600.0,
        output: Literal["rank0", "all"] = "rank0",
        device: Literal["cpu", "cuda"] | None = None,
        backend: str | None = None,
        threads: int | None = None,
        idle_timeout: float | None = None,
        silence: float | None = 60.0,
        patience: float | None = None,
        restarts: int = 0,
    ) -> None:
        self._processes: list[WorkerProcess] = []
        self._closed = True
        if worker.inside:
            raise RuntimeError(
                "A worker cannot have workers of its own: make the pool in the notebook, and call "
                "pool.run there."
            )
        if not hasattr(os, "killpg"):
            raise RuntimeError("WorkerPool needs Linux or macOS; on Windows use WSL 2.")
        if output not in ("rank0", "all"):
            raise ValueError(f"output must be 'rank0' or 'all', not {output!r}.")
        self._size = check_size(num_workers, device)
        self._timeout = timeout
        self._output = output
        self._backend = backend
        self._threads = threads or devices.threads_per_rank(self._size)
        self._idle_timeout = idle_timeout
        self._silence, self.patience = check_limits(silence, patience)
        self._restarts = check_restarts(restarts)
        self._device = choose_device(self._size, device)
        self._store: dist.TCPStore | None = None
        self._port = 0
        self._generation = 0
        self._number = 0
        self._call: Call | None = None
        self._outputs: list[RankOutput] = []
        self._watchers = Watchers()
        self._busy = threading.Lock()
        self._timer: threading.Timer | None = None
        # Also at the end of the program; it must not hold on to the pool itself.
        self._finalizer = weakref.finalize(self, close_all, self._processes)
        self._closed = False
        self._start()

    @property
    def size(self) -> int:
        """The number of ranks."""
        return self._size

    @property
    def closed(self) -> bool:
        """Whether the pool was closed; `restart` opens it again."""
        return self._closed

    def run(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> list[Any]:
        """Call a function on every rank, and wait.

        Arguments are copies on each rank, modules and tensors too, except for tensors that went
        through `share`. In the function torch.distributed is initialised, and RANK, WORLD_SIZE
        and so on are set. Process groups that it makes live until a run fails.

        Returns:
            Its result on each rank, in the order of the ranks. What is large and equal on all
            ranks takes memory once. Tensors on a GPU arrive on the CPU.

        Raises:
            WorkerDied: A worker process was killed, hung, or ended by itself.
            KeyboardInterrupt: The stop button was pressed; all ranks have stopped.
            Exception: What the function raised, on the rank that failed first.
        """
        __tracebackhide__ = True
        self._check_open()
        if not callable(function):
            raise TypeError(f"pool.run takes a function and its arguments; {function!r} is none.")
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("This pool is running a function: wait for it, or make another.")
        try:
            if self._timer:
                self._timer.cancel()
            results, error = self._run(function, args, kwargs)
            for number in range(1, self._restarts + 1):
                if not isinstance(error, WorkerDied):
                    break
                print(f"{error} Attempt {number} of {self._restarts}.", file=sys.stderr)
                results, error = self._run(function, args, kwargs)
        finally:
            self._call = None
            self._busy.release()
            self._watchers.call()
            self._let_go_when_idle()
        if error is not None:
            raise error
        return results

    def interrupt(self) -> None:
        """Stop the run that another thread has started; it raises KeyboardInterrupt there."""
        if call := self._call:
            call.interrupt()

    def output(self, rank: int) -> str:
        """Return what a rank printed in the last run (of very much, the end)."""
        if not 0 <= rank < self._size:
            raise IndexError(f"there is no rank {rank} in a pool of {self._size}.")
        return self._outputs[rank].text() if self._outputs else ""

    def status(self) -> list[RankStatus]:
        """Look at each rank: device, process, memory, state."""
        ranks = []
        for rank in range(self._size):
            process = self._processes[rank] if rank < len(self._processes) else None
            if process and not self._busy.locked():
                process.refresh()
            report = self._watchers.reports.get(rank)
            ranks.append(RankStatus.of(rank, process, self._device, self._threads, report))
        return ranks

    def watch(self, look: Callable[[], Any]) -> None:
        """Have a method called while a function runs, and at its end; it may call `status`."""
        self._watchers.add(look)

    def restart(self) -> None:
        """Start all workers anew, for example after a module on disk has changed."""
        self.close()
        self._closed = False
        self._start()

    def close(self) -> None:
        """End all workers; a run in another thread fails. Closing twice does no harm."""
        self._closed = True
        if self._busy.locked():
            for process in self._processes:
                process.kill()
        with self._busy:  # the other thread has to see that they have ended
            self._stop()
            self._store = None

    def __enter__(self) -> WorkerPool:
        self._check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{self._title()}: {', '.join(rank.state for rank in self.status())}>"

    def _repr_html_(self) -> str:
        return view.table(self._title(), self.status())

    def _title(self) -> str:
        return f"WorkerPool({self._size}){' (closed)' if self._closed else ''}"

    def _check_open(self) -> None:
        __tracebackhide__ = True
        if self._closed:
            raise RuntimeError(
                "This pool is closed: make a new one with WorkerPool(), or pool.restart() it."
            )

    def _run(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[list[Any], BaseException | None]:
        try:
            payload = dumps((function, args, kwargs))
        except Exception as error:
            return [], TypeError(explain_call(function, args, kwargs, error))
        self._number += 1
        with contextlib.closing(payload):
            self._start()
            all_shown = self._output == "all"
            self._outputs = [
                RankOutput(rank, all_shown or rank == 0, all_shown) for rank in range(self._size)
            ]
            seen = self._watchers.see
            silence = Silence(self._number, self._processes, self._silence, self.patience)
            call = Call(self._number, self._processes, self._outputs, silence, seen)
            self._call = call
            with contextlib.closing(call):
                with interrupts_to(call):
                    call.start(self._message(), payload)
                    call.wait()
                if not call.intact:
                    self._generation += 1
                failure = call.error()
                if failure is None:
                    return loads_all([call.results[rank] for rank in sorted(call.results)]), None
                if self._device == "cuda":
                    # NCCL's own watchdog may end a process whose peer has failed.
                    self._stop()
                if self._closed:
                    failure = RuntimeError("The pool was closed while it ran a function.")
                return [], failure

    def _message(self) -> dict[str, Any]:
        return {
            "store_port": self._port,
            "generation": self._generation,
            "backend": self._backend,
            "timeout": self._timeout,
            "folder": os.getcwd(),
            "path": [*map(str, sys.path)],
            "sources": cell_sources(),
        }

    def _start(self) -> None:
        """Start the workers that are missing."""
        if self._store is None:
            self._store, self._port = host_store()
        for rank in range(self._size):
            if rank < len(self._processes):
                self._processes[rank].refresh()
                if self._processes[rank].state != "ended":
                    continue
                self._processes[rank].close()
            self._generation += 1
            process = WorkerProcess(rank, self._size, self._port, self._threads, self._device)
            self._processes[rank : rank + 1] = [process]

    def _stop(self) -> None:
        if self._timer:
            self._timer.cancel()
        close_all(self._processes)

    def _let_go_when_idle(self) -> None:
        if self._idle_timeout is not None and not self._closed:
            self._timer = threading.Timer(self._idle_timeout, _let_go, [weakref.ref(self)])
            self._timer.daemon = True
            self._timer.start()


def _let_go(pool: weakref.ref[WorkerPool]) -> None:
    """End the workers of a pool that has been idle for long."""
    if (alive := pool()) and alive._busy.acquire(blocking=False):
        try:
            alive._stop()
        finally:
            alive._busy.release()
