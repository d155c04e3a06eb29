"""The worker pool: what a notebook uses to compute on several processes.

    with spnb.WorkerPool(2) as pool:
        results = pool.run(function, data, steps=100)

`function` runs on every rank at once, with torch.distributed ready, and may be defined in a cell.
The processes live on between runs, so a second run starts within milliseconds; they survive an
interrupt and an exception; and they never outlive the notebook. They belong to the process that
made the pool: in one that is forked from it, as a worker of a `DataLoader` is, the pool is empty.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import sys
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch.distributed as dist

from spnb.parallel.pool import view, worker
from spnb.parallel.pool.call import Call, interrupts_to
from spnb.parallel.pool.culprit import explain_call
from spnb.parallel.pool.failure import WorkerDied, cell_sources
from spnb.parallel.pool.options import (
    check_backend,
    check_limit,
    check_seconds,
    check_size,
    check_threads,
    check_whole,
    choose_device,
)
from spnb.parallel.pool.output import RankOutput
from spnb.parallel.pool.pickling import dumps, loads_all
from spnb.parallel.pool.process import RankStatus, WorkerProcess, close_all, interrupts_held
from spnb.parallel.pool.rendezvous import all_join, host_store
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

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: A number makes no sense, or there is no such device or backend here.
        RuntimeError: This process may not have workers.
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
        if multiprocessing.current_process().daemon:
            raise RuntimeError(
                "A daemon of multiprocessing, such as a worker of a DataLoader, cannot have "
                "workers: make the pool in the process that started it."
            )
        if not hasattr(os, "killpg"):
            raise RuntimeError("WorkerPool needs Linux or macOS; on Windows use WSL 2.")
        if output not in ("rank0", "all"):
            raise ValueError(f"output must be 'rank0' or 'all', not {output!r}.")
        self._size = check_size(num_workers, device)
        self._timeout = check_seconds("timeout", timeout)
        self._output = output
        self._threads = check_threads(threads, self._size)
        self._idle_timeout = check_limit("idle_timeout", idle_timeout)
        self._silence = check_limit("silence", silence)
        self.patience = check_limit("patience", patience)
        self._restarts = check_whole("restarts", restarts, 0)
        self._device = choose_device(self._size, device)
        self._backend = check_backend(backend, self._device)
        self._owner = os.getpid()
        self._store: dist.TCPStore | None = None
        self._port = 0
        self._generation = 0
        self._number = 0
        self._call: Call | None = None
        self._interrupted = False
        self._outputs: list[RankOutput] = []
        self._watchers = Watchers()
        self._timer: threading.Timer | None = None
        self._runner: int | None = None
        self._make_locks()
        # Also at the end of the program; it must not hold on to the pool itself.
        self._finalizer = weakref.finalize(self, close_all, self._processes)
        _pools.add(self)
        self._open()

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
        if not self._running.acquire(blocking=False):
            raise RuntimeError("This pool is running a function: wait for it, or make another.")
        try:
            self._runner, self._interrupted = threading.get_ident(), False
            with self._using:  # waits while idle workers are let go
                try:
                    self._check_open()
                    results, error = self._run_again(function, args, kwargs)
                finally:
                    self._call = None
                    self._let_go_when_idle()
        finally:
            self._runner = None
            self._running.release()
            self._watchers.call()
        if error is not None:
            raise error
        return results

    def interrupt(self) -> None:
        """Stop the run that another thread has started; it raises KeyboardInterrupt there."""
        self._check_owner()
        self._interrupted = True
        if call := self._call:
            call.interrupt()

    def output(self, rank: int) -> str:
        """Return what a rank printed in the last run (of very much, the end)."""
        if not 0 <= check_whole("rank", rank) < self._size:
            raise IndexError(f"there is no rank {rank} in a pool of {self._size}.")
        return self._outputs[rank].text() if self._outputs else ""

    def status(self) -> list[RankStatus]:
        """Look at each rank: device, process, memory, state."""
        processes = dict(enumerate(list(self._processes)))
        if self._using.acquire(blocking=False):  # else a run hears of it
            try:
                for process in processes.values():
                    process.refresh()
            finally:
                self._using.release()
        reports = self._watchers.reports
        return [
            RankStatus.of(r, processes.get(r), self._device, self._threads, reports.get(r))
            for r in range(self._size)
        ]

    def watch(self, look: Callable[[], Any]) -> None:
        """Have a method called while a function runs, and at its end; it may call `status`.

        Raises:
            TypeError: It is not the method of an object, at whose end the calls end.
        """
        self._watchers.add(look)

    def restart(self) -> None:
        """Start all workers anew, for example after a module on disk has changed."""
        self._check_owner()
        if self._in_own_run():
            raise RuntimeError("A pool cannot be restarted within its own run: wait for its end.")
        self.close()
        with self._using:
            self._open()

    def close(self) -> None:
        """End all workers; a run in another thread fails. Closing twice does no harm.

        Within a run, as in a signal handler, the run is ended, and its end closes the pool.
        """
        self._closed = True
        if call := self._call:
            call.abandon()
        if not self._in_own_run():
            with self._using:
                self._stop()

    def __enter__(self) -> WorkerPool:
        self._check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{self._title()}: {', '.join(rank.state for rank in self.status())}>"

    def _repr_html_(self) -> str:
        return view.table(self._title(), self.status())

    def __reduce__(self) -> Any:
        raise TypeError("a pool cannot be copied or sent: it stays where it was made")

    def _title(self) -> str:
        if os.getpid() != self._owner:
            return f"WorkerPool({self._size}) (of process {self._owner})"
        return f"WorkerPool({self._size}){' (closed)' if self._closed else ''}"

    def _make_locks(self) -> None:
        self._running = threading.Lock()
        """Held by the one run that there may be."""
        self._using = threading.Lock()
        """Held by whoever uses the workers, starts them or ends them: a run, and between runs."""

    def _in_own_run(self) -> bool:
        """Whether a run calls this: by a watcher, or where a signal has interrupted it."""
        return self._runner == threading.get_ident()

    def _check_owner(self) -> None:
        __tracebackhide__ = True
        if os.getpid() != self._owner:
            raise RuntimeError(
                f"This pool belongs to process {self._owner}, from which this process, "
                f"{os.getpid()}, was forked: use it there, or make a pool of this process's own."
            )

    def _check_open(self) -> None:
        __tracebackhide__ = True
        self._check_owner()
        if self._closed:
            raise RuntimeError(
                "This pool is closed: make a new one with WorkerPool(), or pool.restart() it."
            )

    def _run_again(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[list[Any], BaseException | None]:
        """Run a function, and begin again as often as a worker may die."""
        results, error = self._run(function, args, kwargs)
        for number in range(1, self._restarts + 1):
            if not isinstance(error, WorkerDied):
                break
            print(f"{error} Attempt {number} of {self._restarts}.", file=sys.stderr)
            results, error = self._run(function, args, kwargs)
        return results, error

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
            assert self._store is not None
            all_shown = self._output == "all"
            self._outputs = [
                RankOutput(rank, all_shown or rank == 0, all_shown) for rank in range(self._size)
            ]
            silence = Silence(self._number, self._processes, self._silence, self.patience)
            call = self._call = Call(
                self._number,
                self._processes,
                self._outputs,
                silence,
                self._watchers.see,
                partial(all_join, self._store, self._generation, self._size),
            )
            if self._interrupted:  # before there was something to interrupt
                call.interrupt()
            if self._closed:
                call.abandon()
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

    def _open(self) -> None:
        """Start all workers, or none."""
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        self._closed = False
        self._let_go_when_idle()

    def _start(self) -> None:
        """Start the workers that are missing."""
        if self._timer:
            self._timer.cancel()
        if self._store is None:
            self._store, self._port = host_store()
        with interrupts_held():
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
        self._store = None

    def _let_go_when_idle(self) -> None:
        if self._closed:
            self._stop()
        elif self._idle_timeout is not None:
            self._timer = threading.Timer(self._idle_timeout, _let_go, [weakref.ref(self)])
            self._timer.daemon = True
            self._timer.start()

    def _disown(self) -> None:
        """Forget the workers, in a process that was forked from the one that they belong to."""
        self._finalizer.detach()
        for process in self._processes:
            process.disown()
        self._processes.clear()
        self._timer = self._call = self._runner = None
        self._closed = True
        self._make_locks()  # another thread of the parent may have held them
        # A store at its end joins a thread that has not been forked: this one never ends.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._store))


_pools: weakref.WeakSet[WorkerPool] = weakref.WeakSet()


def _disown_all() -> None:
    for pool in _pools:
        pool._disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)


def _let_go(pool: weakref.ref[WorkerPool]) -> None:
    """End the workers of a pool that has been idle for long, in its timer's thread."""
    if alive := pool():
        with alive._using:
            if alive._timer is threading.current_thread():  # no run has come in between
                alive._stop()
