"""The pool's panel in the notebook: a small table of its ranks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from spnb.parallel.pool.process import RankStatus
from spnb.parallel.progress import Report

_CELL = "padding: 0.1em 1em 0.1em 0; text-align: left; background: none;"


def table(title: str, ranks: Sequence[RankStatus]) -> str:
    """Draw the ranks as an HTML table; colours are the theme's own."""
    heads = ("rank", "device", "threads", "process", "memory", "state")
    told = any(rank.report for rank in ranks)
    rows = [_row("th", heads + (("step", "samples/s", "loss") if told else ()))]
    for rank in ranks:
        rows.append(
            _row(
                "td",
                (
                    str(rank.rank),
                    rank.device,
                    str(rank.threads),
                    "–" if rank.pid is None else str(rank.pid),
                    f"{rank.memory / 2**20:.0f} MB" if rank.memory else "–",
                    rank.state,
                    *(_told(rank.report) if told else ()),
                ),
            )
        )
    return (
        f'<div style="color: inherit"><b>{escape(title)}</b>'
        f'<table style="border: none; margin: 0.3em 0">{"".join(rows)}</table></div>'
    )


def _told(report: Report | None) -> tuple[str, str, str]:
    """What a rank told of its progress."""
    if report is None:
        return "–", "–", "–"
    loss = report.metrics.get("loss")
    return (
        f"{report.step}/{report.total}",
        f"{report.rate:,.0f}" if report.samples else "–",
        "–" if loss is None else f"{loss:.4g}",
    )


def _row(tag: str, cells: Iterable[str]) -> str:
    return (
        '<tr style="background: none">'
        + "".join(f'<{tag} style="{_CELL}">{escape(cell)}</{tag}>' for cell in cells)
        + "</tr>"
    )
