"""Bars of a step's time by kind, one for each layout, with what it sends and needs beside it.

The pictures of predicted and measured steps, for the layout planner and its notebook.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from spnb.parallel.layout import Layout
from spnb.run.step_cost import Prediction
from spnb.teach import figures


@dataclass(frozen=True)
class Look:
    """How a kind of time is drawn: as a bar by colour and hatching, as a line by the others."""

    colour: str
    hatch: str
    marker: str
    dashes: Any

    @property
    def bar(self) -> dict[str, Any]:
        """Arguments for a bar or a patch."""
        return {"facecolor": self.colour, "hatch": self.hatch, "edgecolor": "black", "lw": 0.7}

    @property
    def line(self) -> dict[str, Any]:
        """Arguments for ``axes.plot``."""
        return {"color": self.colour, "marker": self.marker, "linestyle": self.dashes}


LOOKS = {
    "passes": Look(figures.BLUE, "", "o", "-"),
    "draw": Look(figures.SKY, "///", "s", "--"),
    "update": Look(figures.GREEN, "...", "^", "-."),
    "all-reduce": Look(figures.ORANGE, "\\\\\\", "D", (0, (5, 1, 1, 1, 1, 1))),
    "gather": Look(figures.PURPLE, "xxx", "v", ":"),
}
"""The look of each kind of time that `spnb.run.step_cost.Prediction.parts` names."""

#: where the numbers beside the bars stand, in widths of the axes
_COLUMNS = {"sample × data": -0.03, "a step": 1.22, "sent": 1.45, "memory": 1.68}
_REMARK = 1.72
#: a bar longer than so many times the best one is cut, or nothing would be seen of the best
_LONGEST = 6.0
_CUT: dict[str, Any] = {"marker": ">", "ms": 8, "mfc": "white", "mec": "black", "clip_on": False}
_DIAMOND: dict[str, Any] = {"marker": "D", "ms": 8, "mfc": "white", "mec": "black", "mew": 1.6}


_WHITE: dict[str, Any] = {"facecolor": "white", "edgecolor": "black"}


def handles(measured: bool = False) -> list[Patch]:
    """Entries for a legend: one a kind of time.

    Args:
        measured: whether to add one for what `draw_measured` draws.
    """
    entries = [Patch(label=kind, **look.bar) for kind, look in LOOKS.items()]
    return [*entries, Patch(label="measured", **_WHITE)] if measured else entries


def draw_stack(axes: Axes, place: float, prediction: Prediction, width: float = 0.4) -> None:
    """Draw one step as a standing bar, its parts stacked by kind.

    Args:
        axes: where to draw; its y axis is in milliseconds.
        place: the bar's middle.
        prediction: the step.
        width: of the bar.
    """
    bottom = 0.0
    for kind, seconds in prediction.parts.items():
        axes.bar(place, 1e3 * seconds, width, bottom, **LOOKS[kind].bar)
        bottom += 1e3 * seconds


def draw_measured(axes: Axes, place: float, times: Sequence[float], width: float = 0.4) -> None:
    """Draw measured steps as a standing bar: the median, with whiskers over the middle half.

    Args:
        axes: where to draw.
        place: the bar's middle.
        times: of the steps, in the unit of the y axis; at least two.
        width: of the bar.
    """
    low, middle, high = statistics.quantiles(times, n=4)
    axes.bar(place, middle, width, **_WHITE)
    axes.errorbar(place, middle, [[middle - low], [high - middle]], color="black", capsize=4)


def draw_layouts(
    figure: Figure,
    found: Sequence[Prediction],
    best: Prediction | None,
    seen: Mapping[Layout, float],
) -> None:
    """Draw a lying bar for each layout, stacked by kind, with its numbers beside it.

    Args:
        figure: an empty figure of about 8.8 by 4.3 inches.
        found: a prediction for each layout, in order from above.
        best: which of them to mark, if one fits.
        seen: measured seconds by layout, drawn as diamonds.
    """
    axes = figure.subplots()
    figure.subplots_adjust(left=0.14, right=0.53, top=0.84, bottom=0.12)
    shortest = min(p.seconds for p in found) if best is None else best.seconds
    longest = max(p.seconds for p in found)
    end = 1e3 * max(min(1.04 * longest, _LONGEST * shortest), *(1.05 * s for s in seen.values()), 0)
    _draw_parts(axes, found)
    for place, p in enumerate(found):
        if 1e3 * p.seconds > end:
            axes.plot(end, place, **_CUT)
        cells = (
            f"{p.layout.sample} × {p.layout.data}",
            human_time(p.seconds),
            human_bytes(p.bytes_per_step),
            human_bytes(p.memory),
        )
        look = {"weight": "bold" if p is best else "normal"}
        look |= {"color": figures.BLACK if p.fits else figures.GREY}
        for at, cell in zip(_COLUMNS.values(), cells, strict=True):
            _beside(axes, at, place, cell, ha="right", **look)
        remark = "★ best" if p is best else "" if p.fits else "✗ does not fit"
        _beside(axes, _REMARK, place, remark, ha="left", **look)
    for head, at in _COLUMNS.items():
        axes.text(at, 1.015, head, transform=axes.transAxes, ha="right", color=figures.GREY)
    for place, p in enumerate(found):
        if p.layout in seen:
            axes.plot(1e3 * seen[p.layout], place, **_DIAMOND)
    axes.set(
        xlim=(0, end),
        ylim=(max(len(found), 3) - 0.5, -0.5),
        yticks=[],  # names of layouts are texts: eleven ticks would take long to make
        xlabel="predicted time of a step in ms",
    )
    legend: list[Any] = [*handles()]
    if longest > end / 1e3:
        legend.append(Line2D([], [], linestyle="none", label="goes on", **_CUT))
    if seen:
        legend.append(Line2D([], [], linestyle="none", label="measured", **_DIAMOND))
    figure.legend(handles=legend, loc="upper left", ncols=7, columnspacing=1.3, handletextpad=0.5)


def _draw_parts(axes: Axes, found: Sequence[Prediction]) -> None:
    """The bars themselves: all parts of a kind as one collection, which is quick to draw."""
    parts: dict[tuple[str, bool], list[list[tuple[float, float]]]] = {}
    for place, p in enumerate(found):
        left = 0.0
        for kind, seconds in p.parts.items():
            right = left + 1e3 * seconds
            low, high = place - 0.37, place + 0.37
            corners = [(left, low), (right, low), (right, high), (left, high)]
            if seconds:
                parts.setdefault((kind, p.fits), []).append(corners)
            left = right
    for (kind, fits), boxes in parts.items():
        look = LOOKS[kind].bar
        if not fits:
            look |= {"alpha": 0.3, "hatch": "", "linestyle": "--"}
        bars = PolyCollection(boxes, label=f"_{kind}", **look)
        axes.add_collection(bars, autolim=False)


def _beside(axes: Axes, at: float, place: int, text: str, **look: Any) -> None:
    """Text right of the axes, level with a bar."""
    if text:
        axes.text(at, place, text, transform=axes.get_yaxis_transform(), va="center", **look)


def human_time(seconds: float) -> str:
    """Seconds in a unit that keeps the number short."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def human_bytes(size: float) -> str:
    """Bytes in a unit that keeps the number short; a kB is 1,000 bytes."""
    for unit, one in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= one:
            return f"{size / one:.3g} {unit}"
    return f"{size:.0f} B"
