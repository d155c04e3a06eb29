"""Ranks that are killed, hang, or run into trouble in the middle of a run: nothing is lost."""

from __future__ import annotations

import importlib
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import spnb
from spnb.parallel.pool import silence
from tests.run.accidents import TRIALS, Accident, run, somewhere
from tests.run.problems import problem

HANG = 120.0
"""Seconds after which a test takes something for hanging."""


def same(one: spnb.Posterior, other: spnb.Posterior) -> bool:
    """Whether not a bit differs."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch, restarts: int = 0) -> Iterator[spnb.WorkerPool]:
    """Ranks that are given up after a silence as long as their whole start: none is just slow."""
    begun = time.monotonic()
    with spnb.WorkerPool(2, restarts=restarts, silence=None) as pool:
        pool.run(problem)  # which imports what is needed
        pool.patience = max(1.0, time.monotonic() - begun)
        monkeypatch.setattr(silence, "ANSWER", max(silence.ANSWER, pool.patience / 4))
        yield pool


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[spnb.WorkerPool]:
    with watched(monkeypatch, restarts=2) as pool:
        yield pool


def workers() -> list[int]:
    found = psutil.Process().children(recursive=True)
    return [p.pid for p in found if "spawn_main" in " ".join(p.cmdline())]


@pytest.mark.timeout(900 + 30 * TRIALS)
def test_a_killed_rank_is_started_again_and_not_a_bit_differs(
    pool: spnb.WorkerPool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    layout, rng, before = spnb.Layout(sample=2), random.Random(0), len(workers())
    whole = pool.run(run, tmp_path / "whole", layout, None)[0]
    for trial in range(TRIALS):
        folder = tmp_path / str(trial)
        rank, step, late = somewhere(rng)
        accident = Accident("kill", rank, step, folder / "mark", late)
        folder.mkdir()
        for again in pool.run(run, folder, layout, accident):
            assert same(again.posterior, whole.posterior), (trial, accident.rank, accident.step)
            assert again.history.loss == whole.history.loss
        assert (folder / "mark").exists()
    words = capfd.readouterr().err
    assert (
        "was killed (SIGKILL): out of memory? The next run starts it again. Attempt 1 of" in words
    )
    assert pool.run(int) == [0, 0]  # a late kill may fall between two runs
    assert len(workers()) == before  # no orphan


@pytest.mark.parametrize(
    "kind",
    [pytest.param("hang", marks=pytest.mark.exhaustive), "stop"],  # notebook 11's lab hangs
)
def test_a_rank_that_hangs_is_named_killed_and_started_again(
    pool: spnb.WorkerPool, tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    layout = spnb.Layout(sample=2)
    whole = pool.run(run, tmp_path / "whole", layout, None)[0]
    begun = time.monotonic()
    accident = Accident(kind, 1, 7, tmp_path / "mark")
    again = pool.run(run, tmp_path / "again", layout, accident)[0]
    assert time.monotonic() - begun < HANG + pool.patience
    assert same(again.posterior, whole.posterior)
    words = capfd.readouterr().err
    assert "rank 1 hung, " in words and "rank 0 hung" not in words
    expected = "accidents.py" if kind == "hang" else "does not answer: it is stopped"
    assert expected in words


def test_what_would_happen_again_is_not_tried_again(pool: spnb.WorkerPool, tmp_path: Path) -> None:
    layout = spnb.Layout(sample=2)
    for kind, error, words in [
        ("nan", FloatingPointError, "Step 7, rank 1"),
        ("memory", torch.OutOfMemoryError, "Tried to allocate 8.00 GiB"),
    ]:
        folder = tmp_path / kind
        accident = Accident(kind, 1, 7, folder / "mark")
        folder.mkdir()
        with pytest.raises(error, match=words):
            pool.run(run, folder, layout, accident)
        assert spnb.Checkpoints(folder).steps() == [6, 3]
        whole = pool.run(run, tmp_path / f"whole {kind}", layout, None)[0]
        again = pool.run(run, folder, layout, accident)[0]  # the mark is there: it goes well now
        assert same(again.posterior, whole.posterior)


def dies_each_time(folder: Path) -> None:
    with open(folder / "lives", "a") as file:
        file.write("x")
    torch.distributed.barrier()
    os.kill(os.getpid(), signal.SIGKILL)


def test_restarts_are_bounded(pool: spnb.WorkerPool, tmp_path: Path) -> None:
    with pytest.raises(spnb.WorkerDied, match="was killed"):
        pool.run(dies_each_time, tmp_path)
    assert len((tmp_path / "lives").read_text()) == 2 * 3
    assert pool.run(int) == [0, 0]


def import_it(name: str) -> int:
    return int(importlib.import_module(name).ANSWER)


@pytest.mark.pool
def test_a_rank_that_imports_for_long_is_not_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It imports until it has been silent for too long twice."""
    enough, causes, found = tmp_path / "enough", silence.Silence._causes, []

    def look(self: silence.Silence, ranks: list[int]) -> dict[int, str]:
        found.append(causes(self, ranks))
        if len(found) == 2:
            enough.touch()
        return found[-1]

    (tmp_path / "slow_to_import.py").write_text(
        f"import os, time\nwhile not os.path.exists({str(enough)!r}): time.sleep(0.01)\nANSWER = 42"
    )
    (tmp_path / "never_imported.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(silence.Silence, "_causes", look)
    monkeypatch.setattr(silence, "IMPORTS", HANG)
    with watched(monkeypatch) as pool:
        assert pool.run(import_it, "slow_to_import") == [42, 42]
        assert len(found) >= 2 and not any(found)
        monkeypatch.setattr(silence, "IMPORTS", pool.patience)
        with pytest.raises(spnb.WorkerDied, match="hung, in File .*never_imported.py"):
            pool.run(import_it, "never_imported")


def deadlock() -> None:
    if torch.distributed.get_rank() == 0:
        torch.distributed.all_reduce(torch.ones(1))
    else:
        torch.distributed.recv(torch.ones(1), src=0)


@pytest.mark.pool
def test_a_deadlock_is_told_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with watched(monkeypatch) as pool:
        with pytest.raises(spnb.WorkerDied, match="waits in a collective as all ranks do"):
            pool.run(deadlock)
        assert pool.run(int) == [0, 0]


@pytest.mark.parametrize(
    "wrong", [{"patience": 0}, {"patience": "3"}, {"silence": -1.0}, {"restarts": -1}]
)
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
        spnb.WorkerPool(2, **wrong)
