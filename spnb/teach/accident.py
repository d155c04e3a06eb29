"""Accidents on purpose: what becomes of a real training run when one rank meets with one, measured.

A run that writes checkpoints is trained on live workers. At a step that can be chosen, something
happens to one rank. What the pool can mend it mends by itself, and goes on from the last
checkpoint; otherwise the run ends with its error, and is called again with ``resume=True``, as a
reader would. Each rank notes when it begins a step. The ranks of one host share their clock.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spnb.maths.posteriors import Posterior
from spnb.parallel.pool import WorkerPool
from spnb.run.checkpoint import Checkpoints
from spnb.run.training import fit

KINDS = {
    "killed": "is killed by the system, as when memory runs out",
    "hangs": "waits for something that never comes",
    "NaN": "reads a batch of NaN",
    "no memory": "asks for more memory than there is",
    "you press ■": "works on, until you press the stop button",
}
"""By short name: what happens to the rank, in words."""

PRESSED = "you press ■"
MARK, NOTES, BEGINS = "happened", "steps-{rank}", "begins"


class Accident:
    """An augmentation that changes nothing, but once, at one step of one rank, something happens.

    It also writes down when each step begins.

    Args:
        kind: one of `KINDS`; None: nothing happens.
        rank: to whom.
        step: when, a step from 0.
        folder: where it notes what happens, and where the run has its checkpoints.
    """

    def __init__(self, kind: str | None, rank: int, step: int, folder: Path) -> None:
        self.kind, self.rank, self.step, self.folder = kind, rank, step, folder
        self.next: int | None = None

    def __repr__(self) -> str:
        """The same for all: a run with an accident and one without are the same run."""
        return "Accident"

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The batch, as it was; or an accident."""
        here = int(os.environ.get("RANK", "0"))
        begins = self.next is None
        if self.next is None:  # the run goes on from the last checkpoint
            self.next = max(Checkpoints(self.folder).steps(), default=0)
        step, self.next = self.next, self.next + 1
        with open(self.folder / NOTES.format(rank=here), "a") as notes:
            notes.write(f"{time.monotonic()} {step} {BEGINS if begins else ''}\n")
        if self.kind is None or (here, step) != (self.rank, self.step):
            return x
        mark = self.folder / MARK
        if mark.exists():  # it happens once
            return x
        mark.write_text(str(time.monotonic()))
        return self.happen(x)

    def happen(self, x: Tensor) -> Tensor:
        """The accident itself."""
        if self.kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.kind == "hangs":
            threading.Event().wait()
        elif self.kind == "NaN":
            return x * float("nan")
        elif self.kind == "no memory":
            torch.empty(2**50, device=x.device)
        return x


@dataclass(frozen=True)
class Story:
    """What became of a run. Times are in seconds from its start.

    Attributes:
        attempts: for each time that the run was begun, when it began which step:
            ``(seconds, step)``.
        ended_at: when the whole run was finished.
        posterior: what was trained.
        reached: the step that was not finished for the accident.
        happened_at: when; None: there was none.
        noticed_at: when the notebook had its reason.
        words: the reason, as the notebook told it.
        by_itself: whether the pool went on by itself, or the cell had to be run again.
    """

    attempts: tuple[tuple[tuple[float, int], ...], ...]
    ended_at: float
    posterior: Posterior
    reached: int = 0
    happened_at: float | None = None
    noticed_at: float = 0.0
    words: str = ""
    by_itself: bool = False

    @property
    def twice(self) -> int:
        """How many steps were finished, lost, and computed again."""
        return 0 if self.happened_at is None else self.reached - self.attempts[1][0][1]

    def same_as(self, other: Story) -> bool:
        """Whether not a bit of the two posteriors differs."""
        both = zip(
            self.posterior.state_dict().values(), other.posterior.state_dict().values(), strict=True
        )
        return all(torch.equal(one, two) for one, two in both)


class _Heard(io.TextIOBase):
    """Takes what the cell would show, and knows when the pool said that it begins again."""

    at: float | None = None
    words = ""

    def write(self, text: str) -> int:
        """Listen."""
        if self.at is None and " Attempt 1 of " in text:
            self.at, self.words = time.monotonic(), text
        return len(text)


def live_through(
    pool: WorkerPool,
    posterior: Posterior,
    data: Sequence[Tensor],
    *,
    every: int,
    kind: str | None = None,
    rank: int = 0,
    step: int = 0,
    **settings: Any,
) -> Story:
    """Train, and let something happen on the way.

    Args:
        pool: live workers; with ``restarts`` and ``patience`` they go on by themselves where they
            can. It is whole again afterwards.
        posterior: where to start from.
        data: what to learn from.
        every: steps from one checkpoint to the next.
        kind: one of `KINDS`, or None for an undisturbed run.
        rank: to whom it happens.
        step: when, a step from 0.
        **settings: further ones for `spnb.fit`.

    Raises:
        ValueError: there is no such accident or rank, or a hang would never end.
        RuntimeError: the run ended before the step was reached.
    """
    if kind not in (None, *KINDS):
        raise ValueError(f"kind='{kind}' is no accident; there are {', '.join(KINDS)}.")
    if not 0 <= rank < pool.size:
        raise ValueError(f"rank={rank} is none of the {pool.size} ranks of this pool.")
    if kind == "hangs" and pool.patience is None:
        raise ValueError("A rank that hangs needs a pool with patience, such as patience=5.0.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        accident, heard = Accident(kind, rank, step, folder), _Heard()
        settings |= {"augment": accident, "checkpoints": Checkpoints(folder, every=every)}
        press = threading.Thread(target=_press, args=(pool, folder / MARK), daemon=True)
        if kind == PRESSED:
            press.start()
        start, error = time.monotonic(), None
        with contextlib.redirect_stderr(heard):
            try:
                fitted = pool.run(fit, posterior, data, resume=True, **settings)[0]
            except (Exception, KeyboardInterrupt) as found:
                if not (folder / MARK).exists():
                    raise  # not by this accident
                error, heard.at = found, time.monotonic()
                heard.words = f"{type(error).__name__}: {error}"
                fitted = pool.run(fit, posterior, data, resume=True, **settings)[0]
        ended, mark = time.monotonic() - start, folder / MARK
        attempts = _attempts(folder, start)
        if kind is None:
            return Story(attempts, ended, fitted.posterior)
        if not mark.exists():
            raise RuntimeError(f"The run of {attempts[0][-1][1] + 1} steps has no step {step}.")
        if heard.at is None:
            raise RuntimeError("The run was over before it was noticed: choose an earlier step.")
        return Story(
            attempts,
            ended,
            fitted.posterior,
            step if kind != PRESSED else max(attempts[0][-1][1], attempts[1][0][1]),
            float(mark.read_text()) - start,
            heard.at - start,
            heard.words.strip().splitlines()[0],
            error is None,
        )


def _press(pool: WorkerPool, mark: Path) -> None:
    """Press the stop button as soon as the step is there."""
    while not mark.exists():
        time.sleep(0.002)
        if not mark.parent.exists():  # the run has failed before
            return
    pool.interrupt()


def _attempts(folder: Path, start: float) -> tuple[tuple[tuple[float, int], ...], ...]:
    """What rank 0 has noted, cut where it began again."""
    found: list[list[tuple[float, int]]] = []
    for line in (folder / NOTES.format(rank=0)).read_text().splitlines():
        seconds, step, *begins = line.split()
        if begins:
            found.append([])
        found[-1].append((float(seconds) - start, int(step)))
    return tuple(map(tuple, found))
