"""Explorables that a pointer can touch: the figure is an ipympl canvas, which tells where it is.

What the pointer does there must be possible by keyboard as well: give controls for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ipympl.backend_nbagg import Canvas, FigureManager
from ipywidgets import HBox, Widget
from ipywidgets import Layout as Box
from matplotlib.backend_bases import MouseEvent

from spnb.teach.explorable import KEYS_ARE_OURS, Draw, Explorable
from spnb.teach.figures import FAST_DPI, png


class Touchable(Explorable):
    """An explorable with a canvas in place of the picture.

    Args:
        name: as for `Explorable`.
        draw: likewise.
        on_press: ``(x, y) -> None``, called where a button of the pointer goes down, in the
            coordinates of the axes that it is over.
        on_drag: likewise, while it is held.
        buttons: further widgets to show under the controls, which have no value.
        **options: as for `Explorable`.
    """

    def __init__(
        self,
        name: str,
        draw: Draw,
        *,
        on_press: Callable[[float, float], None],
        on_drag: Callable[[float, float], None],
        buttons: Sequence[Widget] = (),
        **options: Any,
    ) -> None:
        super().__init__(name, draw, **options)
        row = HBox(list(buttons), layout=Box(flex_flow="row wrap"))
        self.widget.children = (self.widget.children[0], row, *self.widget.children[1:])
        held = False

        def press(event: MouseEvent) -> None:
            nonlocal held
            held = event.inaxes is not None
            if held:
                self.touch(on_press, event)

        def move(event: MouseEvent) -> None:
            if held and event.inaxes is not None:
                self.touch(on_drag, event)

        def release(_: MouseEvent) -> None:
            nonlocal held
            held = False

        canvas = self.figure.canvas
        canvas.mpl_connect("button_press_event", press)
        canvas.mpl_connect("motion_notify_event", move)
        canvas.mpl_connect("button_release_event", release)

    def touch(self, do: Callable[[float, float], None], event: MouseEvent) -> None:
        """Do something where the pointer is, and draw; an error is shown under the figure."""
        x, y = event.xdata, event.ydata
        if x is not None and y is not None:
            self.act(lambda: do(x, y))

    def _screen(self) -> Widget:
        canvas = Canvas(self.figure)
        FigureManager(canvas, 0)
        canvas.header_visible = canvas.footer_visible = canvas.resizable = False
        canvas.toolbar_visible = False
        canvas.layout = Box(max_width="100%")
        return canvas

    def _render(self) -> bytes:
        self.figure.canvas.draw()  # and the canvas sends what has changed
        return b""

    def _put(self) -> None:
        """All is done."""

    @property
    def png(self) -> bytes:
        """The figure as a PNG file, drawn when asked for."""
        return png(self.figure, FAST_DPI)

    def _words(self) -> str:
        return f'<style onload="{KEYS_ARE_OURS}"></style>{super()._words()}'
