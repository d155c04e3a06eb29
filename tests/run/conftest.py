"""Worker pools that the tests of this folder share, started when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import spnb


@pytest.fixture(scope="session")
def pool_of() -> Iterator[Callable[[int], spnb.WorkerPool]]:
    """A pool of so many workers; 3 and 4 oversubscribe a machine of two cores."""
    pools: dict[int, spnb.WorkerPool] = {}

    def get(size: int) -> spnb.WorkerPool:
        if size not in pools:
            pools[size] = spnb.WorkerPool(size, threads=1)
        return pools[size]

    yield get
    for pool in pools.values():
        pool.close()
