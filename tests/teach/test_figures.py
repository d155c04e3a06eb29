"""Figures: their look, their alt text, and that each is shown once."""

from __future__ import annotations

import itertools
from typing import Any

import matplotlib.pyplot as plt
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from spnb.teach import figures


def test_the_picture_is_an_image_with_alt_text() -> None:
    figure, axes = figures.new(5, 2)
    axes.plot([1, 2], [3, 4])
    picture = figures.Picture(figure, 'A line rises\n from 3 to 4 "ppm" <fast>.')
    page = picture._repr_html_()
    assert picture.png.startswith(b"\x89PNG")
    assert 'alt="A line rises from 3 to 4 &quot;ppm&quot; &lt;fast&gt;."' in page
    assert 'width="480" height="192"' in page
    assert repr(picture) == 'A line rises from 3 to 4 "ppm" <fast>.'


def test_a_figure_without_words_is_refused() -> None:
    with pytest.raises(ValueError, match="alt is empty"):
        figures.Picture(figures.new()[0], " ")


def test_show_displays_once_and_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(figures, "display", shown.append)
    figure = plt.figure()
    figures.show(figure, "An empty figure.")
    assert [repr(picture) for picture in shown] == ["An empty figure."]
    assert not plt.fignum_exists(figure.number)


def test_several_axes_and_a_footnote_leave_room_for_each_other() -> None:
    figure, axes = figures.new(7, 3, columns=2, sharey=True)
    for ax in axes:
        ax.set_xlabel("year")
    figures.footnote(figure, "seed 0")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    note = figure.texts[0].get_window_extent(renderer)
    assert all(ax.get_tightbbox(renderer).y0 >= note.y1 - 1 for ax in axes)


def test_looks_differ_in_colour_dashes_and_shape() -> None:
    looks = [figures.look(i) for i in range(6)]
    for one, other in itertools.combinations(looks, 2):
        assert all(one[part] != other[part] for part in ("color", "linestyle", "marker"))
    assert figures.look(6) == figures.look(0)
    assert "marker" not in figures.look(0, marker=False)


def test_line_colours_stand_out_from_the_white_ground() -> None:
    for colour in figures.COLOURS[:4]:
        red, green, blue = (((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour))
        luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
        assert 1.05 / (luminance + 0.05) > 2.5


def test_a_band_has_edges_and_one_entry_in_the_legend() -> None:
    figure, axes = figures.new()
    figures.band(axes, [0, 1], [0, 0], [1, 2], colour=figures.BLUE, label="epistemic")
    assert len(axes.lines) == 2
    assert axes.get_legend_handles_labels()[1] == ["epistemic"]
