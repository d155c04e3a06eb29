"""The worker panel: the table, the two buttons, and a closed pool."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable

import pytest

import spnb
from spnb.parallel.pool.process import RankStatus
from spnb.teach.explore.panel import worker_panel
from tests.run.problems import problem


class StandIn:
    """A pool without processes."""

    def __init__(self, *states: str) -> None:
        self.states, self.restarts = list(states), 0

    def status(self) -> list[RankStatus]:
        return [
            RankStatus(rank, "cpu", None if state == "ended" else 40 + rank, 2**20, 1, state)
            for rank, state in enumerate(self.states)
        ]

    def restart(self) -> None:
        self.restarts += 1
        self.states = ["idle"] * len(self.states)

    def run(self, function: object) -> list[int]:
        return [0] * len(self.states)

    def watch(self, look: Callable[[], None]) -> None:
        """Nobody runs anything here."""


def test_the_table_is_there_at_once_and_without_widgets() -> None:
    panel = worker_panel(StandIn("idle", "ended"))
    assert panel.summary.startswith("2 ranks: 1 idle, 1 ended")
    bundle = panel._repr_mimebundle_()
    assert bundle["text/plain"] == panel.summary == repr(panel)
    assert "<table" in bundle["text/html"] and ">40<" in bundle["text/html"]
    assert "spnb-panel-table" in panel._table._dom_classes


def test_refresh_looks_again() -> None:
    pool = StandIn("starting", "starting")
    panel = worker_panel(pool)
    pool.states = ["idle", "idle"]
    panel._refresh.click()
    assert "2 idle" in panel.summary and "starting" not in panel._table.value


def test_restart_waits_for_the_new_processes() -> None:
    pool = StandIn("ended", "idle")
    panel = worker_panel(pool)
    panel._restart.click()
    assert pool.restarts == 1 and "2 idle" in panel.summary and panel.error is None
    assert not panel._restart.disabled


def test_a_running_pool_is_left_alone() -> None:
    pool = StandIn("running", "running")
    panel = worker_panel(pool)
    panel._restart.click()
    assert pool.restarts == 0 and "stop it first" in str(panel.error)
    assert 'role="alert"' in panel._words.value
    panel._refresh.click()
    assert panel.error is None


def test_a_failed_restart_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = StandIn("idle")
    panel = worker_panel(pool)

    def fail() -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(pool, "restart", fail)
    panel._restart.click()
    assert panel.error == "OSError: no more processes" and not panel._restart.disabled


@pytest.mark.slow
@pytest.mark.pool
def test_real_workers_are_replaced() -> None:
    with spnb.WorkerPool(1) as pool:
        panel = worker_panel(pool)
        before = pool.status()[0].pid
        panel._restart.click()
        after = pool.status()[0]
        assert after.pid != before and after.state == "idle"
        pool.close()
        panel._refresh.click()
        assert "1 ended" in panel.summary


@pytest.mark.pool
def test_a_real_pool_is_followed_through_a_training_run() -> None:
    posterior, data = problem(60)
    with spnb.WorkerPool(2) as pool:
        panel = worker_panel(pool)
        seen: list[str] = []
        panel._table.observe(lambda change: seen.append(change["new"]), names="value")
        layout = spnb.Layout(sample=2)
        fitted = pool.run(
            spnb.fit, posterior, data, layout=layout, num_samples=8, epochs=250, batch_size=20
        )[0]
        steps = len(fitted.history.steps)
        assert any(">running<" in table and "samples/s" in table for table in seen), "meanwhile"
        assert f">{steps}/{steps}<" in panel._table.value and ">idle<" in panel._table.value
        loss = f"{fitted.history.steps[-1].loss:.4g}"
        assert f"step {steps} of {steps}" in panel.summary and f"loss {loss}." in panel.summary
        reports = [rank.report for rank in pool.status()]
        assert all(r is not None and r.samples == 4 and r.rate > 0 for r in reports)
        pids = [rank.pid for rank in pool.status()]
        panel._stop.click()
        assert pool.closed and not any(os.path.exists(f"/proc/{pid}") for pid in pids)
        assert "2 ended" in panel.summary
        panel._restart.click()
        assert not pool.closed and "2 idle" in panel.summary
        del panel
        gc.collect()
        assert pool.run(os.getpid) == [rank.pid for rank in pool.status()], "nobody looks on"
