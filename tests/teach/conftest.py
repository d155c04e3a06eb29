"""One pool of two ranks for all tests of the teaching floor that need live workers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import spnb


@pytest.fixture(scope="package")
def pool() -> Iterator[spnb.WorkerPool]:
    with spnb.WorkerPool(2) as pool:
        yield pool
