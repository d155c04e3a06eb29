"""A worker process, from inside.

Its main thread runs the user's functions, one at a time. A second thread listens to the notebook:
it can interrupt the main thread, wake it from a collective, look where it is, and it ends the
process when the notebook is gone. This module loads torch only when it must, so that the listening
begins in the first moments of the process.
"""

from __future__ import annotations

import atexit
import contextlib
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
from collections.abc import Callable
from multiprocessing.connection import Connection
from queue import SimpleQueue
from types import FrameType
from typing import Any, NoReturn, TextIO

from spnb.parallel.pool import wake
from spnb.parallel.pool.channel import Channel
from spnb.parallel.pool.place import Place

inside = False
"""Whether this process is a worker."""

WAKE_AGAIN = 0.35
"""Seconds until a call that still waits is woken again."""

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
    channel, streams = Channel(notebook), Streams(output)
    code = 1

    def leave() -> None:
        streams.flush()
        os._exit(code)

    def forked() -> None:
        """A process that a function forks is no rank: it neither speaks for one nor ends as one."""
        atexit.unregister(leave)
        channel.close()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    # Registered first, so it runs after all others: to tear down torch's modules takes a second.
    atexit.register(leave)
    os.register_at_fork(after_in_child=forked)
    Worker(channel, streams, place).serve()
    code = 0


class Streams:
    """Where a worker prints: descriptors 1 and 2, below Python, so that compiled code is heard too.

    Args:
        output: The line by which the notebook hears all of it.
    """

    def __init__(self, output: Connection) -> None:
        self._output = os.dup(output.fileno())
        output.close()
        self._files: dict[int, TextIO] = {}
        self.restore()

    def restore(self) -> None:
        """Set all streams anew: a function may have closed, replaced or redirected them."""
        for number in (1, 2):
            os.dup2(self._output, number)
            if number not in self._files or self._files[number].closed:
                self._files[number] = open(  # noqa: SIM115 - it stays open
                    number, "w", buffering=1, errors="backslashreplace", closefd=False
                )
        sys.stdout, sys.stderr = self._files[1], self._files[2]

    def flush(self) -> None:
        """Push out what is printed, from Python and from compiled code."""
        for stream in (sys.stdout, sys.stderr, *self._files.values()):
            with contextlib.suppress(Exception):  # it may be closed, or anything else
                stream.flush()
        ctypes.CDLL(None).fflush(None)


