"""What went wrong on a rank, told so that the reader can act on it.

An exception of a worker is raised again in the notebook with its own type, where it survives the
trip, and with the worker's traceback as a note. A worker that ended without a word gets its own
error, `WorkerDied`.
"""

from __future__ import annotations

import contextlib
import linecache
import os
import signal
import traceback
from dataclasses import dataclass
from types import TracebackType

from spnb.parallel.pool.channel import Payload
from spnb.parallel.pool.pickling import dumps, loads


class WorkerError(RuntimeError):
    """A rank failed with an exception that cannot be raised here as it is."""


class WorkerDied(RuntimeError):
    """A worker process ended, or was killed, while it was needed."""


@dataclass
class Failure:
    """A rank's exception, on its way to the notebook.

    Attributes:
        title: Type and message, one line where possible.
        trace: The formatted traceback, from the user's function on.
        exception: The pickled exception, or None if it does not survive pickling.
    """

    title: str
    trace: str
    exception: Payload | None


def describe(error: BaseException, known_classes: frozenset[str]) -> Failure:
    """Pack a worker's exception, whatever it is."""
    title = "".join(traceback.format_exception_only(error)).strip()
    trace = "".join(traceback.format_exception(type(error), error, user_part(error.__traceback__)))
    if isinstance(error, SystemExit):
        title = f"sys.exit({error.code!r}) was called: return from the function instead"
        return Failure(title, trace, None)
    try:
        # A trial run: many exceptions can be pickled, but not be made again from the pickle.
        payload = dumps(error, known_classes)
        try:
            again = type(loads(payload)) is type(error)
        except BaseException:
            payload.close()
            raise
        if again:
            return Failure(title, trace, payload)
        payload.close()
    except Exception:
        pass  # then the notebook gets its title and traceback only
    return Failure(title, trace, None)


def cell_sources() -> dict[str, list[str]]:
    """Collect the source of the notebook's cells, which are not files that a worker could read."""
    return {
        name: entry[2]
        for name, entry in linecache.cache.items()
        if len(entry) == 4 and entry[1] is None and not os.path.exists(name)
    }


def user_part(trace: TracebackType | None) -> TracebackType | None:
    """Leave out the frames of this package's worker at the top of a traceback."""
    rest = trace
    while rest and rest.tb_frame.f_globals.get("__name__", "").startswith(__package__ or "?"):
        rest = rest.tb_next
    return rest or trace


def rebuild(failure: Failure, rank: int) -> BaseException:
    """Make the exception that the notebook raises for a rank's failure."""
    error: BaseException = WorkerError(f"rank {rank}: {failure.title}")
    if failure.exception:
        # Its class may have changed here since it was sent.
        with contextlib.suppress(Exception):
            error = loads(failure.exception)
    error.add_note(f"\nThis happened on rank {rank}:\n\n{failure.trace.rstrip()}")
    return error


def obituary(rank: int, exit_code: int, started: bool) -> str:
    """Say how a worker ended, from its process's exit code."""
    if exit_code >= 0:
        if not started:
            return f"rank {rank} could not start: its process ended with exit code {exit_code}."
        return f"rank {rank} ended its process (exit code {exit_code}): did it call os._exit()?"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    guess = {"SIGKILL": ": out of memory?", "SIGSEGV": ": a crash in compiled code."}
    return f"rank {rank} was killed ({name}){guess.get(name, '.')}"
