"""One pool of two ranks for all tests of the teaching floor that need live workers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator

import pytest

import spnb
from spnb.teach import figures

MANY = 5.0
"""Empty figures that could be drawn in the time of a redrawing that follows the hand, at most.

On two cores of a shared x86-64 machine an empty one takes 60 ms, and a redrawing may take 150. This
is twice as many: a coverage tracer slows Python's lines down and not the renderer.
"""


@pytest.fixture
def follows_the_hand() -> Callable[..., None]:
    """A check that redrawings are quick: each is measured beside the drawing of an empty figure."""

    def seconds(draw: Callable[[], object]) -> float:
        start = time.process_time()  # of this process: others may keep the cores busy
        draw()
        return time.process_time() - start

    def empty() -> None:
        figures.png(figures.new(8, 4)[0], figures.FAST_DPI)

    def check(moves: Iterable[Callable[[], object]], many: float = MANY) -> None:
        empty()  # the first one loads fonts
        ratios = [seconds(move) / seconds(empty) for move in moves]
        assert statistics.median(ratios) < many, ratios

    return check


@pytest.fixture(scope="package")
def pool() -> Iterator[spnb.WorkerPool]:
    with spnb.WorkerPool(2) as pool:
        yield pool