class Worker:
    """The state of a worker process.

    Args:
        channel: The line to the notebook.
        streams: Where it prints.
        place: Who and where it is.
    """

    def __init__(self, channel: Channel, streams: Streams, place: Place) -> None:
        self.channel, self._streams, self._place = channel, streams, place
        self._pid = os.getpid()
        self._calls: SimpleQueue[tuple[int, dict[str, Any], list[int]] | None] = SimpleQueue()
        self._generation = -1
        self._current = -1
        self._cancelled = -1
        self._interruptible = self._joining = False
        # Held while a call is stopped, so that it is not the next one that is.
        self._turn = threading.Lock()
        signal.signal(signal.SIGINT, self._on_interrupt)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # see `interrupts_held`
        threading.Thread(target=self._listen, name="spnb-listen", daemon=True).start()

    def serve(self) -> None:
        """Run the notebook's functions, one after the other, until it says that it is over."""
        from spnb.parallel import progress

        progress.send_to(self._report)
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
        from spnb.parallel.pool import failure, pickling

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
                self._prepare(number, call)
                # It may import modules, see _cut_an_import.
                function, args, kwargs = pickling.loads(payload)
                payload.close()
                self._interruptible = True
                if self._cancelled == number:
                    raise KeyboardInterrupt
                result = self._call(function, args, kwargs)
                answer = _pack_result(result, self._place.rank, known)
                del function, args, kwargs, result
            finally:
                self._interruptible = False
                payload.close()
                self._streams.flush()
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
            # The notebook wakes the others, and this rank leaves them when it joins them anew. Left
            # now, one that is still connecting to all would fail, and another would wait for that
            # one where nothing wakes it.
            self._generation = -1
            traceback.clear_frames(error.__traceback__)  # they hold on to models and data
            error.__traceback__ = error.__context__ = error.__cause__ = None
            gc.collect(1)  # what is young; all would take longer than to start anew
        finally:
            with self._turn:
                self._current = -1

    def _call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the notebook's function; what it does to its process is over with it.

        A process that it forks ends here at the latest.
        """
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            if os.getpid() == self._pid:
                raise
            self._end_forked(error)
        finally:
            # At once: what is opened next would take the place of a descriptor that was closed.
            interruptible, self._interruptible = self._interruptible, False
            self._streams.flush()
            self._streams.restore()
            self._place.restore()
            self._interruptible = interruptible
        if os.getpid() != self._pid:
            self._end_forked(None)
        return result

    def _end_forked(self, error: BaseException | None) -> NoReturn:
        """End this process, which a function has forked, as Python would."""
        code = 0 if error is None else 1
        if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
            code = error.code or 0
        elif error is not None:
            traceback.print_exception(error)
        self._streams.flush()
        os._exit(code & 0xFF)

    def _report(self, *report: Any) -> None:
        """Tell the notebook of progress."""
        if os.getpid() == self._pid:
            self.channel.send("progress", self._current, *report)

    def _prepare(self, number: int, call: dict[str, Any]) -> None:
        """Make this process the place that the notebook's function expects.

        From the end on it cannot be interrupted: others may be waiting for this rank.
        """
        for name, lines in call["sources"].items():  # cells, for tracebacks
            linecache.cache[name] = (sum(map(len, lines)), None, lines, name)
        os.chdir(call["folder"])
        if sys.path != call["path"]:
            sys.path[:] = call["path"]
        if self._generation != call["generation"]:
            import torch

            from spnb.parallel import devices
            from spnb.parallel.pool import rendezvous

            rank, world_size = self._place.rank, self._place.world_size
            device, backend = devices.choose(rank, world_size)
            if device.type == "cuda":
                torch.cuda.set_device(device)
            self._interruptible = False
            if self._cancelled == number:
                raise KeyboardInterrupt
            self._joining = True
            try:
                try:
                    wake.shut_connections(call["ranks"])  # else old groups end what they have begun
                except Exception:  # then they do: no reason to fail
                    traceback.print_exc()
                rendezvous.leave()
                rendezvous.join(
                    call["store_port"],
                    call["generation"],
                    rank,
                    world_size,
                    call["backend"] or backend,
                    device,
                    call["timeout"],
                )
            except BaseException:
                rendezvous.forget_store()  # its connection may have been shut since it was made
                raise
            finally:
                self._joining = False
            self._generation = call["generation"]
        self._interruptible = False

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
            self._wake(number, *rest)
        elif kind == "wake from store":
            self._wake_from_store(number, *rest)
        elif kind == "where":
            frame = sys._current_frames().get(main_thread)
            self.channel.send("where", number, _user_stack(frame))

    def _wake(self, number: int, ranks: list[int]) -> None:
        """Free a call that waits in a collective, again and again until it is over.

        It may only be on its way there.
        """
        self._again(self._wake, number, ranks)
        with self._turn:
            if self._current == number and not wake.makes_group():
                wake.shut_connections(ranks)

    def _wake_from_store(self, number: int, all_join: bool) -> None:
        """Free a call that waits in the pool's store, likewise.

        Not where all ranks are about to join: they wait for nobody else, and one that left now
        would be waited for.
        """
        self._again(self._wake_from_store, number, all_join)
        with self._turn:
            if self._current == number and not (all_join and self._joining):
                # It is loaded: the main thread has connected by it.
                sys.modules["spnb.parallel.pool.rendezvous"].forget_store()
                wake.shut_connections([os.getppid()])

    def _again(self, step: Callable[..., None], number: int, *args: Any) -> None:
        """Take a step again in a while, unless the call is over."""
        if self._current == number:
            later = threading.Timer(WAKE_AGAIN, step, (number, *args))
            later.daemon = True
            later.start()

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
