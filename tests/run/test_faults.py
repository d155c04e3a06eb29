"""Ranks that are killed, hang, or run into trouble in the middle of a run: nothing is lost."""

from __future__ import annotations

import importlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor

import spnb
from spnb.parallel.pool import silence
from tests.run.problems import problem

TRIALS = int(os.environ.get("SPNB_TRIALS", "2"))
"""How often a rank is killed; the record in docs/scale.md was made with 100."""

STEPS = 20
HANG = 120.0
"""Seconds after which a test takes something for hanging."""
ROOT = Path(__file__).parents[2]


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


def run(folder: Path, layout: spnb.Layout | None, accident: Accident | None) -> spnb.Fitted:
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
    expected = "test_faults.py" if kind == "hang" else "does not answer: it is stopped"
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
    with pytest.raises(ValueError, match=next(iter(wrong))):
        spnb.WorkerPool(2, **wrong)


SCRIPT = """
import os, sys, torch, spnb
from pathlib import Path
from tests.run import test_faults as faults

folder, rank, step, late = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
accident = faults.Accident("kill", rank, step, folder / "mark", late)
fitted = faults.run(folder, spnb.Layout(sample=-1), accident)
if os.environ["RANK"] == "0":
    torch.save(fitted.posterior.state_dict(), folder / "found")
"""


def torchrun(folder: Path, rank: int, step: int, late: float) -> subprocess.Popen[str]:
    """The same run under an agent that starts all ranks again when one has died."""
    folder.mkdir()
    (folder / "train.py").write_text(SCRIPT)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1",
         f"--log-dir={folder / 'logs'}", "--max-restarts=2", "--monitor-interval=0.1",
         "--nproc-per-node=2",
         str(folder / "train.py"), str(folder), str(rank), str(step), str(late)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.service
@pytest.mark.timeout(900 + 30 * TRIALS)
def test_a_rank_killed_under_torchrun_is_started_again(tmp_path: Path) -> None:
    rng = random.Random(1)
    whole = torchrun(tmp_path / "whole", 9, 0, 0.0)
    said = whole.communicate(timeout=HANG)[0]
    assert whole.returncode == 0, said
    expected = torch.load(tmp_path / "whole" / "found")
    for trial in range(TRIALS if TRIALS >= 100 else 1):
        folder = tmp_path / str(trial)
        running = torchrun(folder, *somewhere(rng))
        said = running.communicate(timeout=HANG)[0]
        assert running.returncode == 0, said
        assert (folder / "mark").exists()
        found = torch.load(folder / "found")
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        mine = [
            p for p in psutil.process_iter(["cmdline"]) if str(folder) in str(p.info["cmdline"])
        ]
        assert not mine
