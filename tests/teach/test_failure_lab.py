"""The failure lab, on a real pool: every failure is noticed, named, and mended."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

import spnb
from spnb.parallel.pool import call
from spnb.teach.explore.failure_lab import failure_lab
from spnb.teach.failing import FAILURES, WORK, provoke

ERRORS = {
    "raises": ("ValueError", "row 17 of the data is empty", ()),
    "is killed": ("WorkerDied", "rank 1 was killed (SIGKILL)", (1,)),
    "exits": ("WorkerDied", "rank 1", (1,)),
    "you press ■": ("KeyboardInterrupt", "all ranks were stopped", ()),
}


HANG = 120.0
"""Seconds after which a test takes something for hanging: a collective would wait for 600."""


@pytest.fixture(scope="module")
def pool() -> Iterator[spnb.WorkerPool]:
    with spnb.WorkerPool(2, threads=1) as pool:
        yield pool


@pytest.fixture(autouse=True)
def _slow_ranks_are_not_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside other work a rank may need longer to stop than the stop button gives it."""
    monkeypatch.setattr(call, "KILL_AFTER", HANG)


def one_sum() -> None:
    torch.distributed.all_reduce(torch.ones(100))


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_is_noticed_named_and_mended(pool: spnb.WorkerPool, failure: str) -> None:
    error, message, renewed = ERRORS[failure]
    pool.run(one_sum)  # an interrupt that finds a rank importing has it replaced
    outcome = provoke(pool, failure, 1)
    assert outcome.error == error and outcome.message.startswith(message)
    assert outcome.renewed == renewed
    assert WORK <= outcome.failed_at < outcome.noticed_at < outcome.mended_at
    assert outcome.noticed_at - outcome.failed_at < HANG
    assert len(pool.run(os.getpid)) == 2


def test_the_lab_lets_a_rank_fail_only_when_told(pool: spnb.WorkerPool) -> None:
    lab = failure_lab(pool)
    before = pool.run(os.getpid)
    assert "Press the button" in lab.summary
    lab.set(failure="is killed", rank=0)
    assert pool.run(os.getpid) == before
    lab.set(let_it_fail=True)
    assert "WorkerDied: “rank 0 was killed" in lab.summary and "1 new, 1 the same" in lab.summary
    after = pool.run(os.getpid)
    assert after[0] != before[0] and after[1] == before[1]
    lab.controls["failure"].value = "raises"
    assert not lab.state["let_it_fail"], "a new question takes the button out"
    lab.set(failure="is killed")
    assert "WorkerDied" in lab.summary, "what was seen is kept"
    assert pool.run(os.getpid) == after


@pytest.mark.pool
def test_without_a_pool_nothing_fails() -> None:
    pool = spnb.WorkerPool(1, threads=1)
    lab = failure_lab(pool)
    pool.close()
    lab.set(let_it_fail=True)
    assert lab.summary.endswith("The pool is closed: restart it first.") and lab.error is None
