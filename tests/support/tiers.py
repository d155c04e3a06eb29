"""Which test belongs to which tier; `CONTRIBUTING.md` has the table.

Markers say what a test needs, and the make targets choose by them. A marker that follows from
what a test uses (a notebook, a fixture that starts workers) is set here; the others stand in the
test files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
import torch
from jupyter_client.provisioning import LocalProvisioner

from spnb.parallel.pool import process

POOLS = {"pool", "pool_of", "kernel", "new_kernel"}
"""Fixtures that start worker processes."""
KERNELS = {"kernel", "new_kernel"}
"""Fixtures that start Jupyter kernels."""
STARTS = (
    (
        process.WorkerProcess,
        "__init__",
        "worker processes",
        ("pool", "kernel", "browser", "service"),
    ),
    (LocalProvisioner, "launch_kernel", "a Jupyter kernel", ("kernel", "browser", "service")),
)
"""What starts processes, and the markers of tests that may; the first says just that."""
LONGEST_FIRST = ("notebook", "browser", "service", "kernel", "slow", "pool")
"""Files with such tests begin early, so that two processes end at about the same time."""


def pytest_configure() -> None:
    """One thread in kernels and other processes, too: two tests share the machine's cores."""
    os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Set the markers that follow from a test's nature, and put long files first."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if hasattr(item, "nbmake"):
            item.add_marker("notebook")
            item.add_marker("kernel")
            if "solutions" in item.path.parts:
                item.add_marker("exhaustive")
        if fixtures & KERNELS:
            item.add_marker("kernel")
        if fixtures & POOLS:
            item.add_marker("pool")
        if item.get_closest_marker("cuda") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="there is no CUDA device"))
    rank = {path: _rank([i for i in items if i.path == path]) for path in {i.path for i in items}}
    items.sort(key=lambda item: rank[item.path])


def _rank(items: list[pytest.Item]) -> int:
    """Place of a file among the others: 0 for the first."""
    for place, name in enumerate(LONGEST_FIRST):
        if any(item.get_closest_marker(name) for item in items):
            return place
    return len(LONGEST_FIRST)


@pytest.fixture(autouse=True)
def _unmarked_tests_start_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that starts processes without saying so would make `make test-fast` slow.

    It is refused, and fails when it is over if it swallows the refusal.
    """
    tried: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for owner, method, what, markers in STARTS:
            if not any(request.node.get_closest_marker(name) for name in markers):
                words = f"This test starts {what}: mark it with @pytest.mark.{markers[0]}."
                patch.setattr(owner, method, _refusal(words, tried))
        yield
    if tried:
        pytest.fail(tried[0])


def _refusal(words: str, tried: list[str]) -> Callable[..., None]:
    def refuse(*_: object, **__: object) -> None:
        tried.append(words)
        pytest.fail(words)

    return refuse


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """As in the workers: threads that wait for each other only slow small networks down."""
    torch.set_num_threads(1)
