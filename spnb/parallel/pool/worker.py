"""A worker process, from inside.

Its main thread runs the user's functions, one at a time. A second thread listens to the notebook:
it can interrupt the main thread, wake it from a collective, look where it is, and it ends the
process when the notebook is gone. This module loads torch only when it must, so that the listening
begins in the first moments of the process.
"""

from __future__ import annotations

import ctypes
import gc
import linecache
import os
import signal
import socket
import sys
import threading
import time
import traceback
from queue import SimpleQueue
from types import FrameType
from typing import Any

from spnb.parallel.pool import wake
from spnb.parallel.pool.channel import Channel

inside = False
"""Whether this process is a worker."""

_PR_SET_PDEATHSIG = 1


def main(descriptor: int, notebook: int) -> None:
    """Serve the notebook until it hangs up.

    Args:
        descriptor: The open socket to the notebook.
        notebook: The notebook's process id if the worker shall be killed with it, else 0.
    """
    global inside
    inside = True
    if notebook and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != notebook:  # it ended before that
            return
    os.set_inheritable(descriptor, False)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    Worker(Channel(socket.socket(fileno=descriptor))).serve()


class Worker:
    """The state of a worker process.

    Attributes:
        channel: The line to the notebook.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._calls: SimpleQueue[tuple[int, dict[str, Any], list[int]]] = SimpleQueue()
        self._generation = -1
        self._current = -1
        self._cancelled = -1
        self._interruptible = False
        # Held while a call is stopped, so that it is not the next one that is.
        self._turn = threading.Lock()
        signal.signal(signal.SIGINT, self._on_interrupt)
        threading.Thread(target=self._listen, name="spnb-listen", daemon=True).start()

    def serve(self) -> None:
        """Run the notebook's functions, one after the other, for ever."""
        from spnb.parallel import progress

        progress.send_to(lambda *report: self.channel.send("progress", self._current, *report))
        import torch  # the long part of the start

        self.channel.send("ready", torch.get_num_threads())
        while True:
            number, call, descriptors = self._calls.get()
            self._serve_one(number, call, descriptors)
            del call

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
                function, args, kwargs = pickling.loads(payload)
                payload.close()
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
            self.channel.send("failed", number, when, report, descriptors=files)
            if report.exception:
                report.exception.close()
            # The others may be waiting for this rank. They learn of it now, not in ten minutes.
            wake.shut_connections(call["ranks"])
            rendezvous.leave()
            self._generation = -1
            traceback.clear_frames(error.__traceback__)  # they hold on to models and data
            error.__traceback__ = error.__context__ = error.__cause__ = None
            gc.collect(1)  # what is young; all would take longer than to start anew

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
        main_thread = threading.main_thread().ident or 0
        while received := self.channel.receive():
            (kind, number, *rest), descriptors = received
            if kind == "run":
                self._calls.put((number, rest[0], descriptors))
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
                with self._turn:
                    if self._current == number:
                        # It is loaded: the main thread has connected by it.
                        sys.modules["spnb.parallel.pool.rendezvous"].forget_store()
                        wake.shut_connections([os.getppid()])
            elif kind == "where":
                frame = sys._current_frames().get(main_thread)
                self.channel.send("where", number, _user_stack(frame))
        # The notebook is gone. Children of this process are in its session: take them along.
        os.killpg(0, signal.SIGKILL)

    def _on_interrupt(self, signum: int, frame: FrameType | None) -> None:
        """Interrupt the call that is cancelled, once; an idle worker is not interrupted at all."""
        if self._interruptible and self._cancelled == self._current:
            self._interruptible = False
            raise KeyboardInterrupt


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
