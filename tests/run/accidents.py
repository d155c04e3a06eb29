"""A short run to which something happens: a rank is killed, hangs, or runs into trouble."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

import spnb
from tests.run.problems import problem

TRIALS = int(os.environ.get("SPNB_TRIALS", "2"))
"""How often a rank is killed; the record in docs/scale.md was made with 100."""

STEPS = 20


class Accident:
    """An augmentation that changes nothing, but once, at one step of one rank, something happens.

    Args:
        kind: what happens.
        rank: to whom.
        step: when.
        mark: a file that says that it has happened.
        late: seconds after the beginning of the step.
    """

    def __init__(self, kind: str, rank: int, step: int, mark: Path, late: float = 0.0) -> None:
        self.kind, self.rank, self.step, self.mark, self.late = kind, rank, step, mark, late
        self.seen = 0

    def __repr__(self) -> str:
        return "Accident"

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        here = self.seen == self.step and int(os.environ.get("RANK", "0")) == self.rank
        self.seen += 1
        if not here or self.mark.exists():
            return x
        self.mark.touch()
        if self.kind == "kill":
            if not self.late:
                os.kill(os.getpid(), signal.SIGKILL)
            threading.Timer(self.late, os.kill, (os.getpid(), signal.SIGKILL)).start()
        elif self.kind == "hang":
            while True:
                time.sleep(60)
        elif self.kind == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self.kind == "nan":
            return x * float("nan")
        elif self.kind == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8.00 GiB.")
        return x


class Accidents:
    """One accident after the other, each in another life of the run.

    Args:
        folder: of the run's checkpoints, which tell at which step this life begins.
        places: rank, step of the whole run, and how late, of each; in the order of the steps.
    """

    def __init__(self, folder: Path, places: Sequence[tuple[int, int, float]]) -> None:
        self.step = max(spnb.Checkpoints(folder).steps(), default=0)
        self.places = sorted(places, key=lambda place: place[1])
        self.marks = [folder / f"mark {number}" for number in range(len(places))]

    def __repr__(self) -> str:
        return "Accident"

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        pairs = zip(self.places, self.marks, strict=True)
        (rank, step, late), mark = next(
            ((place, mark) for place, mark in pairs if not mark.exists()), ((-1, 0, 0.0), Path())
        )
        here = self.step
        self.step += 1
        return Accident("kill", rank, 0, mark, late)(x, generator) if here >= step else x


def run(
    folder: Path, layout: spnb.Layout | None, accident: Accident | Accidents | None
) -> spnb.Fitted:
    """Twenty steps with checkpoints every third, resumed where there are some."""
    start, data = problem(25, torch.float32)
    return spnb.fit(
        start,
        data,
        layout=layout,
        num_samples=4,
        batch_size=5,
        epochs=4,
        learning_rate=0.02,
        augment=accident or Accident("none", -1, 0, folder / "mark"),
        checkpoints=spnb.Checkpoints(folder, every=3),
        resume=True,
    )


def somewhere(rng: random.Random) -> tuple[int, int, float]:
    """A rank, a step, and how long after its beginning: within the run in any case."""
    if rng.random() < 0.5:
        return rng.randrange(2), rng.randrange(STEPS), 0.0
    return rng.randrange(2), rng.randrange(STEPS // 2), rng.uniform(0, 0.01)
