"""The look of all figures of the course, and how they come into a notebook.

Colours are those of Okabe and Ito (*Color Universal Design*, 2008), which all common kinds of
colour vision tell apart; lines differ in their dashes and points in their shape as well. Figures
bring their own white ground, so they read on any page. On a dark page of JupyterLab drawings turn
dark: lightness is turned over, hues stay, so that what the text calls blue is blue. Photographs and
maps stay as they are. Importing this module sets matplotlib's defaults accordingly.

Figures are plain `matplotlib.figure.Figure` objects that pyplot does not know of: nothing is shown
twice, and nothing has to be closed. `show` gives them their alt text.
"""

from __future__ import annotations

import base64
import html
import sys
from collections.abc import Iterable
from io import BytesIO
from typing import Any

import matplotlib
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

BLACK, GREY = "#000000", "#767676"
ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"

#: for lines and points in order; yellow and black are left for fills and for data
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))

SCREEN_DPI = 96  # what browsers call an inch
PNG_DPI = 144  # half as fine again, for sharp screens
FAST_DPI = 120  # for figures that follow a slider

DARK = (
    "<style>[data-jp-theme-light='false'] img.spnb-drawing"
    "{filter:invert(0.93) hue-rotate(180deg)}</style>"
)
"""What turns a drawing dark where JupyterLab is; other pages leave it as it is."""

matplotlib.rcParams.update(
    {
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        "axes.facecolor": "white",
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same on every machine
        "font.size": 11,
        "axes.titlesize": 11.5,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "axes.titley": 1.0,  # looking for its place would take a fifth of a drawing
        "axes.labelsize": 11,
        "xtick.labelsize": 10,
        "ytick.labelsize": 10,
        "legend.fontsize": 9.5,
        "legend.edgecolor": "none",
        "legend.framealpha": 0.9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#E4E4E4",
        "grid.linewidth": 0.8,
        "lines.linewidth": 1.8,
        "lines.markersize": 5,
        "image.cmap": "cividis",
        # Where no layout engine sees to it (explorables): room for labels and a title.
        "figure.subplot.left": 0.10,
        "figure.subplot.right": 0.98,
        "figure.subplot.bottom": 0.14,
        "figure.subplot.top": 0.90,
        "axes.prop_cycle": cycler(color=COLOURS) + cycler(linestyle=LINES),
    }
)


def look(index: int, marker: bool = True) -> dict[str, Any]:
    """Colour, dashes and marker of the line number ``index``, as arguments for ``axes.plot``.

    Args:
        index: the line's number, from 0; starts anew after six.
        marker: whether to mark the points.
    """
    number = index % len(COLOURS)
    style: dict[str, Any] = {"color": COLOURS[number], "linestyle": LINES[number]}
    return style | ({"marker": MARKERS[number]} if marker else {})


def new(
    width: float = 7.2, height: float = 3.4, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, Any]:
    """A figure in the course's look.

    Args:
        width: in inches of 96 screen pixels.
        height: likewise.
        rows: rows of axes.
        columns: columns of axes.
        **options: for ``Figure.subplots``, such as ``sharey=True``.

    Returns:
        The figure and its axes: one `Axes`, or an array of them as ``Figure.subplots`` gives it.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def footnote(figure: Figure, text: str) -> None:
    """A small line under a figure: the seed, the number of samples, the source of the data.

    Args:
        figure: a figure made by `new`.
        text: one line.
    """
    engine = figure.get_layout_engine()
    room = 0.18 / figure.get_figheight()
    if engine is not None:
        engine.set(rect=(0, room, 1, 1 - room))  # type: ignore[call-arg]
    figure.text(0.995, 0.01, text, ha="right", va="bottom", fontsize=8.5, color=GREY)


def band(
    axes: Axes, x: Any, low: Any, high: Any, *, colour: str, label: str, strength: float = 0.3
) -> None:
    """A shaded band with thin edges, which still shows where colours do not.

    Args:
        axes: where to draw.
        x: positions ``[N]``.
        low: lower edge ``[N]``.
        high: upper edge ``[N]``.
        colour: of band and edges.
        label: for the legend.
        strength: opacity of the band, 0 to 1.
    """
    axes.fill_between(x, low, high, color=colour, alpha=strength, lw=0, label=label)
    for edge in (low, high):
        axes.plot(x, edge, color=colour, lw=0.8, alpha=min(1.0, 2 * strength), linestyle="-")


def png(figure: Figure, dpi: int = PNG_DPI) -> bytes:
    """A figure as a PNG file.

    Args:
        figure: the figure.
        dpi: its pixels an inch.
    """
    file = BytesIO()
    # Little compression: a slider's figure should follow the hand.
    figure.savefig(file, format="png", dpi=dpi, pil_kwargs={"compress_level": 1})
    return file.getvalue()


def is_drawing(figure: Figure) -> bool:
    """Whether a figure consists of lines and areas alone: no photograph, no map of colours."""
    return not any(
        axes.images or any(isinstance(c, QuadMesh) for c in axes.collections)
        for axes in figure.axes
    )


def image_tag(
    picture: bytes,
    alt: str,
    size: Iterable[float],
    drawing: bool,
    onload: str = "",
    **data: object,
) -> str:
    """An ``<img>`` element that holds a PNG.

    Args:
        picture: the PNG file.
        alt: what the figure shows, for those who cannot see it.
        size: width and height, in inches.
        drawing: whether it turns dark on a dark page.
        onload: JavaScript to run when it is on the page.
        **data: further ``data-...`` attributes.
    """
    width, height = size
    kind = "spnb-drawing" if drawing else "spnb-picture"
    extra = "".join(f' data-{name}="{html.escape(str(value))}"' for name, value in data.items())
    if onload:
        extra += f' onload="{html.escape(onload)}"'
    # Decoded in step with the page, so that a figure that is replaced does not flicker.
    return (
        f'{DARK}<img class="{kind}" alt="{html.escape(alt)}" width="{width * SCREEN_DPI:.0f}" '
        f'height="{height * SCREEN_DPI:.0f}" decoding="sync"{extra} '
        'style="max-width:100%; height:auto; background:white; border-radius:4px" '
        f'src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
    )


class Picture:
    """A rendered figure: an image for a page, its alt text wherever there is only text.

    Args:
        figure: the figure; it is drawn at once.
        alt: what it shows, for those who cannot see it.

    Attributes:
        png: the image as a PNG file.
        alt: the alt text.
    """

    def __init__(self, figure: Figure, alt: str) -> None:
        if not alt.strip():
            raise ValueError("alt is empty: say in a sentence what the figure shows.")
        self.alt = " ".join(alt.split())
        self.png = png(figure)
        self._tag = image_tag(self.png, self.alt, figure.get_size_inches(), is_drawing(figure))

    def _repr_html_(self) -> str:
        return self._tag

    def __repr__(self) -> str:
        return self.alt


def show(figure: Figure, alt: str) -> None:
    """Show a figure in the notebook, once, and close it.

    Args:
        figure: the figure.
        alt: what it shows, for those who cannot see it: a sentence or two, with its numbers.
    """
    display(Picture(figure, alt))
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close(figure)
