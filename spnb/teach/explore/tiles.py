"""The tile board: how a layout cuts the work of S samples on B rows into tiles, one a rank.

The board draws what `spnb.Layout.tile` returns, the function that training itself uses. Every
tile has a colour and the number of its rank, so it reads without colours too.
"""

from __future__ import annotations

from ipywidgets import IntSlider
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from spnb.parallel.layout import Layout
from spnb.teach import figures
from spnb.teach.explorable import Explorable

#: after six ranks the colours start anew, with another hatching
HATCHES = ("", "///", "...", "xxx")


def draw_tiles(axes: Axes, layout: Layout, num_samples: int, num_rows: int) -> None:
    """Draw the S x B board of a layout.

    Args:
        axes: where to draw.
        layout: how many ranks share samples and rows.
        num_samples: S, down the board.
        num_rows: B, across it.
    """
    for rank in range(layout.size):
        tile = layout.tile(rank, num_samples, num_rows)
        if not tile.samples or not tile.rows:
            continue
        corner = (tile.rows.start - 0.5, tile.samples.start - 0.5)
        size = (len(tile.rows), len(tile.samples))
        colour = figures.COLOURS[rank % len(figures.COLOURS)]
        hatch = HATCHES[rank // len(figures.COLOURS) % len(HATCHES)]
        axes.add_patch(Rectangle(corner, *size, facecolor=colour, alpha=0.45, lw=0))
        axes.add_patch(
            Rectangle(corner, *size, fill=False, edgecolor="black", lw=1.6, hatch=hatch, zorder=3)
        )
        axes.text(
            corner[0] + size[0] / 2,
            corner[1] + size[1] / 2,
            f"rank {rank}" if len(tile.rows) > num_rows / 8 else str(rank),
            ha="center",
            va="center",
            fontsize=11 if len(tile.samples) > num_samples / 16 else 8,
            fontweight="bold",
            zorder=4,
            bbox={"facecolor": "white", "alpha": 0.8, "lw": 0, "pad": 1.5},
        )
    axes.set(
        xlim=(-0.5, num_rows - 0.5),
        ylim=(num_samples - 0.5, -0.5),
        xlabel=f"rows of the batch (B = {num_rows})",
        ylabel=f"weight samples (S = {num_samples})",
        xticks=_ticks(num_rows),
        yticks=_ticks(num_samples),
    )
    axes.grid(False)
    rows = [edge - 0.5 for edge in range(1, num_rows)]
    samples = [edge - 0.5 for edge in range(1, num_samples)]
    axes.vlines(rows, -0.5, num_samples - 0.5, color="white", lw=0.7, zorder=2)
    axes.hlines(samples, -0.5, num_rows - 0.5, color="white", lw=0.7, zorder=2)


def describe(layout: Layout, num_samples: int, num_rows: int) -> str:
    """What there is to see on the board, in a few sentences."""
    tiles = [layout.tile(rank, num_samples, num_rows) for rank in range(layout.size)]
    sizes = [len(tile.samples) * len(tile.rows) for tile in tiles]
    total, largest = num_samples * num_rows, max(sizes)
    ranks = "1 rank" if layout.size == 1 else f"{layout.size} ranks"
    text = f"{layout} = {ranks} for {num_samples} × {num_rows} = {total} evaluations. "
    if layout.size == 1:
        return text + "One rank does them all."
    if min(sizes) == largest:
        text += f"Every tile has {largest}: all ranks finish together."
    else:
        busy = 100 * total / (largest * layout.size)
        text += (
            f"Tiles differ: the largest has {largest}, the smallest {min(sizes)}. All ranks wait "
            f"for the largest, so on average they are busy {busy:.0f} % of the time. "
            "No evaluation is lost."
        )
    try:
        layout.check_work(num_samples, num_rows)
    except ValueError as refusal:
        text += f" spnb.fit refuses this layout: {refusal}"
    return text


def tile_board(
    samples: int = 8, rows: int = 16, sample_ranks: int = 2, data_ranks: int = 1
) -> Explorable:
    """The explorable: sliders for S, B and the two axes of the layout.

    Args:
        samples: S at the beginning, 1 to 24.
        rows: B at the beginning, 1 to 32.
        sample_ranks: ranks along ``sample`` at the beginning, 1 to 8.
        data_ranks: ranks along ``data`` at the beginning, 1 to 4.
    """

    def draw(figure: Figure, samples: int, rows: int, sample_ranks: int, data_ranks: int) -> str:
        layout = Layout(sample=sample_ranks, data=data_ranks)
        axes = figure.subplots()
        draw_tiles(axes, layout, samples, rows)
        idle = max(0, sample_ranks - samples) * data_ranks
        idle += max(0, data_ranks - rows) * min(sample_ranks, samples)
        title = f"Layout(sample={sample_ranks}, data={data_ranks})"
        axes.set_title(title + (f": {idle} of {layout.size} ranks idle" if idle else ""))
        return describe(layout, samples, rows)

    return Explorable(
        "tiles",
        draw,
        height=3.9,
        samples=IntSlider(samples, min=1, max=24, description="samples S"),
        rows=IntSlider(rows, min=1, max=32, description="rows B"),
        sample_ranks=IntSlider(sample_ranks, min=1, max=8, description="sample ="),
        data_ranks=IntSlider(data_ranks, min=1, max=4, description="data ="),
    )


def _ticks(count: int) -> list[int]:
    step = 1 if count <= 12 else 2 if count <= 20 else 4
    return list(range(0, count, step))
