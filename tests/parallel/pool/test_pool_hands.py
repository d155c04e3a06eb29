"""A pool in rough hands: threads, forks, closed streams, interrupts at the wrong moment."""

from __future__ import annotations

import copy
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch.distributed as dist

import spnb
from spnb.parallel.pool import call, wake
from spnb.parallel.pool import pool as pools

from .conftest import HANG, ROOT, command, wait_for, wait_until_gone

pytestmark = pytest.mark.pool


@pytest.fixture(scope="module")
def shared() -> Iterator[spnb.WorkerPool]:
    with spnb.WorkerPool(2, threads=1) as shared:
        yield shared


@pytest.fixture
def pool(shared: spnb.WorkerPool) -> Iterator[spnb.WorkerPool]:
    """Two ranks; after the test they are the same processes, and work."""
    shared.run(int)
    before = pids(shared)
    yield shared
    assert shared.run(dist.get_rank) == [0, 1]
    assert pids(shared) == before


def pids(pool: spnb.WorkerPool) -> list[int | None]:
    return [rank.pid for rank in pool.status()]


def workers() -> list[psutil.Process]:
    """The workers of all pools of this process."""
    return [p for p in psutil.Process().children() if "spawn_main" in command(p)]


def in_thread(function: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Run a function in a thread; its result, or its exception, is in the list thereafter."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(function())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, found


def finished(thread: threading.Thread) -> None:
    thread.join(HANG)
    assert not thread.is_alive(), "it hangs"


# Threads


def test_a_run_at_the_moment_of_idling_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    idling, go_on = threading.Event(), threading.Event()

    def close_slowly(processes: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            idling.set()
            assert go_on.wait(HANG)
        real(processes)

    with spnb.WorkerPool(1, idle_timeout=0.001) as pool:
        real = pools.close_all
        monkeypatch.setattr(pools, "close_all", close_slowly)
        pool.run(int)
        assert idling.wait(HANG)  # the timer has fired, and the workers are about to end
        thread, found = in_thread(lambda: pool.run(dist.get_world_size))
        # The run has begun, or has been refused.
        wait_for(lambda: not thread.is_alive() or pool._running.locked(), "the run")
        go_on.set()
        finished(thread)
        assert found == [[1]]


def test_a_timer_that_is_late_does_not_end_the_workers_of_a_later_run() -> None:
    with spnb.WorkerPool(1, idle_timeout=1000.0) as pool:
        late = pool._timer
        assert late is not None
        pool.run(int)
        before = pids(pool)
        late.function(*late.args)  # what it would do had it not been cancelled in time
        assert pids(pool) == before


def test_workers_that_are_never_used_are_let_go_too() -> None:
    with spnb.WorkerPool(1, idle_timeout=0.001) as pool:
        wait_for(lambda: pids(pool) == [None], "the worker to be let go")
        assert pool.run(dist.get_world_size) == [1]


def test_restarts_in_two_threads_start_each_worker_once() -> None:
    before = len(workers())
    with spnb.WorkerPool(1) as pool:
        threads = [in_thread(pool.restart)[0] for _ in range(2)]
        for thread in threads:
            finished(thread)
        assert pool.run(dist.get_world_size) == [1]
        assert len(workers()) == before + 1
    assert len(workers()) == before


class Closing:
    """Closes a pool in the middle of its run."""

    def __init__(self, pool: spnb.WorkerPool) -> None:
        self.pool, self.refused = pool, ""

    def look(self) -> None:
        if not self.refused:
            try:
                self.pool.restart()
            except RuntimeError as error:
                self.refused = str(error)
            self.pool.close()


def test_a_pool_can_be_closed_within_its_own_run() -> None:
    """As a program does that tidies up in a signal handler."""
    pool = spnb.WorkerPool(1)
    closing = Closing(pool)
    pool.watch(closing.look)
    thread, found = in_thread(lambda: pool.run(time.sleep, 10 * HANG))
    finished(thread)
    assert str(found[0]) == "The pool was closed while it ran a function."
    assert "within its own run" in closing.refused
    assert pool.closed and pids(pool) == [None]
    pool.restart()
    assert pool.run(dist.get_world_size) == [1]
    pool.close()


class Pressing:
    """Presses the stop button while it is being pickled."""

    def __init__(self, pool: spnb.WorkerPool) -> None:
        self.pool = pool

    def __reduce__(self) -> Any:
        self.pool.interrupt()
        return int, ()


def test_an_interrupt_that_comes_before_the_workers_have_the_function(
    pool: spnb.WorkerPool,
) -> None:
    thread, found = in_thread(lambda: pool.run(lambda _: time.sleep(HANG), Pressing(pool)))
    finished(thread)
    assert isinstance(found[0], KeyboardInterrupt)


# Streams and the environment


def close_stdout() -> None:
    sys.stdout.close()


def close_stderr() -> None:
    sys.stderr.close()


def replace_streams() -> None:
    sys.stdout, sys.stderr = io.StringIO(), None  # type: ignore[assignment]


def close_descriptors() -> None:
    os.close(1)
    os.close(2)


def redirect() -> None:
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)


def forget_environment() -> None:
    os.environ.clear()


def stand_in_a_folder_that_vanishes() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)


