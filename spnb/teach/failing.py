"""Failures on purpose: what happens when one rank of a real run fails, measured.

All ranks add up numbers again and again, as in training. After a while one of them fails in a way
that can be chosen, and the notebook's clock runs until it has noticed. Then the same pool runs
another function. The ranks of one host share their clock.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from spnb.parallel.pool import WorkerDied, WorkerPool

WORK = 0.5
"""Seconds of work before the failure."""


def _raise() -> None:
    raise ValueError("row 17 of the data is empty")


def _be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _leave() -> None:
    os._exit(3)


def _wait() -> None:
    """Nothing fails here: it is the stop button that ends the run."""


FAILURES: dict[str, tuple[str, Callable[[], None]]] = {
    "raises": ("raises an exception", _raise),
    "is killed": ("is killed by the system, as when memory runs out", _be_killed),
    "exits": ("ends by itself, as a library that crashes", _leave),
    "you press ■": ("works on, until you press the stop button", _wait),
}
"""By short name: what happens to the rank, in words, and how it is done."""


@dataclass(frozen=True)
class Outcome:
    """What became of a run in which a rank failed.

    Attributes:
        failed_at: seconds from the start of the run to the failure.
        noticed_at: seconds to the error in the notebook.
        mended_at: seconds to the answer of the next run.
        error: the error's name.
        message: its first line.
        renewed: ranks that have a new process in the next run.
    """

    failed_at: float
    noticed_at: float
    mended_at: float
    error: str
    message: str
    renewed: tuple[int, ...]


def provoke(pool: WorkerPool, failure: str, rank: int) -> Outcome:
    """Let a rank fail while all ranks work together, and run something else afterwards.

    Args:
        pool: the pool; it is whole again afterwards.
        failure: one of `FAILURES`.
        rank: the rank that fails.

    Raises:
        RuntimeError: the run ended without any failure.
    """
    before = pool.run(os.getpid)
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "failed_at"
        start = time.monotonic()
        button = None
        if failure == "you press ■":
            button = threading.Timer(WORK, _press, (pool, note))
            button.start()
        try:
            pool.run(_work_and_fail, FAILURES[failure][1], rank, str(note))
            raise RuntimeError("The run ended, and nothing failed.")
        except (ValueError, WorkerDied, KeyboardInterrupt) as error:
            noticed, found = time.monotonic(), error
        finally:
            if button is not None:
                button.join()
        failed = float(note.read_text())
    after = pool.run(os.getpid)
    return Outcome(
        failed - start,
        noticed - start,
        time.monotonic() - start,
        type(found).__name__,
        str(found).splitlines()[0],
        tuple(r for r, (old, new) in enumerate(zip(before, after, strict=True)) if old != new),
    )


def _press(pool: WorkerPool, note: Path) -> None:
    note.write_text(str(time.monotonic()))
    pool.interrupt()


def _work_and_fail(fail: Callable[[], None], rank: int, note: str) -> None:
    """What every rank does: sums without end, and in one of them the failure."""
    start = time.monotonic()
    while True:
        total = torch.ones(100)
        dist.all_reduce(total)
        time.sleep(0.01)
        if fail is not _wait and dist.get_rank() == rank and time.monotonic() - start > WORK:
            Path(note).write_text(str(time.monotonic()))
            fail()
