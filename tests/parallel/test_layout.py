"""Layouts: inference, validation, and tiles that cover the work exactly once."""

from __future__ import annotations

import pytest

from spnb.parallel.layout import Layout, share


@pytest.mark.parametrize("layout", [Layout(1, 1), Layout(6, 1), Layout(2, 3), Layout(3, 2)])
@pytest.mark.parametrize(("samples", "rows"), [(6, 6), (16, 25), (7, 3), (8, 24)])
def test_every_pair_belongs_to_exactly_one_rank(layout: Layout, samples: int, rows: int) -> None:
    tiles = [layout.tile(rank, samples, rows) for rank in range(layout.size)]
    pairs = [(s, b) for tile in tiles for s in tile.samples for b in tile.rows]
    assert sorted(pairs) == [(s, b) for s in range(samples) for b in range(rows)]


def test_sixteen_samples_on_six_ranks_lose_none() -> None:
    assert [len(share(16, 6, i)) for i in range(6)] == [3, 3, 3, 3, 2, 2]


def test_an_axis_is_inferred() -> None:
    assert Layout(sample=-1, data=2).resolve(8) == Layout(4, 2)
    assert Layout(sample=3, data=-1).resolve(6) == Layout(3, 2)
    with pytest.raises(ValueError, match="3 does not divide world_size=8"):
        Layout(sample=3, data=-1).resolve(8)


def test_the_error_shows_the_whole_equation() -> None:
    with pytest.raises(ValueError, match=r"sample=3 × data=2 = 6 != world_size=8"):
        Layout(sample=3, data=2).resolve(8)
    with pytest.raises(ValueError, match=r"WorkerPool\(6\)"):
        Layout(sample=3, data=2).resolve(1)


def test_axes_of_a_grid() -> None:
    layout = Layout(sample=2, data=3)
    assert [layout.coordinate(r, "sample") for r in range(6)] == [0, 0, 0, 1, 1, 1]
    assert [layout.coordinate(r, "data") for r in range(6)] == [0, 1, 2, 0, 1, 2]
    assert layout.ranks(4, "sample") == (1, 4)
    assert layout.ranks(4, "data") == (3, 4, 5)
    assert str(layout) == "sample=2 × data=3"


@pytest.mark.parametrize(
    ("degrees", "error"),
    [
        ((0, 1), ValueError),
        ((1, -2), ValueError),
        ((-1, -1), ValueError),
        ((1.5, 1), TypeError),
        ((True, 1), TypeError),
    ],
)
def test_impossible_degrees(degrees: tuple[int, int], error: type[Exception]) -> None:
    with pytest.raises(error):
        Layout(*degrees)


def test_idle_ranks_are_refused() -> None:
    with pytest.raises(ValueError, match="4 ranks along sample but num_samples=3"):
        Layout(sample=4).check_work(3, 100)
    with pytest.raises(ValueError, match="only 2 rows"):
        Layout(data=4).check_work(8, 2)
