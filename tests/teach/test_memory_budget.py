"""The memory budget: its bars are the library's count, and its words name what fits."""

from __future__ import annotations

import pytest

import spnb
from spnb.run.footprint import Footprint
from spnb.run.memory import of_rank
from spnb.teach.explorable import Explorable
from spnb.teach.explore.memory_budget import WAYS, budget, memory_budget

LARGE = Footprint(
    weights=200_000_000, point=0, itemsize=4, prediction=8000, row=50_000, kept_fixed=0.0,
    kept_per_row=9e7, peak_fixed=0.0, peak_per_row=9.2e7, at_once=1.0,
)  # fmt: skip
SMALL = Footprint(10_000, 0, 4, 10, 100, 0.0, 1e4, 0.0, 1.1e4, 1.0)


@pytest.fixture
def explorer() -> Explorable:
    return memory_budget({"small": SMALL, "large": LARGE})


def test_the_ways_are_the_librarys() -> None:
    layout = spnb.Layout(2, 4)
    nll = spnb.PredictiveNLL()
    assert budget(LARGE, layout, 16, 32, WAYS[0]) == of_rank(LARGE, layout, 16, 32)
    assert budget(LARGE, layout, 16, 32, WAYS[1]) == of_rank(LARGE, layout, 16, 32, nll)
    at_once = of_rank(LARGE, layout, 16, 32, samples_in_flight=16)
    assert budget(LARGE, layout, 16, 32, WAYS[2]) == at_once


def test_the_bars_add_up_to_the_total(explorer: Explorable) -> None:
    explorer.set(way="all at once", samples=32)
    assert explorer.error is None
    (axes,) = explorer.figure.axes
    ends = [max(bar.get_x() + bar.get_width() for bar in row) for row in
            zip(*(container for container in axes.containers), strict=True)]  # fmt: skip
    layouts = [spnb.Layout(), *(spnb.Layout(2**n, 8 // 2**n) for n in range(4))]
    wanted = [budget(LARGE, w, 32, 16, "all at once").total / 1e9 for w in layouts]
    assert ends == pytest.approx(wanted)


def test_the_summary_says_what_fits(explorer: Explorable) -> None:
    assert "one GPU alone needs 12.7 GB, so a card of 24 GB is enough" in explorer.summary
    explorer.set(way="all at once", samples=64)
    assert "more than any of the cards has" in explorer.summary
    assert "Of the layouts 8 × 1 needs least" in explorer.summary
    explorer.set(network="small")
    assert "a card of 24 GB is enough" in explorer.summary


def test_layouts_that_leave_a_gpu_idle_are_not_shown(explorer: Explorable) -> None:
    explorer.set(samples=1)
    labels = [label.get_text() for label in explorer.figure.axes[0].get_yticklabels()]
    assert labels == ["one GPU", "1 × 8"]


def test_bad_beginnings_are_refused() -> None:
    with pytest.raises(ValueError, match="ranks=6 must be a power of two"):
        memory_budget({"small": SMALL}, ranks=6)
    with pytest.raises(ValueError, match="samples=3"):
        memory_budget({"small": SMALL}, samples=3)
