"""One run at a time in a folder of checkpoints, and nothing but checkpoints in it afterwards."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import spnb
from spnb.run import lock
from tests.run.problems import problem

PoolOf = Callable[[int], spnb.WorkerPool]


class Doing:
    """An augmentation that does something of its own in the first step."""

    def __init__(self, action: Callable[[], object]) -> None:
        self.action: Callable[[], object] | None = action

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        action, self.action = self.action, None
        if action is not None:
            action()
        return x

    def __repr__(self) -> str:
        return "Doing"


def nothing() -> None:
    pass


def run(
    folder: Path,
    action: Callable[[], object] = nothing,
    layout: spnb.Layout | None = None,
    resume: bool = False,
) -> spnb.Fitted:
    start, data = problem(8)
    return spnb.fit(
        start,
        data,
        num_samples=2,
        batch_size=4,
        augment=Doing(action),
        layout=layout,
        checkpoints=spnb.Checkpoints(folder, every=1),
        resume=resume,
    )


def in_it(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def fail(error: type[BaseException]) -> None:
    raise error


BOTH = ["step-00000001.safetensors", "step-00000002.safetensors"]


def test_a_run_within_a_run_is_refused_and_says_who_has_the_folder(tmp_path: Path) -> None:
    seen = []
    whole = run(tmp_path / "a")

    def second() -> None:
        seen.append(in_it(tmp_path / "b"))
        with pytest.raises(ValueError, match=r"b' is in use by a run of this process since \d{4}-"):
            run(tmp_path / "b")
        with pytest.raises(ValueError, match="wait for its end, or give this run another folder"):
            run(tmp_path / "b" / ".." / "b", resume=True)
        seen.append(in_it(tmp_path / "b"))

    assert run(tmp_path / "b", second).history.loss == whole.history.loss
    assert seen == [[lock.NAME]] * 2
    assert in_it(tmp_path / "b") == BOTH


def test_of_two_threads_one_is_refused(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        assert go_on.wait(60)

    first = threading.Thread(target=run, args=(tmp_path, wait))
    first.start()
    assert begun.wait(60)
    try:
        with pytest.raises(ValueError, match="in use by a run of this process"):
            run(tmp_path)
    finally:
        go_on.set()
        first.join()
    assert in_it(tmp_path) == BOTH
    run(tmp_path, resume=True)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_whatever_ends_a_run_lets_go(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error):
        run(tmp_path, lambda: fail(error))
    assert in_it(tmp_path) == []
    run(tmp_path, resume=True)
    assert in_it(tmp_path) == BOTH


def test_a_run_that_is_refused_lets_go(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(ValueError, match="holds a checkpoint of step 2"):
        run(tmp_path)
    assert in_it(tmp_path) == BOTH


HOLDS = """
import sys
from pathlib import Path
from tests.run.test_lock import run
run(Path(sys.argv[1]), lambda: (print("running", flush=True), sys.stdin.read()))
"""


def test_another_process_is_named_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        text=True,
    )
    assert other.stdout is not None and other.stdin is not None
    try:
        assert other.stdout.readline() == "running\n"
        owner = rf"process {other.pid} on {re.escape(socket.gethostname())} since \d{{4}}-\d\d-\d\d"
        with pytest.raises(ValueError, match=f"in use by a run of {owner}"):
            run(tmp_path)
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
        other.stdin.close()
        other.stdout.close()
    assert in_it(tmp_path) == [lock.NAME]  # which is no lock any more
    run(tmp_path)
    assert in_it(tmp_path) == BOTH


@pytest.mark.pool
def test_all_ranks_of_another_pool_are_refused_together(pool_of: PoolOf, tmp_path: Path) -> None:
    layout = spnb.Layout(2, 1)
    with lock.held(tmp_path):
        with pytest.raises(ValueError, match=f"in use by a run of process {os.getpid()} on "):
            pool_of(2).run(run, tmp_path, layout=layout)
    assert len(pool_of(2).run(run, tmp_path, layout=layout)) == 2
    assert in_it(tmp_path) == BOTH


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_where_files_cannot_be_locked_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def without(descriptor: int, blocking: bool) -> bool:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock, "lock_descriptor", without)
    with pytest.warns(UserWarning, match=rf"cannot be locked \({os.strerror(number)}\), as on"):
        run(tmp_path)
    assert in_it(tmp_path) == BOTH


def test_a_lock_that_is_removed_just_now_is_looked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run opens the file, the one before removes it, and the lock is then of nothing."""
    taken, calls = lock.lock_descriptor, []

    def late(descriptor: int, blocking: bool) -> bool:
        calls.append(descriptor)
        if len(calls) == 1:
            (tmp_path / lock.NAME).unlink()
        return taken(descriptor, blocking=blocking)

    monkeypatch.setattr(lock, "lock_descriptor", late)
    with lock.held(tmp_path):
        assert len(calls) == 2 and (tmp_path / lock.NAME).exists()
        with pytest.raises(ValueError, match="in use"), lock.held(tmp_path):
            pass
    assert in_it(tmp_path) == []
