"""Explorables that a pointer can touch: a press and a drag on the picture reach the kernel.

What the pointer does there must be possible by keyboard as well: give controls for it.

The picture stays an image with alt text. The page writes where the pointer is into a hidden text
widget: number of the gesture, where it began, and where it is now, as parts of the picture's width
and height. While the kernel is busy only the last place arrives, so nothing lags behind the hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ipywidgets import HBox, Text, Widget
from ipywidgets import Layout as Box

from spnb.teach.explorable import Draw, Explorable

LISTEN = """
const box = this.closest('.spnb-explorable');
const picture = box?.querySelector('[class*=-picture]');
const input = box?.querySelector('[class*=-pointer] input');
if (picture && input && !picture.dataset.touch) {
  picture.dataset.touch = '0';
  picture.style.touchAction = 'none';
  let start = null;
  const place = event => {
    const edge = picture.querySelector('img').getBoundingClientRect();
    return [(event.clientX - edge.left) / edge.width, (event.clientY - edge.top) / edge.height];
  };
  const tell = event => {
    input.value = [picture.dataset.touch, ...start, ...place(event)].join(' ');
    input.dispatchEvent(new Event('input', { bubbles: true }));
  };
  picture.addEventListener('pointerdown', event => {
    event.preventDefault();
    picture.setPointerCapture(event.pointerId);
    picture.dataset.touch = String(Number(picture.dataset.touch) + 1);
    start = place(event);
    tell(event);
  });
  picture.addEventListener('pointermove', event => { if (start) { tell(event); } });
  for (const end of ['pointerup', 'pointercancel']) {
    picture.addEventListener(end, event => { start = null; });
  }
}
"""

Place = tuple[float, float]


class Touchable(Explorable):
    """An explorable whose picture takes the pointer.

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
        self._on_press, self._on_drag = on_press, on_drag
        self._gesture = ""
        self._pointer = Text(layout=Box(display="none"))
        self._pointer.add_class(f"spnb-{name}-pointer")
        self._pointer.observe(lambda change: self._hear(change["new"]), names="value")
        row = HBox(list(buttons), layout=Box(flex_flow="row wrap"))
        controls, *rest = self.widget.children
        self.widget.children = (controls, row, *rest, self._pointer)

    @property
    def _onload(self) -> str:
        return super()._onload + ";" + " ".join(LISTEN.split())

    def _hear(self, message: str) -> None:
        """Take a message of the page: ``gesture x0 y0 x y``."""
        gesture, *numbers = message.split()
        x0, y0, x, y = map(float, numbers)
        start, here = self._in_axes(x0, y0), self._in_axes(x, y)
        if start is None:  # it began in a margin
            return
        if gesture != self._gesture:
            self._gesture = gesture
            self.act(lambda: self._on_press(*start))
        if here is not None and here != start:
            self.act(lambda: self._on_drag(*here))

    def _in_axes(self, across: float, down: float) -> Place | None:
        """A place of the picture in the coordinates of the axes there, None in a margin."""
        pixels = self.figure.transFigure.transform((across, 1 - down))
        for axes in self.figure.axes:
            if axes.bbox.contains(*pixels):
                x, y = axes.transData.inverted().transform(pixels)
                return float(x), float(y)
        return None
