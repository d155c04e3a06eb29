"""Checkpoints: where a run writes down how far it is, how often, and which of them it keeps.

Each is one file (`files`), written by rank 0 alone, and holds the whole run whatever the layout:
posterior, optimiser, schedule, step and history (`state`). All random numbers are functions of the
seed and the step, so nothing else is needed to go on along the same path.
"""

from __future__ import annotations

import math
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from spnb.run import files

FORMAT, VERSION = "spnb checkpoint", "1"

BEST = "best.safetensors"
"""The name of the one with the best score."""

LARGER_IS_BETTER = ("accuracy",)
SMALLER_IS_BETTER = ("nll", "brier", "ece", "rmse", "energy_score", "ensemble_energy_score", "crps")
"""Scores of validation data by which a best checkpoint can be chosen."""

_NAME = re.compile(r"step-(\d{8,})\.safetensors")


@dataclass(frozen=True)
class Checkpoints:
    """Where a run's checkpoints go, how often, and which are kept.

    Args:
        folder: of this run alone, which keeps others out while it lasts; made if it is not there.
        every: steps from one to the next; None: one after each epoch. There is always one after
            the last step.
        keep: how many are kept, at least 1; 2 leave one in case the last is damaged.
        best: a score of the validation data, such as ``"nll"``: the checkpoint after the epoch
            with the smallest (of accuracy: the largest) is kept besides, as ``best.safetensors``,
            and `spnb.fit` returns what it holds as ``fitted.best``.

    Raises:
        TypeError: something is of the wrong kind.
        ValueError: a number is below 1, or there is no such score.
    """

    folder: str | os.PathLike[str]
    every: int | None = None
    keep: int = 2
    best: str | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be."""
        if not isinstance(self.folder, str | os.PathLike):
            raise TypeError(f"folder={self.folder!r} must be a path.")
        for name, value in {"every": self.every, "keep": self.keep}.items():
            if value is None and name == "every":
                continue
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name}={value!r} must be a whole number.")
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1.")
        if self.best is not None and not isinstance(self.best, str):
            raise TypeError(f"best={self.best!r} must be the name of a score, such as 'nll'.")
        known = LARGER_IS_BETTER + SMALLER_IS_BETTER
        if self.best is not None and self.best not in known:
            raise ValueError(
                f"best='{self.best}' is no score to choose by; there are {', '.join(known)}."
            )

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self.folder)

    def steps(self) -> list[int]:
        """After which steps there are checkpoints, the last one first."""
        names = os.listdir(self.path) if self.path.is_dir() else []
        found = [_NAME.fullmatch(name) for name in names]
        return sorted((int(match[1]) for match in found if match), reverse=True)

    def file(self, step: int) -> Path:
        """The file of a step."""
        return self.path / f"step-{step:08d}.safetensors"

    def holds(self) -> str:
        """What there is in the folder of an earlier run, in words; nothing if there is nothing."""
        if steps := self.steps():
            return f"a checkpoint of step {steps[0]}"
        return f"'{BEST}'" if self.best_file.exists() else ""

    @property
    def best_file(self) -> Path:
        """The file of the best one."""
        return self.path / BEST

    def due(self, step: int, ends_epoch: bool, total: int) -> bool:
        """Whether a checkpoint is to be written after a step."""
        if step == total:
            return True
        return ends_epoch if self.every is None else step % self.every == 0

    def prepare(self) -> None:
        """Make the folder, and see that it can be written to, before hours of work depend on it.

        Raises:
            OSError: it cannot.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise OSError(
                f"'{self.path}' cannot hold checkpoints: {error.strerror}. Give another folder."
            ) from error

    def write(
        self, step: int, tensors: dict[str, Tensor], about: dict[str, str], is_best: bool
    ) -> None:
        """Write a checkpoint, and let go of those that are too many.

        Raises:
            OSError: it cannot be written; those before it are as they were.
        """
        self._write(self.file(step), tensors, about)
        if is_best:
            self.write_best(tensors, about)
        for old in self.steps()[self.keep :]:
            self.file(old).unlink(missing_ok=True)

    def write_best(self, tensors: dict[str, Tensor], about: dict[str, str]) -> None:
        """Write the best checkpoint so far, in place of the one before.

        Raises:
            OSError: it cannot be written; the one before it is as it was.
        """
        self._write(self.best_file, tensors, {**about, "best": str(self.best)})

    def _write(self, path: Path, tensors: dict[str, Tensor], about: dict[str, str]) -> None:
        try:
            files.write(path, tensors, {"format": FORMAT, "version": VERSION, **about})
        except OSError as error:
            steps = self.steps()
            left = f"The last checkpoint is of step {steps[0]}" if steps else "There is none yet"
            raise OSError(f"{error} {left}: make room, then go on with resume=True.") from error

    def load_last(self) -> tuple[Path, dict[str, Tensor], dict[str, str]] | None:
        """The last checkpoint that is whole; None if there is none. It warns of damaged ones."""
        for step in self.steps():
            try:
                return self.file(step), *files.read(self.file(step), FORMAT, VERSION)
            except files.DamagedFile as error:
                warnings.warn(f"{error} Going back to the one before.", stacklevel=2)
        return None


def better(name: str, score: float, than: float | None) -> bool:
    """Whether a score is better than another one; any is better than none, a number than NaN."""
    if than is None or math.isnan(than):
        return than is None or not math.isnan(score)
    return score > than if name in LARGER_IS_BETTER else score < than


def load(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read one checkpoint.

    Args:
        path: of its file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or something else; names one before it that is whole.
    """
    path = Path(path)
    try:
        return files.read(path, FORMAT, VERSION)
    except files.DamagedFile as error:
        before = next(_whole_before(path), None)
        offer = f"'{before}' is whole: resume from that" if before else "No other there is whole"
        raise ValueError(f"{error} {offer}.") from None


def _whole_before(path: Path) -> Iterator[Path]:
    """The whole checkpoints beside a file, those with fewer steps alone if it has a number."""
    beside = Checkpoints(path.parent)
    own = _NAME.fullmatch(path.name)
    for step in beside.steps():
        if own is None or step < int(own[1]):
            try:
                files.read(beside.file(step), FORMAT, VERSION)
            except files.DamagedFile:
                continue
            yield beside.file(step)
