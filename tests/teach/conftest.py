"""One pool of two ranks for all tests of the teaching floor that need live workers."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

import spnb
from spnb.teach import figures

EMPTY = 0.06
"""Seconds that an empty figure takes on two cores of a shared x86-64 machine that is not busy."""
REDRAW = 0.15
"""Seconds that a drawing may take there so that it follows the hand."""


@pytest.fixture
def redraw_limit() -> float:
    """Seconds of this process that a redrawing may take, on a machine as slow as this one.

    Twice the goal: the tests run under a coverage tracer.
    """
    took = []
    for _ in range(5):
        start = time.process_time()
        figures.png(figures.new(8, 4)[0], figures.FAST_DPI)
        took.append(time.process_time() - start)
    return 2 * REDRAW * max(1.0, min(took) / EMPTY)


@pytest.fixture(scope="package")
def pool() -> Iterator[spnb.WorkerPool]:
    with spnb.WorkerPool(2) as pool:
        yield pool
