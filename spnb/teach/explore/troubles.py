"""The trouble explorer: runs that went wrong and the same runs mended, and how to tell them apart.

Nothing is trained here: each run is known by its symptoms (`spnb.teach.symptoms`).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from spnb.teach import figures
from spnb.teach.controls import buttons
from spnb.teach.explorable import Explorable
from spnb.teach.symptoms import Symptoms

STATES = ("as it went wrong", "mended")
BINS = torch.logspace(-3, 1, 33)


def trouble_explorer(troubles: Mapping[str, tuple[Symptoms, Symptoms]]) -> Explorable:
    """The explorable: choose a trouble, and the run that went wrong or the mended one.

    Both runs are drawn as curves, the chosen one strong. The histogram is of the chosen one alone.

    Args:
        troubles: the run that went wrong and the mended one, by name.

    Raises:
        ValueError: there are none.
    """
    if not troubles:
        raise ValueError("There are no troubles: give at least one pair of runs.")

    def draw(figure: Figure, trouble: str, run: str) -> str:
        chosen = STATES.index(run)
        panels = figure.subplots(1, 3)
        figure.subplots_adjust(left=0.08, right=0.985, top=0.88, bottom=0.16, wspace=0.36)
        for place, each in enumerate(troubles[trouble]):
            _curves(panels[:2], each, place, place == chosen)
        panels[0].set(xlabel="step", ylabel="nats a row", title="data term")
        panels[1].set(xlabel="step", title="KL / N")
        panels[1].set_yscale("log")
        panels[1].yaxis.set_major_formatter("{x:g}")
        panels[1].yaxis.set_minor_formatter(NullFormatter())
        panels[1].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panels[0].legend()
        shown = troubles[trouble][chosen]
        panels[2].hist(shown.widths.clamp(BINS[0], BINS[-1]), BINS, color=figures.SKY, ec="white")
        panels[2].set_xscale("log")
        panels[2].axvline(1, color=figures.BLACK, ls="--", lw=1.2)
        panels[2].set(xlabel="width of a weight / its prior's", ylabel="weights", title="widths")
        return f"{trouble}, {run}: {shown}."

    return Explorable(
        "troubles",
        draw,
        width=9.8,
        height=3.6,
        trouble=buttons(list(troubles), description="trouble", width="auto"),
        run=buttons(STATES, description="run", width="auto"),
    )


def _curves(axes: tuple[Axes, Axes], run: Symptoms, place: int, strong: bool) -> None:
    """Data term and KL by step, smoothed a little."""
    look = figures.look(place, marker=False)
    look |= {"lw": 2.0 if strong else 1.0, "alpha": 1.0 if strong else 0.75}
    steps = run.history.steps
    window = max(1, len(steps) // 60)
    for ax, values in zip(
        axes,
        ([s.data_term for s in steps], [s.divergence / run.rows for s in steps]),
        strict=True,
    ):
        means = torch.tensor([sum(part) / len(part) for part in _parts(values, window)])
        ax.plot([window * i for i in range(len(means))], means, label=STATES[place], **look)


def _parts(values: list[float], size: int) -> list[list[float]]:
    return [values[at : at + size] for at in range(0, len(values), size)]
