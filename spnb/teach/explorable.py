"""Explorables: a few controls, and a figure that follows them.

The reader moves a control; its *state*, the values of all controls by name, goes to one function
that draws the figure and says in a sentence what there is to see:

    def draw(figure, noise):
        axes = figure.subplots()
        ...
        return f"With noise {noise:.1f} ppm the band is {width:.1f} ppm wide."

    Explorable("bands", draw, noise=FloatSlider(0.5, min=0.1, max=2.0))

The sentence stands under the figure and is its alt text. The figure is there before any control
is touched, and as a still image where no widgets are: in a rendered notebook, on a code host.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock, get_ident
from time import perf_counter
from typing import Any

from ipywidgets import HTML, HBox, Layout, VBox, Widget

from spnb.teach.figures import FAST_DPI, image_tag, is_drawing, png
from spnb.teach.stage import Stage

Draw = Callable[..., str]

KEYS_ARE_OURS = (
    "this.closest('.spnb-explorable')?.querySelectorAll('select, button, input, [tabindex]')"
    ".forEach(one => one.setAttribute('data-lm-suppress-shortcuts', 'true'))"
)
"""Without it JupyterLab takes arrows and Enter for itself: they would choose another cell."""

_PROSE = 'style="line-height:1.4; margin:0; max-width:50em"'


class Explorable:
    """A figure that is drawn anew whenever one of its controls changes.

    An error in `draw` is raised if it happens at the first drawing; later ones are shown under the
    figure in one sentence. For tests in a browser, the widgets have CSS classes: ``spnb-NAME`` for
    the whole, ``spnb-NAME-CONTROL`` for each control, ``spnb-NAME-picture`` and
    ``spnb-NAME-summary``; the image tells in ``data-ms`` how long it took.

    Args:
        name: a short name for the CSS classes, such as ``"posterior"``.
        draw: ``(figure, **state) -> summary``; gets a figure with nothing drawn on it and the
            controls' values, and returns one or two sentences on what the figure shows. Margins
            are those of `figures`, or those it sets by ``figure.subplots_adjust``. Axes stay from
            one drawing to the next (`Stage`).
        width: of the figure, in inches of 96 screen pixels.
        height: likewise.
        continuous_update: whether sliders act while they are dragged, or only when let go. Choose
            the latter where drawing takes more than about 150 ms.
        notice: ``(**state) -> sentence``, asked before each drawing: what to say meanwhile if it
            will take seconds, else None.
        turns_dark: whether lightness may be turned over on a dark page, as for any drawing.
        **controls: ipywidgets with a ``value``, by name, in the order in which they are shown.

    Attributes:
        name: as given.
        widget: the whole, an ipywidget.
        summary: the sentence under the figure.
        png: the figure as a PNG file.
        last_ms: how long the last drawing took, in milliseconds.
        redraws: how many drawings there were.
        error: the last error in one sentence, None if the last drawing went well.
    """

    def __init__(
        self,
        name: str,
        draw: Draw,
        *,
        width: float = 7.2,
        height: float = 3.6,
        continuous_update: bool = True,
        notice: Callable[..., str | None] | None = None,
        turns_dark: bool = True,
        **controls: Widget,
    ) -> None:
        self.name, self.draw, self.controls, self.notice = name, draw, controls, notice
        self._turns_dark = turns_dark
        self.figure = Stage(width, height)
        # A kernel may hear each control in a thread of its own, and the cells in another.
        self._lock, self._quiet = RLock(), 0
        self.error: str | None = None
        self.last_ms, self.redraws = 0.0, 0
        self._picture = _classed(HTML(), f"spnb-{name}-picture")
        self._summary = _classed(HTML(), f"spnb-{name}-summary")
        for key, control in controls.items():
            _classed(control, f"spnb-{name}-{key}")
            if control.has_trait("continuous_update"):
                control.continuous_update = continuous_update
        self._redraw()
        for control in controls.values():
            control.observe(self._on_change, names="value")
        row = HBox(list(controls.values()), layout=Layout(flex_flow="row wrap"))
        self.widget = _classed(VBox([row, self._picture, self._summary]), f"spnb-{name}")
        _classed(self.widget, "spnb-explorable")

    @property
    def state(self) -> dict[str, Any]:
        """The values of all controls, by name."""
        return {name: control.value for name, control in self.controls.items()}

    def set(self, **values: Any) -> None:
        """Move several controls at once, and draw once.

        Args:
            **values: new values by the controls' names.

        Raises:
            KeyError: there is no such control.
        """
        for name in values:
            if name not in self.controls:
                raise KeyError(f"'{name}' is none of the controls {', '.join(self.controls)}.")
        with self._lock:
            before = self.state
            with self.quiet():
                for name, value in values.items():
                    self.controls[name].value = value
            if self.state != before:
                self._on_change()

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Within it this thread may move controls, and nothing is drawn."""
        with self._lock:
            before, self._quiet = self._quiet, get_ident()
            try:
                yield
            finally:
                self._quiet = before

    def act(self, do: Callable[[], None]) -> None:
        """Change what is drawn in another way than by a control, and draw."""
        self._try(do)

    def _on_change(self, change: Any = None) -> None:
        if self._quiet != get_ident():
            self._try(lambda: None)

    def _try(self, do: Callable[[], None]) -> None:
        with self._lock:
            self._do_and_draw(do)

    def _do_and_draw(self, do: Callable[[], None]) -> None:
        try:
            do()
            said = self.notice(**self.state) if self.notice else None
            if said:
                self._summary.value = f'<p role="status" {_PROSE}>{html.escape(said)}</p>'
            self._redraw()
        except Exception as error:
            said = " ".join(str(error).split())
            self.error = f"{type(error).__name__}: {said}" if said else type(error).__name__
            self._summary.value = (
                '<p role="alert" style="border-left:4px solid #D55E00; padding-left:8px">'
                f"<b>This setting failed.</b> {html.escape(self.error)} "
                "(The figure still shows the one before.)</p>"
            )

    def _redraw(self) -> None:
        """Draw the present state and put it on the page, picture and words."""
        start = perf_counter()
        self.figure.sweep()
        summary = " ".join(str(self.draw(self.figure, **self.state)).split())
        picture = png(self.figure, FAST_DPI)
        self.summary, self.png, self.error = summary, picture, None
        self.last_ms = 1000 * (perf_counter() - start)
        self.redraws += 1
        self._picture.value = self._image()
        self._summary.value = f'<p aria-live="polite" {_PROSE}>{html.escape(self.summary)}</p>'

    @property
    def _onload(self) -> str:
        """JavaScript for the page, run with each new picture."""
        return KEYS_ARE_OURS

    def _image(self) -> str:
        size = self.figure.get_size_inches()
        drawing = self._turns_dark and is_drawing(self.figure)
        return image_tag(
            self.png, self.summary, size, drawing, self._onload, ms=f"{self.last_ms:.0f}"
        )

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The live widget where there is a kernel; otherwise the still image with its words."""
        bundle = self.widget._repr_mimebundle_(**kwargs)
        still = f"{self._image()}<p>{html.escape(self.summary)}</p>"
        return {**bundle, "text/html": still, "text/plain": self.summary}

    def __repr__(self) -> str:
        return self.summary


def _classed(widget: Widget, name: str) -> Widget:
    widget.add_class(name)
    return widget
