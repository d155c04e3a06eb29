"""How nbmake runs the notebooks of `tutorials/`.

A notebook's kernel gets the environment that it is tested in, the exercise checks of a solution
are strict, and a flaw of nbclient that makes cells with widgets hang is worked around.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from queue import Empty
from time import monotonic
from typing import Any

import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
POLL_SECONDS = 1.0


def pytest_configure(config: pytest.Config) -> None:
    """Have notebook clients wait for replies in short slices."""
    start = NotebookClient.async_start_new_kernel_client

    async def start_patiently(self: NotebookClient) -> Any:
        client = await start(self)
        client.shell_channel.get_msg = in_slices(client.shell_channel.get_msg)
        return client

    NotebookClient.async_start_new_kernel_client = start_patiently


def in_slices(get_msg: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Wrap a channel's `get_msg` so that no single wait is longer than `POLL_SECONDS`.

    A cell that updates an `ipywidgets.Output` makes nbclient send on the shell channel while it
    waits there for the reply. ZeroMQ's file descriptor tells of an arrival only once, and the
    sending can swallow that: the reply lies there, and the wait runs until the cell's timeout
    (nbclient issue 312). Asking anew looks into the queue again, so the reply is found.
    """

    async def get(timeout: float | None = None) -> Any:
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            left = POLL_SECONDS if deadline is None else max(0.0, deadline - monotonic())
            try:
                return await get_msg(timeout=min(left, POLL_SECONDS))
            except Empty:
                if deadline is not None and monotonic() >= deadline:
                    raise

    return get


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Set the environment that a notebook's kernel inherits, for the time of its run."""
    if not hasattr(item, "nbmake"):
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        # This checkout's library, wherever the kernel finds an installed one.
        patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        patch.setenv("SPNB_SCALE", os.environ.get("SPNB_SCALE", "ci"))
        patch.delenv("SPNB_CHECKS", raising=False)
        if "solutions" in item.path.parts:
            patch.setenv("SPNB_CHECKS", "strict")
        return (yield)
