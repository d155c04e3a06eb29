"""The worker panel: which processes stand behind the notebook, and how they are.

A table of rank, device, process, memory and state, and of training: steps, weight samples a second
and the loss. While a cell runs, the table follows it by itself; what stops a run then is the stop
button of the notebook's own toolbar. Between cells three buttons serve:
*refresh* looks again, *stop* ends all processes, *restart* starts new ones.
"""

from __future__ import annotations

import html
import os
from typing import Any

from ipywidgets import HTML, Button, HBox, VBox

from spnb.parallel.pool import WorkerPool
from spnb.parallel.pool.process import RankStatus
from spnb.parallel.pool.view import table
from spnb.teach.explorable import KEYS_ARE_OURS

KEYS = f'<style onload="{KEYS_ARE_OURS}"></style>'
HINT = "Buttons act between cells. While a cell runs, ■ in the toolbar stops all ranks."


class WorkerPanel:
    """A pool's ranks as a table with three buttons.

    For tests in a browser the widgets have CSS classes: ``spnb-panel`` for the whole,
    ``spnb-panel-refresh``, ``spnb-panel-stop``, ``spnb-panel-restart``, ``spnb-panel-table`` and
    ``spnb-panel-summary``.

    Args:
        pool: the pool to look at; it may be closed.

    Attributes:
        widget: the whole, an ipywidget.
        summary: the pool's state in one sentence.
        error: what went wrong at the last click, None if nothing did.
    """

    def __init__(self, pool: WorkerPool) -> None:
        self.pool = pool
        self.summary = ""
        self.error: str | None = None
        self._refresh = Button(description="Refresh", tooltip="Look at all ranks again")
        self._stop = Button(description="Stop", tooltip="End all processes")
        self._restart = Button(description="Restart", tooltip="End all processes, start new ones")
        self._table, self._words = HTML(), HTML()
        for name, widget in (
            ("refresh", self._refresh),
            ("stop", self._stop),
            ("restart", self._restart),
            ("table", self._table),
            ("summary", self._words),
        ):
            widget.add_class(f"spnb-panel-{name}")
        self._refresh.on_click(self.refresh)
        self._stop.on_click(self.stop)
        self._restart.on_click(self.restart)
        buttons = HBox([self._refresh, self._stop, self._restart])
        self.widget = VBox([self._table, buttons, self._words])
        for name in ("spnb-panel", "spnb-explorable"):
            self.widget.add_class(name)
        self.refresh()
        pool.watch(self.refresh)

    def refresh(self, _: Any = None) -> None:
        """Look at all ranks again."""
        ranks = self.pool.status()
        states = [rank.state for rank in ranks]
        alive = [rank for rank in ranks if rank.pid is not None]
        memory = sum(rank.memory for rank in alive) / 2**20
        found = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states))
        self.summary = (
            f"{len(ranks)} ranks: {found}. Their processes hold {memory:.0f} MB of memory."
            + self._progress(ranks)
        )
        self.error = None
        self._table.value = KEYS + table("Worker panel", ranks)
        self._say(f"{self.summary} {HINT}")

    @staticmethod
    def _progress(ranks: list[RankStatus]) -> str:
        """A sentence on the last training, if there was one."""
        reports = [rank.report for rank in ranks if rank.report is not None]
        if not reports:
            return ""
        rate, last = sum(report.rate for report in reports), min(reports, key=lambda r: r.step)
        speed = f", {rate:,.0f} weight samples a second on all ranks" if rate else ""
        loss = f", loss {last.metrics['loss']:.4g}" if "loss" in last.metrics else ""
        return f" Training: step {last.step} of {last.total}{speed}{loss}."

    def stop(self, _: Any = None) -> None:
        """End all processes; they take no memory then, until they are restarted."""
        if self._idle():
            self.pool.close()
            self.refresh()

    def _idle(self) -> bool:
        """Whether no run is in progress; says so otherwise."""
        if any(rank.state == "running" for rank in self.pool.status()):
            self._fail("A run is in progress: stop it first (■ in the toolbar).")
            return False
        return True

    def restart(self, _: Any = None) -> None:
        """End all processes, start new ones, and wait until they answer."""
        if not self._idle():
            return
        self._refresh.disabled = self._restart.disabled = True
        self._say("Starting new processes, a few seconds ...")
        try:
            self.pool.restart()
            self.pool.run(os.getpid)
        except Exception as error:
            self.refresh()
            self._fail(f"{type(error).__name__}: {error}")
        else:
            self.refresh()
        finally:
            self._refresh.disabled = self._restart.disabled = False

    def _say(self, text: str) -> None:
        self._words.value = f'<p style="opacity: 0.8">{html.escape(text)}</p>'

    def _fail(self, text: str) -> None:
        self.error = text
        self._words.value = (
            '<p role="alert" style="border-left: 4px solid #D55E00; padding-left: 8px">'
            f"{html.escape(text)}</p>"
        )

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The live panel where there is a kernel; otherwise the table as it was."""
        bundle = self.widget._repr_mimebundle_(**kwargs)
        return {**bundle, "text/html": self._table.value, "text/plain": self.summary}

    def __repr__(self) -> str:
        return self.summary


def worker_panel(pool: WorkerPool) -> WorkerPanel:
    """The worker panel of a pool.

    Args:
        pool: the pool to look at.
    """
    return WorkerPanel(pool)
