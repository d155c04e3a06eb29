"""The worker pool itself: how long it takes to start, to be called, to carry data, and to fail."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import spnb
from benchmarks import ours
from benchmarks.measure import place
from benchmarks.record import ROOT
from benchmarks.workloads import WORKLOADS
from spnb.teach.doctor import LEFT_BY_LAUNCHERS

RANKS = 2
TRIES = 3
"""How often a failure is provoked, at most."""
REST = 0.2
"""Seconds from a rank's word that it is about to wait until it surely does."""


def run(starts: int, calls: int, megabytes: int) -> dict[str, Any]:
    """Time a pool of two.

    Args:
        starts: how often to start one; failures are provoked as often, but three times at most.
        calls: how often to call an empty function.
        megabytes: size of what is carried, in 10^6 bytes.
    """
    print(f"  {starts} starts, {calls} calls, {megabytes} MB", flush=True)
    cold = []
    for _ in range(starts):
        start = time.perf_counter()
        with spnb.WorkerPool(RANKS, threads=1) as pool:
            pool.run(first_sum)
            cold.append(time.perf_counter() - start)
    with spnb.WorkerPool(RANKS, threads=1) as pool:
        pool.run(first_sum)
        empty = [seconds(lambda: pool.run(nothing)) for _ in range(calls)]
        data = torch.ones(megabytes * 10**6 // 4)
        start = time.perf_counter()
        shared = spnb.share(data)
        pool.run(total, shared)
        first = time.perf_counter() - start
        again = statistics.median(seconds(lambda: pool.run(total, shared)) for _ in range(3))
        one = statistics.median(seconds(lambda: pool.run(of_rank_0, megabytes)) for _ in range(3))
        both = statistics.median(seconds(lambda: pool.run(of_all, megabytes)) for _ in range(3))
        device = pool.run(lambda: str(place()))[0]
    return {
        "device": device,
        "megabytes": megabytes,
        "seconds": {
            "cold start to the first collective": statistics.median(cold),
            "run of an empty function": statistics.median(empty),
            "share and use a tensor": first,
            "use it again": again,
            "result of one rank": one,
            "result of both ranks": both,
            **{name: statistics.median(found) for name, found in failures(starts).items()},
            "the doctor's examination": seconds(examine),
        },
        "cold_starts": cold,
        "empty_runs": empty,
    }


def seconds(function: Callable[[], Any]) -> float:
    """How long a call takes; its result is dropped afterwards."""
    start = time.perf_counter()
    result = function()
    taken = time.perf_counter() - start
    del result
    return taken


def failures(tries: int) -> dict[str, list[float]]:
    """Seconds until what goes wrong is noticed, and until what is to end has ended.

    Args:
        tries: how often, but `TRIES` at most. Ranks that have to be killed are seen once.
    """
    found: dict[str, list[float]] = {}
    with spnb.WorkerPool(RANKS, threads=1, device="cpu", silence=None) as pool:
        pool.run(first_sum)

        def see(name: str, taken: float) -> None:
            found.setdefault(name, []).append(taken)

        def interrupt(function: Callable[[str], None]) -> float:
            return stopped(pool, function, pool.interrupt)

        for _ in range(min(tries, TRIES)):
            see("error while the other rank waits", until(ValueError, pool.run, lopsided))
            see("run after an error", seconds(lambda: pool.run(nothing)))
            see("argument that cannot be sent", until(TypeError, pool.run, id, threading.Lock()))
            see("settings that make no sense", until(ValueError, pool.run, fit_with_nothing))
            see("100,000 printed lines", seconds(lambda: unseen(lambda: pool.run(flood))))
            see("interrupt while training", interrupt(train))
            see("interrupt in a deadlock", interrupt(deadlock))
            see("interrupt in the store", interrupt(wait_in_the_store))
            last = pool.run(os.getpid)[-1]
            see("a worker is killed", stopped(pool, sleep, partial(os.kill, last, signal.SIGKILL)))
            pool.run(nothing)
        see("interrupt that is not heeded", unseen(lambda: interrupt(be_stubborn)))
    for _ in range(min(tries, TRIES)):
        see("interrupt during the start", interrupted_start())
        if Path("/proc/self").exists():
            see("end of a killed program's workers", orphans())
    return found


def until(kind: type[BaseException], function: Callable[..., Any], *args: Any) -> float:
    """How long it takes until something fails.

    Raises:
        RuntimeError: it went well.
    """
    start = time.perf_counter()
    try:
        function(*args)
    except kind:
        return time.perf_counter() - start
    raise RuntimeError("Nothing failed.")


def stopped(
    pool: spnb.WorkerPool, function: Callable[[str], None], stop: Callable[[], Any]
) -> float:
    """How long it takes from a stop, when all ranks are `here`, to the error in the notebook.

    Args:
        pool: which runs the function.
        function: gets a folder for the words of the ranks.
        stop: called in a thread of its own.
    """
    begun = []
    with tempfile.TemporaryDirectory() as folder:

        def wait_and_stop() -> None:
            while len(os.listdir(folder)) < RANKS:
                time.sleep(0.001)
            time.sleep(REST)
            begun.append(time.perf_counter())
            stop()

        thread = threading.Thread(target=wait_and_stop)
        thread.start()
        with contextlib.suppress(KeyboardInterrupt, spnb.WorkerDied):
            pool.run(function, folder)
        end = time.perf_counter()
        thread.join()
    return end - begun[0]


def interrupted_start() -> float:
    """How long an interrupt takes that comes while the workers start."""
    with spnb.WorkerPool(RANKS, threads=1, device="cpu") as pool:
        begun = []

        def stop() -> None:
            begun.append(time.perf_counter())
            pool.interrupt()

        threading.Timer(REST, stop).start()
        with contextlib.suppress(KeyboardInterrupt):
            pool.run(nothing)
        return time.perf_counter() - begun[0]


PROGRAM = """
import os, time, spnb
pool = spnb.WorkerPool({ranks}, threads=1, device="cpu")
print(*pool.run(os.getpid), flush=True)
pool.run(time.sleep, 600)
"""


def orphans() -> float:
    """How long workers live on after their program has been killed."""
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(ranks=RANKS)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert program.stdout is not None
    pids = [int(pid) for pid in program.stdout.readline().split()]
    time.sleep(REST)
    start = time.perf_counter()
    program.kill()
    while any(alive(pid) for pid in pids):
        time.sleep(0.001)
    taken = time.perf_counter() - start
    program.communicate()
    return taken


def alive(pid: int) -> bool:
    """Whether a process has not ended, from the kernel's own books."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def examine() -> None:
    """What the doctor's command does, in a process of its own."""
    env = {name: value for name, value in os.environ.items() if name not in LEFT_BY_LAUNCHERS}
    command = [sys.executable, "-m", "spnb.doctor"]
    subprocess.run(command, env=env, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)


def unseen(function: Callable[[], Any]) -> Any:
    """What a function returns; what it prints is not shown."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return function()


def lopsided() -> None:
    """One rank fails while the other waits for it."""
    if dist.get_rank() == 1:
        raise ValueError("as planned")
    dist.all_reduce(torch.ones(1))


def fit_with_nothing() -> None:
    """A training run of no epochs."""
    work = WORKLOADS["mlp"]
    spnb.fit(ours.mean_field(work), work.batch(), epochs=0)


def flood() -> None:
    """Print far more than a notebook can take."""
    for number in range(100_000):
        print("line", number)


def here(folder: str) -> None:
    """Say that this rank is about to wait."""
    Path(folder, str(dist.get_rank())).touch()


def train(folder: str) -> None:
    """Steps without end."""
    net, steps = torch.nn.Linear(100, 100), 0
    while True:
        net(torch.randn(64, 100)).sum().backward()
        dist.all_reduce(net.weight.grad)
        steps += 1
        if steps == 3:
            here(folder)


def deadlock(folder: str) -> None:
    """The ranks wait for each other in different collectives."""
    here(folder)
    if dist.get_rank() == 0:
        dist.all_reduce(torch.ones(1))
    else:
        dist.recv(torch.ones(1), src=0)


def wait_in_the_store(folder: str) -> None:
    """All ranks wait for what nobody will write."""
    here(folder)
    dist.distributed_c10d._get_default_store().get("never written")


def sleep(folder: str) -> None:
    """Nothing happens."""
    here(folder)
    time.sleep(600)


def be_stubborn(folder: str) -> None:
    """An interrupt is not heeded."""
    here(folder)
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(600)


def first_sum() -> float:
    """A first collective."""
    one = torch.ones(1, device=place())
    dist.all_reduce(one)
    return one.item()


def nothing() -> None:
    """An empty function."""


def total(x: torch.Tensor) -> float:
    """Look at all of a tensor."""
    return x.sum().item()


def of_rank_0(megabytes: int) -> torch.Tensor | None:
    """A large result of one rank."""
    return torch.ones(megabytes * 10**6 // 4) if dist.get_rank() == 0 else None


def of_all(megabytes: int) -> torch.Tensor:
    """A large result of each rank."""
    return torch.ones(megabytes * 10**6 // 4)
