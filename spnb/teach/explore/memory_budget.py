"""The memory budget: what a GPU of each layout must hold, part by part, and on which cards it fits.

Predicted from counted passes (`spnb.run.memory`), not run.
"""

from __future__ import annotations

from collections.abc import Mapping

from ipywidgets import Dropdown, SelectionSlider
from matplotlib.figure import Figure

from spnb.maths.objectives import ELBO, PredictiveNLL
from spnb.parallel.layout import Layout
from spnb.run.footprint import Footprint
from spnb.run.memory import Memory, of_rank
from spnb.teach import figures
from spnb.teach.controls import buttons
from spnb.teach.explorable import Explorable

CARDS = (24, 40, 80)
"""Memory of common GPUs, in GB."""

WAYS = ("one by one", "all graphs kept", "all at once")
"""How a rank evaluates its samples; the second for an objective that needs all predictions."""

HATCHES = ("", "//", "..", "xx", "\\\\", "--")
SIZES = tuple(2**n for n in range(8))
BATCHES = (8, 16, 32, 64, 128, 256)


def budget(found: Footprint, layout: Layout, samples: int, rows: int, way: str) -> Memory:
    """What the fullest rank needs in one of the ways.

    Args:
        found: sizes of the network, and bytes of its passes.
        layout: how the ranks share samples and rows.
        samples: S, over all ranks.
        rows: B, over all ranks.
        way: one of `WAYS`.
    """
    objective = PredictiveNLL() if way == "all graphs kept" else ELBO()
    at_once = samples if way == "all at once" else 1
    return of_rank(found, layout, samples, rows, objective, at_once)


def memory_budget(
    networks: Mapping[str, Footprint], ranks: int = 8, samples: int = 16, rows: int = 16
) -> Explorable:
    """The explorable: choose network, S, B and way; see what a rank of each layout needs.

    Args:
        networks: footprints by name; the last one is shown first.
        ranks: number of GPUs, a power of two.
        samples: S at the beginning.
        rows: B at the beginning.

    Raises:
        ValueError: the number of GPUs is no power of two, or S or B are none of the choices.
    """
    if ranks < 1 or ranks & (ranks - 1):
        raise ValueError(f"ranks={ranks} must be a power of two, so that layouts are even.")
    if samples not in SIZES or rows not in BATCHES:
        raise ValueError(f"samples={samples} and rows={rows} must be in {SIZES} and {BATCHES}.")
    shapes = [2**n for n in range(ranks.bit_length())]
    layouts = [Layout(), *(Layout(sample=n, data=ranks // n) for n in shapes)]

    def draw(figure: Figure, network: str, samples: int, rows: int, way: str) -> str:
        fitting = [w for w in layouts if w.sample <= samples and w.data <= rows]
        found = {w: budget(networks[network], w, samples, rows, way) for w in fitting}
        axes = figure.subplots()
        figure.subplots_adjust(left=0.19, right=0.97, top=0.8, bottom=0.16)
        places = range(len(found))
        left = [0.0] * len(found)
        for index, part in enumerate(next(iter(found.values())).parts):
            widths = [memory.parts[part] / 1e9 for memory in found.values()]
            axes.barh(places, widths, 0.7, left, label=part, color=figures.COLOURS[index],
                      hatch=HATCHES[index], ec="white", lw=0.5)  # fmt: skip
            left = [a + b for a, b in zip(left, widths, strict=True)]
        longest = max(left)
        for place, total in zip(places, left, strict=True):
            axes.text(total + 0.01 * longest, place, f"{total:.3g}", va="center", fontsize=9)
        for card in CARDS:
            if card < 1.6 * longest:
                axes.axvline(card, color=figures.BLACK, ls="--", lw=1)
                axes.text(card, len(found) - 0.45, f"{card} GB", ha="center", fontsize=9)
        names = ["one GPU", *(f"{w.sample} × {w.data}" for w in found if w.size > 1)]
        axes.set_yticks(places, names)
        axes.set(xlabel="GB a GPU, predicted", ylabel="layout, samples × data")
        axes.set_xlim(0, 1.12 * longest)
        axes.grid(axis="y", visible=False)
        figure.legend(ncols=6, loc="upper center", fontsize=9, columnspacing=1.2)
        figure.subplots_adjust(left=0.12, top=0.86)
        return describe(network, samples, rows, way, found)

    style = {"description_width": "70px"}
    return Explorable(
        "memory",
        draw,
        width=8.4,
        height=4.2,
        network=Dropdown(
            options=list(networks), value=list(networks)[-1], description="network", style=style
        ),
        samples=SelectionSlider(options=SIZES, value=samples, description="samples S", style=style),
        rows=SelectionSlider(options=BATCHES, value=rows, description="rows B", style=style),
        way=buttons(WAYS, description="evaluated", width="130px"),
    )


def describe(
    network: str, samples: int, rows: int, way: str, found: Mapping[Layout, Memory]
) -> str:
    """Which card the whole fits on by itself, and which of the layouts fit on it otherwise."""
    totals = {layout: memory.total / 1e9 for layout, memory in found.items()}
    alone, *shared = totals.items()
    text = f"{network}, S = {samples}, B = {rows}, {way}: one GPU alone needs {alone[1]:.3g} GB"
    card = next((c for c in CARDS if alone[1] <= c), None)
    text += f", so a card of {card} GB is enough." if card else ", more than any of the cards has."
    if not shared:
        return text + " No layout of all GPUs gives each of them something to do."
    layout, least = min(shared, key=lambda item: item[1])
    most = max(shared, key=lambda item: item[1])
    return (
        f"{text} Of the layouts {layout.sample} × {layout.data} needs least, {least:.3g} GB a GPU, "
        f"and {most[0].sample} × {most[0].data} most, {most[1]:.3g} GB."
    )
