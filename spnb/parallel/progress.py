"""How far the ranks are: one line that training code calls, one small panel that the reader sees.

`report` is cheap enough to be called at every step. In a pool's worker it sends a message to the
notebook, which redraws one output at most ten times a second; in a notebook without a pool, or in
a terminal, it draws by itself; under ``python -m torch.distributed.run`` only rank 0 does.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

INTERVAL = 0.1
"""Seconds between two drawings, and between two reports of one rank."""

_send: Callable[[int, int, int, dict[str, float]], None] | None = None
_last_report = 0.0
_own_panel: Panel | None = None


def report(step: int, total: int, *, samples: int = 0, **metrics: float) -> None:
    """Tell the reader how far this rank is.

    Reports that follow each other too fast are dropped, but never the last one
    (``step == total``).

    Args:
        step: How many steps are done.
        total: How many there are.
        samples: How many weight samples this rank evaluates in a step, for its samples a second.
        metrics: Numbers to show beside the bar, such as ``loss=0.3``.
    """
    global _last_report, _own_panel
    now = time.monotonic()
    if now - _last_report < INTERVAL and step < total:
        return
    _last_report = now
    numbers = {name: float(value) for name, value in metrics.items()}
    if _send is not None:
        _send(step, total, samples, numbers)
        return
    if os.environ.get("RANK", "0") != "0":
        return
    if _own_panel is None or not _own_panel.continues(step, total):
        _own_panel = Panel(1)
    _own_panel.update(0, step, total, samples, numbers)
    if step < total:
        _own_panel.draw()
    else:
        _own_panel.finish("")


def send_to(channel: Callable[[int, int, int, dict[str, float]], None]) -> None:
    """Hand the reports of this process to a function instead of drawing them."""
    global _send
    _send = channel


@dataclass(frozen=True)
class Report:
    """What one rank said last.

    Attributes:
        step: How many steps were done.
        total: How many there are.
        metrics: Numbers by name, such as the loss.
        seconds: Since the start of the run.
        samples: Weight samples that the rank evaluates in a step, 0 if it does not say.
    """

    step: int
    total: int
    metrics: Mapping[str, float]
    seconds: float
    samples: int = 0

    @property
    def rate(self) -> float:
        """Weight samples a second since the start of the run."""
        return self.samples * self.step / max(self.seconds, 1e-9)

    def text(self) -> str:
        """Write it in one line."""
        numbers = "".join(f"  {name} {value:.4g}" for name, value in self.metrics.items())
        minutes, seconds = divmod(int(self.seconds), 60)
        return f"step {self.step}/{self.total}{numbers}  {minutes}:{seconds:02}"


class Panel:
    """The bars of all ranks, drawn as one output of the cell, or as one line in a terminal.

    Attributes:
        reports: What each rank said last.
    """

    def __init__(self, ranks: int) -> None:
        self._ranks = ranks
        self.reports: dict[int, Report] = {}
        self._start = time.monotonic()
        self._cell = _cell()
        self._drawn_at = 0.0
        self._fresh = False
        self._note = ""
        self._handle: Any = None

    def update(
        self, rank: int, step: int, total: int, samples: int, metrics: Mapping[str, float]
    ) -> None:
        """Take a rank's report; it is drawn later."""
        seconds = time.monotonic() - self._start
        self.reports[rank] = Report(step, total, metrics, seconds, samples)
        self._fresh = True

    def draw(self, now_or_never: bool = False) -> None:
        """Draw what is new, unless the last drawing was a moment ago."""
        now = time.monotonic()
        if not self._fresh or (now - self._drawn_at < INTERVAL and not now_or_never):
            return
        self._drawn_at, self._fresh = now, False
        if self._cell is not None:
            self._display()
        elif sys.stderr is not None and sys.stderr.isatty():
            done = all(report.step >= report.total for report in self.reports.values())
            line = "  |  ".join(self.lines())
            sys.stderr.write(f"\r\x1b[K{line}" + ("\n" if done else ""))
            sys.stderr.flush()

    def finish(self, note: str) -> None:
        """Draw the last state, with a word on how it ended."""
        if self.reports:
            self._note, self._fresh = note or "done", True
            self.draw(now_or_never=True)

    def continues(self, step: int, total: int) -> bool:
        """Whether a report belongs to the run that this panel shows."""
        last = self.reports[0]
        return step > last.step and total == last.total and self._cell == _cell()

    def groups(self) -> list[tuple[str, Report]]:
        """Name and report of each bar: one for all ranks where they agree."""
        reports = sorted(self.reports.items())
        same = {(r.step, r.total, tuple(r.metrics.items())) for _, r in reports}
        if len(same) == 1 and len(reports) == self._ranks:
            name = "" if self._ranks == 1 else f"ranks 0–{self._ranks - 1}"
            return [(name, reports[0][1])]
        return [(f"rank {rank}", report) for rank, report in reports]

    def lines(self) -> list[str]:
        """Write the panel as text."""
        return [f"{name}  {report.text()}".strip() for name, report in self.groups()]

    def html(self) -> str:
        """Draw the panel as HTML; text and bars take the theme's colours."""
        rows = "".join(_bar(name, report) for name, report in self.groups())
        running = "■ in the toolbar stops " + ("it" if self._ranks == 1 else "all ranks")
        note = self._note or running
        return (
            '<div style="color: inherit; font-family: var(--jp-ui-font-family, sans-serif); '
            f'font-size: 0.9em; line-height: 1.6">{rows}'
            f'<div style="opacity: 0.65">{escape(note)}</div></div>'
        )

    def _display(self) -> None:
        from IPython.display import display  # here, as it is needed in a notebook only

        bundle = {"text/plain": "\n".join(self.lines()), "text/html": self.html()}
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


def _bar(name: str, report: Report) -> str:
    part = 100 * min(1.0, report.step / max(1, report.total))
    return (
        '<div style="display: flex; align-items: center; gap: 0.8em">'
        f'<span style="white-space: nowrap">{escape(name)}</span>'
        f'<span role="progressbar" aria-valuenow="{part:.0f}" aria-valuemin="0" '
        'aria-valuemax="100" style="flex: 0 0 12em; height: 0.6em; border-radius: 0.3em; '
        'background: rgba(128, 128, 128, 0.3); overflow: hidden">'
        f'<span style="display: block; width: {part:.1f}%; height: 100%; '
        'background: var(--jp-brand-color1, #1976d2)"></span></span>'
        f"<span>{escape(report.text())}</span></div>"
    )


def _cell() -> int | None:
    """Return the number of the notebook cell that is running; None outside a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell.execution_count if shell is not None and hasattr(shell, "kernel") else None
