"""The tile board: what it draws is what `Layout.tile` says, and each tile carries its rank."""

from __future__ import annotations

import pytest
from matplotlib.patches import Rectangle

import spnb
from spnb.teach import figures
from spnb.teach.explore.tiles import describe, draw_tiles, tile_board


@pytest.mark.parametrize(("sample", "data"), [(1, 1), (6, 1), (1, 4), (3, 2), (8, 4)])
def test_tiles_cover_the_board_once(sample: int, data: int) -> None:
    layout = spnb.Layout(sample=sample, data=data)
    figure, axes = figures.new()
    draw_tiles(axes, layout, 16, 13)
    filled = [p for p in axes.patches if isinstance(p, Rectangle) and p.get_fill()]
    assert sum(patch.get_width() * patch.get_height() for patch in filled) == 16 * 13
    ranks = [int(text.get_text().removeprefix("rank ")) for text in axes.texts]
    assert ranks == list(range(layout.size))


def test_tiles_differ_without_colours() -> None:
    _, axes = figures.new()
    draw_tiles(axes, spnb.Layout(sample=8), 8, 4)
    hatched = [p.get_hatch() for p in axes.patches if not p.get_fill()]
    assert hatched == [None] * 6 + ["///"] * 2 or hatched == [""] * 6 + ["///"] * 2


def test_the_words_name_uneven_tiles() -> None:
    text = describe(spnb.Layout(sample=6), 16, 10)
    assert "largest has 30, the smallest 20" in text and "No evaluation is lost" in text
    assert "89 %" in text
    assert "all ranks finish together" in describe(spnb.Layout(sample=2, data=2), 4, 4)
    assert "One rank does them all" in describe(spnb.Layout(), 4, 4)


def test_idle_ranks_are_told_with_the_reason() -> None:
    board = tile_board(samples=3, rows=12, sample_ranks=5)
    assert "smallest 0" in board.summary
    assert "spnb.fit refuses this layout: 5 ranks along sample but num_samples=3" in board.summary
    assert board.figure.axes[0].get_title("left").endswith("2 of 5 ranks idle")


def test_sliders_redraw() -> None:
    board = tile_board()
    before = board.png
    board.controls["sample_ranks"].value = 4
    assert board.png != before and board.summary.startswith("sample=4 × data=1 = 4 ranks")
    for name in ("samples", "rows", "sample_ranks", "data_ranks"):
        board.controls[name].value = board.controls[name].max
        board.controls[name].value = board.controls[name].min
        assert board.error is None
