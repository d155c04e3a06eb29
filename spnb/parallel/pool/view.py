"""The pool's panel in the notebook: a small table of its ranks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from spnb.parallel.pool.process import RankStatus

_CELL = "padding: 0.1em 1em 0.1em 0; text-align: left; background: none;"


def table(title: str, ranks: Sequence[RankStatus]) -> str:
    """Draw the ranks as an HTML table; colours are the theme's own."""
    heads = ("rank", "device", "threads", "process", "memory", "state")
    rows = [_row("th", heads)]
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
                ),
            )
        )
    return (
        f'<div style="color: inherit"><b>{escape(title)}</b>'
        f'<table style="border: none; margin: 0.3em 0">{"".join(rows)}</table></div>'
    )


def _row(tag: str, cells: Sequence[str]) -> str:
    return (
        '<tr style="background: none">'
        + "".join(f'<{tag} style="{_CELL}">{escape(cell)}</{tag}>' for cell in cells)
        + "</tr>"
    )
