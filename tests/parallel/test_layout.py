"""Layouts: inference, validation, and tiles that cover the work exactly once."""

from __future__ import annotations

import re
from itertools import product

import numpy as np
import pytest

from spnb.parallel.layout import Layout, divisors, layouts, share


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


def test_degrees_of_numpy_are_whole_numbers() -> None:
    layout = Layout(sample=np.int64(2), data=np.int32(-1))
    assert layout == Layout(2, -1) and type(layout.sample) is int
    assert layout.resolve(np.int64(6)) == Layout(2, 3)


def test_a_layout_is_written_as_in_code() -> None:
    for layout in (Layout(3), Layout(2, 2), Layout(2, 3, 4), Layout(data=-1)):
        assert eval(repr(layout)) == layout
    assert repr(Layout(2, 2)) == "Layout(sample=2, data=2)"


def test_divisors() -> None:
    for number in (*range(1, 200), 2**10, 3**6):
        assert divisors(number) == [d for d in range(1, number + 1) if number % d == 0]


def test_layouts_are_all_that_there_are() -> None:
    for size, samples, rows in product(range(1, 13), (1, 4, 7), (1, 3, 12)):
        shards = range(1, size + 1)
        every = [
            Layout(sample, data, shard)
            for shard, sample, data in product(shards, shards, shards)
            if sample * data * shard == size and sample <= samples and data * shard <= rows
        ]
        assert list(layouts(size, samples, rows, shards)) == every
        assert list(layouts(size, samples, rows)) == [w for w in every if w.shard == 1]


def test_idle_ranks_are_refused() -> None:
    with pytest.raises(ValueError, match="4 ranks along sample but num_samples=3: 1 would"):
        Layout(sample=4).check_work(3, 100)
    with pytest.raises(ValueError, match="4 ranks along data but only 2 rows: 2 would"):
        Layout(data=4).check_work(8, 2)
    with pytest.raises(ValueError, match="num_samples=3 and 4 ranks along data but only 2 rows"):
        Layout(4, 4).check_work(3, 2)
    with pytest.raises(ValueError, match=r"no layout of 3 ranks fits S = 2 and B = 1; use 2 ranks"):
        Layout(3).check_work(2, 1)


def test_advice_on_idle_ranks_can_be_followed() -> None:
    """With as many ranks if that is possible at all, else with the most that have work."""
    grid = product(range(1, 6), range(1, 6), range(1, 4), range(1, 6), range(1, 8))
    refused = 0
    for sample, data, shard, samples, rows in grid:
        layout = Layout(sample, data, shard)
        if sample <= samples and data * shard <= rows:
            layout.check_work(samples, rows)
            continue
        with pytest.raises(ValueError, match="would have nothing to do") as caught:
            layout.check_work(samples, rows)
        refused += 1
        message = str(caught.value)
        advised = eval(re.search(r"Layout\([^)]*\)", message)[0])
        advised.check_work(samples, rows)
        shards = range(1, layout.size + 1) if shard > 1 else [1]
        most = max(n for n in range(1, layout.size + 1) if [*layouts(n, samples, rows, shards)])
        assert advised.size == most
        assert (f"no layout of {layout.size} ranks" in message) == (most < layout.size)
        assert most == layout.size or f"use {most} rank" in message
        assert shard > 1 or advised.shard == 1
        more = re.search(r"or at least (?:num_samples=(\d+))?(?: and )?(?:(\d+) rows?)?", message)
        layout.check_work(int(more[1] or samples), int(more[2] or rows))
    assert refused > 1000


def test_advice_on_the_number_of_ranks_can_be_followed() -> None:
    for sample, data, shard in product((-1, 1, 2, 3), (-1, 1, 4), (-1, 1, 2)):
        if [sample, data, shard].count(-1) > 1:
            continue
        layout = Layout(sample, data, shard)
        for world_size in range(1, 14):
            try:
                assert layout.resolve(world_size).size == world_size
            except ValueError as error:
                message = str(error)
                if world_size == 1:
                    ranks = re.search(r"WorkerPool\((\d+)\).*--nproc-per-node (\d+)", message)
                    assert layout.resolve(int(ranks[1])).size == int(ranks[2])
                    continue
                ranks = re.search(r"use (\d+) ranks?, or (Layout\([^)]*\))", message)
                assert layout.resolve(int(ranks[1])).size == int(ranks[1])
                assert eval(ranks[2]).resolve(world_size).size == world_size


def test_a_layout_with_an_axis_to_infer_has_no_size_yet() -> None:
    layout = Layout(sample=-1, data=2)
    for ask in (lambda: layout.size, lambda: layout.check_work(4, 4)):
        with pytest.raises(ValueError, match=r"infer sample with layout\.resolve\(world_size\)"):
            ask()
    assert layout.resolve(6).size == 6