def speak() -> str:
    print("from Python")
    print("an error", file=sys.stderr)
    os.system("echo from a program")
    return os.environ["RANK"]


@pytest.mark.parametrize(
    "spoil",
    [
        close_stdout,
        close_stderr,
        replace_streams,
        close_descriptors,
        redirect,
        forget_environment,
        stand_in_a_folder_that_vanishes,
    ],
)
def test_what_a_function_does_to_its_process_is_over_with_it(
    pool: spnb.WorkerPool, spoil: Callable[[], None]
) -> None:
    assert pool.run(spoil) == [None, None]
    assert pool.run(speak) == ["0", "1"]
    for rank in (0, 1):
        assert pool.output(rank) == "from Python\nan error\nfrom a program\n"


def test_a_notebook_that_cannot_show_a_letter(
    pool: spnb.WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii"))
    pool.run(lambda: print("σ = 1"))
    assert shown.getvalue() == b"\\u03c3 = 1\n"
    monkeypatch.setattr(sys, "stdout", None)  # as in a program without a console
    pool.run(lambda: print("σ = 1"))
    assert pool.output(0) == "σ = 1\n"


def test_nobody_reads_what_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under ``| head``: the run fails here, while its ranks are still at work."""

    class Pipe(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError("nobody reads")

    with spnb.WorkerPool(1) as pool:
        pool.run(int)
        old = pids(pool)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", Pipe())
            with pytest.raises(BrokenPipeError):
                pool.run(lambda: (print("a line"), time.sleep(10 * HANG)))
        assert pool.run(dist.get_world_size) == [1]
        assert pids(pool) != old


# Refused and interrupted in quick succession


def fail_on(rank: int) -> None:
    if dist.get_rank() == rank:
        raise LookupError("refused")


def test_runs_that_are_refused_in_quick_succession(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other ranks may still be connecting to each other: they live on."""
    monkeypatch.setattr(call, "KILL_AFTER", HANG)
    with spnb.WorkerPool(3, threads=1) as pool:
        pool.run(int)
        before = pids(pool)
        for number in range(60):
            with pytest.raises(LookupError, match="refused"):
                pool.run(fail_on, number % 3)
            assert pids(pool) == before, f"run {number}"


def test_no_connection_is_shut_while_a_group_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks for a function of torch by its name: that it is there is seen here."""
    seen = [wake.makes_group()]

    class Watched(dist.distributed_c10d.ProcessGroupGloo):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            seen.append(wake.makes_group())
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(dist.distributed_c10d, "ProcessGroupGloo", Watched)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    dist.destroy_process_group()
    assert seen == [False, True]


# Forks


FORKED = """
import gc, multiprocessing, os, sys
import torch
from torch.utils.data import DataLoader
from spnb.parallel.pool import WorkerPool

pool = WorkerPool(2, threads=1)
pool.run(int)
pids = [r.pid for r in pool.status()]
"""

BY_FORK = """
if (child := os.fork()) == 0:
    for use in (lambda: pool.run(int), pool.restart, pool.interrupt, pool.__enter__):
        try: use()
        except RuntimeError as error: assert f"belongs to process {os.getppid()}" in str(error)
        else: os._exit(9)
    assert repr(pool) == f"<WorkerPool(2) (of process {os.getppid()}): ended, ended>"
    pool.close()
    sys.exit(3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
"""

BY_FORK_WITH_A_POOL = """
if (child := os.fork()) == 0:
    with WorkerPool(1) as own:
        assert own.run(int) == [0]
    del pool
    gc.collect()
    sys.exit(3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
"""

BY_MULTIPROCESSING = """
def child():
    global pool
    del pool
    gc.collect()
process = multiprocessing.get_context("fork").Process(target=child)
process.start(); process.join()
assert process.exitcode == 0
"""

BY_A_LOADER = """
def collate(rows):
    global pool
    if "pool" in globals(): del pool
    gc.collect()
    return rows
loader = DataLoader(range(4), 2, num_workers=2, collate_fn=collate, multiprocessing_context="fork")
assert list(loader) == [[0, 1], [2, 3]]
"""

WORKS = """
assert pool.run(lambda: torch.distributed.get_rank()) == [0, 1]
assert [r.pid for r in pool.status()] == pids
"""


@pytest.mark.parametrize("way", [BY_FORK, BY_FORK_WITH_A_POOL, BY_MULTIPROCESSING, BY_A_LOADER])
def test_a_process_forked_from_the_notebooks_leaves_its_workers_alone(
    tmp_path: Path, way: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(FORKED + way + WORKS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=HANG
    )
    assert done.returncode == 0 and not done.stderr, done.stderr


def fork(end: str) -> Any:
    """Fork; the new process comes back from the function, in one way or the other."""
    from spnb.parallel import progress

    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    progress.report(1, 1)  # as a rank would
    if end == "raises":
        raise ValueError("of the new process")
    if end == "exits":
        sys.exit(3)
    return "of the new process"


@pytest.mark.parametrize(("end", "code"), [("returns", 0), ("raises", 1), ("exits", 3)])
def test_a_process_forked_from_a_worker_is_no_rank(
    pool: spnb.WorkerPool, end: str, code: int
) -> None:
    assert pool.run(fork, end) == [code, code]
    assert ("ValueError: of the new process" in pool.output(0)) == (end == "raises")


def test_a_worker_that_dies_is_noticed_though_a_process_that_it_forked_lives() -> None:
    def leave_a_child() -> None:
        if os.fork():
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(10 * HANG)

    with spnb.WorkerPool(1) as pool:
        pool.run(int)
        thread, found = in_thread(lambda: pool.run(leave_a_child))
        finished(thread)
        assert isinstance(found[0], spnb.WorkerDied)


# What a pool may be asked for


@pytest.mark.parametrize(
    ("asked", "kind", "words"),
    [
        ({"num_workers": True}, TypeError, "must be an int, not True"),
        ({"num_workers": 1.0}, TypeError, "must be an int, not 1.0"),
        ({"num_workers": float("nan")}, TypeError, "must be an int, not nan"),
        ({"num_workers": 10**6}, ValueError, "1000000 workers are too many for this machine"),
        ({"threads": 0}, ValueError, "threads=0 must be a whole number of at least 1"),
        ({"threads": -1}, ValueError, "threads=-1 must be a whole number of at least 1"),
        ({"threads": True}, TypeError, "threads=True must be a whole number"),
        ({"threads": 1.5}, TypeError, "threads=1.5 must be a whole number"),
        ({"threads": "2"}, TypeError, "threads='2' must be a whole number"),
        ({"threads": 10**6}, ValueError, "threads=1000000 must be .* at most [0-9]+ on this"),
        ({"timeout": None}, TypeError, "timeout=None must be a number of seconds"),
        ({"timeout": True}, TypeError, "timeout=True must be a number of seconds"),
        ({"timeout": "600"}, TypeError, "timeout='600' must be a number of seconds"),
        ({"timeout": 0}, ValueError, "timeout=0 must be .* between 0.001 and 1e.09"),
        ({"timeout": -1.0}, ValueError, "timeout=-1.0 must be .* between"),
        ({"timeout": float("nan")}, ValueError, "timeout=nan must be .* between"),
        ({"timeout": float("inf")}, ValueError, "timeout=inf must be .* between"),
        ({"timeout": 1e12}, ValueError, "timeout=1000000000000.0 must be .* between"),
        ({"idle_timeout": -1}, ValueError, "idle_timeout=-1 must be .*, or None for never"),
        ({"idle_timeout": float("nan")}, ValueError, "idle_timeout=nan must be"),
        ({"idle_timeout": "1"}, TypeError, "idle_timeout='1' must be .*, or None for never"),
        ({"idle_timeout": 1e12}, ValueError, "idle_timeout=1000000000000.0 must be"),
        ({"silence": False}, TypeError, "silence=False must be .*, or None for never"),
        ({"silence": float("nan")}, ValueError, "silence=nan must be"),
        ({"patience": 0}, ValueError, "patience=0 must be"),
        ({"restarts": -1}, ValueError, "restarts=-1 must be a whole number of at least 0"),
        ({"restarts": True}, TypeError, "restarts=True must be a whole number"),
        ({"restarts": 1.0}, TypeError, "restarts=1.0 must be a whole number"),
        ({"output": None}, ValueError, "output must be 'rank0' or 'all', not None"),
        ({"device": "gpu"}, ValueError, "device must be 'cpu' or 'cuda', not 'gpu'"),
        ({"backend": 3}, TypeError, "backend=3 must be the name of a backend"),
        ({"backend": ""}, ValueError, "has no backend '', but .*gloo"),
        ({"backend": "banana"}, ValueError, "has no backend 'banana', but .*gloo"),
        ({"backend": "cpu:gloo,cuda:banana"}, ValueError, "has no backend 'banana'"),
        ({"backend": "fake"}, ValueError, "has no backend 'fake'"),
    ],
)
def test_a_pool_that_cannot_be_is_refused_before_a_process_starts(
    monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], kind: type[Exception], words: str
) -> None:
    monkeypatch.setattr(pools, "WorkerProcess", None)
    with pytest.raises(kind, match=words):
        spnb.WorkerPool(**({"num_workers": 1} | asked))


def test_nccl_without_gpus_is_refused_before_a_process_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pools, "WorkerProcess", None)
    monkeypatch.setattr(dist, "is_nccl_available", lambda: False)
    with pytest.raises(ValueError, match="this torch has no backend 'nccl', but"):
        spnb.WorkerPool(1, device="cpu", backend="nccl")
    monkeypatch.setattr(dist, "is_nccl_available", lambda: True)
    with pytest.raises(ValueError, match="NCCL needs a GPU for each rank, and these compute on"):
        spnb.WorkerPool(1, device="cpu", backend="nccl")


def test_a_daemon_of_multiprocessing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="A daemon of multiprocessing, such as a worker of a Da"):
        spnb.WorkerPool(1)


def test_numbers_of_numpy_are_numbers() -> None:
    numbers: Any = {
        "threads": np.int32(1),
        "timeout": np.float32(60),
        "idle_timeout": np.int64(1000),
        "silence": float("inf"),
        "restarts": np.int8(0),
    }
    with spnb.WorkerPool(np.int64(1), backend="gloo", **numbers) as pool:  # type: ignore[arg-type]
        assert pool.run(dist.get_world_size) == [1]
        assert type(pool.size) is int and pool.status()[0].threads == 1
        assert pool.output(np.int64(0)) == ""  # type: ignore[arg-type]


def test_what_methods_may_be_asked_for(pool: spnb.WorkerPool) -> None:
    with pytest.raises(TypeError, match="rank='0' must be a whole number"):
        pool.output("0")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="rank=True must be a whole number"):
        pool.output(True)
    with pytest.raises(IndexError, match="there is no rank -1 in a pool of 2"):
        pool.output(-1)
    with pytest.raises(TypeError, match="takes a method of an object, .* <built-in function len>"):
        pool.watch(len)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes a function and its arguments; <generator"):
        pool.run(i for i in range(3))  # type: ignore[arg-type]


def test_a_pool_stays_where_it_was_made(pool: spnb.WorkerPool) -> None:
    with pytest.raises(TypeError, match="'<lambda>' cannot be sent: pool is a spnb.*WorkerPool"):
        pool.run(lambda: pool.size)
    with pytest.raises(TypeError, match="a pool cannot be copied or sent"):
        copy.copy(pool)


def test_what_cannot_be_sent_beside_a_name_that_has_no_value_yet(pool: spnb.WorkerPool) -> None:
    lock = threading.Lock()

    def use() -> Any:
        return lock, later

    with pytest.raises(TypeError, match="the function 'use' cannot be sent: lock is a _thread"):
        pool.run(use)
    later = 3
    assert later


# Interrupts while workers start


@pytest.mark.parametrize("when", ["made", "run"])
def test_an_interrupt_while_workers_start(monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    before, pressed = len(workers()), []

    class Interrupted(pools.WorkerProcess):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            if not pressed:
                pressed.append(True)
                signal.raise_signal(signal.SIGINT)

    if when == "made":
        monkeypatch.setattr(pools, "WorkerProcess", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            spnb.WorkerPool(2)
        assert len(workers()) == before
        return
    with spnb.WorkerPool(2) as pool:
        old = workers()
        for process in old[-2:]:
            process.kill()
        wait_for(lambda: pids(pool) == [None, None], "the workers' end")
        wait_until_gone(old[-2:])
        monkeypatch.setattr(pools, "WorkerProcess", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.run(int)
        assert pool.run(dist.get_rank) == [0, 1]
        assert len(workers()) == before + 2


def test_workers_can_be_interrupted_whoever_started_them() -> None:
    """Interrupts are held back from a process that starts, and from its first thread no longer."""
    with spnb.WorkerPool(1) as pool:
        masks = pool.run(lambda: [*signal.pthread_sigmask(signal.SIG_BLOCK, [])])
    assert masks == [[]]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
