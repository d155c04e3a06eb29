"""The worker panel: the table, the two buttons, and a closed pool."""

from __future__ import annotations

import pytest

import spnb
from spnb.parallel.pool.process import RankStatus
from spnb.teach.explore.panel import worker_panel


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
