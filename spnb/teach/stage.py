"""A figure whose axes stay from one drawing to the next.

Most of the time of a small figure goes into its axes: ticks, their labels, and where all that
belongs. A `Stage` keeps them as long as the same axes are asked for, and takes away only what was
drawn on them. The code that draws needs to know nothing of this.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import AutoLocator, FixedLocator, ScalarFormatter
from matplotlib.transforms import Bbox


class Stage(Figure):
    """A figure to be drawn again and again: before each drawing, `sweep` it.

    Labels, titles, limits and ticks go as well. What else a drawing sets of its axes (a scale, a
    grid, spines) holds until it is set again: either each drawing sets it, or none does.

    Args:
        width: in inches.
        height: likewise.
    """

    def __init__(self, width: float, height: float) -> None:
        # No layout engine: it would double the time of a drawing.
        super().__init__(figsize=(width, height))
        self._plan: Any = None
        self._made: Any = None
        self._number = 0

    def sweep(self) -> None:
        """Take away all that was drawn, and hide the axes until they are asked for."""
        _remove(self.texts, self.legends, self.lines, self.patches, self.images, self.artists)
        for axes in self.axes:
            _empty(axes)
            axes.set_visible(False)

    def subplots(self, *shape: Any, **options: Any) -> Any:
        """As `Figure.subplots`; the axes of the last drawing if it asked for the same."""
        plan = shape, options
        if plan != self._plan or len(self.axes) != self._number:
            self.clear()  # other axes, or some were added, such as a colour bar's
            self._made, self._plan = super().subplots(*shape, **options), plan
            self._number = len(self.axes)
        for axes in self.axes:
            axes.set_visible(True)
        return self._made


def _empty(axes: Axes) -> None:
    axes.containers.clear()  # of bars, which the legend would still list
    _remove(axes.lines, axes.patches, axes.collections, axes.images, axes.texts, axes.artists)
    legend = axes.get_legend()
    if legend is not None:
        legend.remove()
    axes.set(title="", xlabel="", ylabel="")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_inverted(False)
        if isinstance(axis.get_major_locator(), FixedLocator):  # ticks were set by hand
            axis.set_major_locator(AutoLocator())
            axis.set_major_formatter(ScalarFormatter())
    axes.set_prop_cycle(None)
    axes.dataLim = Bbox.null()
    axes.ignore_existing_data_limits = True
    axes.autoscale(True)


def _remove(*kinds: Any) -> None:
    artist: Artist
    for artist in list(chain(*kinds)):
        artist.remove()
