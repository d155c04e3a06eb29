"""A worker process, from inside.

Its main thread runs the user's functions, one at a time. A second thread listens to the notebook:
it can interrupt the main thread, wake it from a collective, look where it is, and it ends the
process when the notebook is gone. This module loads torch only when it must, so that the listening
begins in the first moments of the process.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import linecache
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from queue import SimpleQueue
from types import FrameType
from typing import Any

from spnb.parallel.pool import wake
from spnb.parallel.pool.channel import Channel
from spnb.parallel.pool.place import Place

inside = False
"""Whether this process is a worker."""

STORE_AGAIN = 0.35
"""Seconds until a call that still waits in the store is woken again."""

_PR_SET_PDEATHSIG = 1


def main(notebook: socket.socket, output: Connection, place: Place) -> None:
    """Serve the notebook until it hangs up.

    Args:
        notebook: The line to the notebook.
        output: Where all prints go.
        place: Who and where this worker is.
    """
    global inside
    inside = True
    os.setsid()  # out of the notebook's process group, and so out of reach of its interrupt
    if place.notebook and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != place.notebook:  # it ended before that
            return
    # A daemon may not have children; a user's function may, for example to load data.
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    place.take()
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    # Below Python, so that compiled code is heard too; and new streams, by whole lines.
    for descriptor in (1, 2):
        os.dup2(output.fileno(), descriptor)
    output.close()
    sys.stdout, sys.stderr = (
        open(d, "w", buffering=1, errors="backslashreplace", closefd=False) for d in (1, 2)
    )
    code = 1

    def leave() -> None:
        _flush()
        os._exit(code)

    # Registered first, so it runs after all others: to tear down torch's modules takes a second.
    atexit.register(leave)
    os.register_at_fork(after_in_child=lambda: atexit.unregister(leave))  # it has a code of its own
    Worker(Channel(notebook)).serve()
    code = 0


class Worker:
    """The state of a worker process.

    Attributes:
        channel: The line to the notebook.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._calls: SimpleQueue[tuple[int, dict[str, Any], list[int]] | None] = SimpleQueue()
        self._generation = -1
        self._current = -1
        self._cancelled = -1
        self._interruptible = False
        # Held while a call is stopped, so that it is not the next one that is.
        self._turn = threading.Lock()
        signal.signal(signal.SIGINT, self._on_interrupt)
        threading.Thread(target=self._listen, name="spnb-listen", daemon=True).start()

    def serve(self) -> None:
        """Run the notebook's functions, one after the other, until it says that it is over."""
        from spnb.parallel import progress

        progress.send_to(lambda *report: self.channel.send("progress", self._current, *report))
        import torch  # the long part of the start

        from spnb.parallel import devices

        devices.keep_freed_memory()
        self.channel.send("ready", torch.get_num_threads())
        while received := self._calls.get():
            self._serve_one(*received)
            del received
        from spnb.parallel.pool import rendezvous

        rendezvous.leave()

    def _serve_one(self, number: int, call: dict[str, Any], descriptors: list[int]) -> None:
        from spnb.parallel.pool import failure, pickling, rendezvous

        payload = call["payload"]
        payload.descriptors = descriptors
        known = frozenset(payload.class_ids)
        signal.signal(signal.SIGINT, self._on_interrupt)  # the last function may have taken it
        with self._turn:
            self._current = number
        try:
            try:
                self._interruptible = True
                if self._cancelled == number:
                    raise KeyboardInterrupt
                self._prepare(call)
                self._interruptible = False  # it may import modules, see _cut_an_import
                function, args, kwargs = pickling.loads(payload)
                payload.close()
                self._interruptible = True
                if self._cancelled == number:
                    raise KeyboardInterrupt
                result = function(*args, **kwargs)
                answer = _pack_result(result, int(os.environ["RANK"]), known)
                del function, args, kwargs, result
            finally:
                self._interruptible = False
                payload.close()
                _flush()
            import torch.distributed as dist

            self.channel.send(
                "done", number, answer, dist.is_initialized(), descriptors=answer.descriptors
            )
            answer.close()
        except BaseException as error:
            when = time.monotonic()
            report = failure.describe(error, known)
            files = report.exception.descriptors if report.exception else []
            sound = not _cut_an_import(error)
            self.channel.send("failed", number, when, report, sound, descriptors=files)
            if report.exception:
                report.exception.close()
            # The others may be waiting for this rank. They learn of it now, not in ten minutes.
            try:
                wake.shut_connections(call["ranks"])
            except Exception:  # then they wait until the notebook wakes them: no reason to die
                traceback.print_exc()
            rendezvous.leave()
            self._generation = -1
            traceback.clear_frames(error.__traceback__)  # they hold on to models and data
            error.__traceback__ = error.__context__ = error.__cause__ = None
            gc.collect(1)  # what is young; all would take longer than to start anew
        finally:
            with self._turn:
                self._current = -1

    def _prepare(self, call: dict[str, Any]) -> None:
        """Make this process the place that the notebook's function expects."""
        for name, lines in call["sources"].items():  # cells, for tracebacks
            linecache.cache[name] = (sum(map(len, lines)), None, lines, name)
        if os.getcwd() != call["folder"]:
            os.chdir(call["folder"])
        if sys.path != call["path"]:
            sys.path[:] = call["path"]
        if self._generation != call["generation"]:
            import torch

            from spnb.parallel import devices
            from spnb.parallel.pool import rendezvous

            rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
            device, backend = devices.choose(rank, world_size)
            if device.type == "cuda":
                torch.cuda.set_device(device)
            rendezvous.join(
                call["store_port"],
                call["generation"],
                rank,
                world_size,
                call["backend"] or backend,
                device,
                call["timeout"],
            )
            self._generation = call["generation"]

    def _listen(self) -> None:
        """Obey the notebook, in a thread of its own."""
        while received := self.channel.receive():
            try:
                self._obey(*received)
            except Exception:  # whatever it is: a worker that hears nothing cannot be interrupted
                traceback.print_exc()
        # The notebook is gone. Children of this process are in its session: take them along.
        os.killpg(0, signal.SIGKILL)

    def _obey(self, message: tuple[Any, ...], descriptors: list[int]) -> None:
        """Do what one message says."""
        main_thread = threading.main_thread().ident or 0
        kind, number, *rest = message
        if kind == "run":
            self._calls.put((number, rest[0], descriptors))
        elif kind == "end":
            self._calls.put(None)
        elif kind == "interrupt":
            self._cancelled = number
            with self._turn:
                if self._current == number:
                    signal.pthread_kill(main_thread, signal.SIGINT)
        elif kind == "wake":
            with self._turn:
                if self._current == number:
                    wake.shut_connections(*rest)
        elif kind == "wake from store":
            self._wake_from_store(number)
        elif kind == "where":
            frame = sys._current_frames().get(main_thread)
            self.channel.send("where", number, _user_stack(frame))

    def _wake_from_store(self, number: int) -> None:
        """Free a call that waits in the pool's store, again and again until it is over.

        It may only be on its way there: to connect takes as long as the machine is slow.
        """
        if self._current == number:
            later = threading.Timer(STORE_AGAIN, self._wake_from_store, (number,))
            later.daemon = True
            later.start()
        with self._turn:
            if self._current == number:
                # It is loaded: the main thread has connected by it.
                sys.modules["spnb.parallel.pool.rendezvous"].forget_store()
                wake.shut_connections([os.getppid()])

    def _on_interrupt(self, signum: int, frame: FrameType | None) -> None:
        """Interrupt the call that is cancelled, once; an idle worker is not interrupted at all."""
        if self._interruptible and self._cancelled == self._current:
            self._interruptible = False
            raise KeyboardInterrupt


def _cut_an_import(error: BaseException) -> bool:
    """Whether an interrupt fell into an import.

    Python forgets the module that it was loading, but not those that it had loaded within; the
    next import of it fails in strange ways. Such a process had better be replaced.
    """
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    return isinstance(error, KeyboardInterrupt) and any(
        code.co_name == "<module>" or code.co_filename.startswith("<frozen importlib")
        for code in codes
    )


def _pack_result(result: Any, rank: int, known: frozenset[str]) -> Any:
    from spnb.parallel.pool import culprit, pickling

    try:
        return pickling.dumps(result, known)
    except Exception as error:
        what = culprit.explain(f"the result of rank {rank}", result, "result", error)
        raise TypeError(f"{what} Return what it is made of instead.") from None


def _user_stack(frame: FrameType | None) -> str:
    """Format a stack, without the frames of the worker itself at the top."""
    summary = traceback.extract_stack(frame)
    own = [entry.filename == __file__ for entry in summary]
    first = len(own) - own[::-1].index(True) if True in own else 0
    return "".join(traceback.StackSummary.from_list(summary[first:]).format())


def _flush() -> None:
    """Push out what is printed, from Python and from compiled code."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    ctypes.CDLL(None).fflush(None)
