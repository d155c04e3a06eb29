"""One run at a time in a folder of checkpoints."""

from __future__ import annotations

import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import lock_descriptor, unlock_descriptor

NAME = ".lock"
"""Of the file that a run locks. It is removed at the end; what a killed run leaves is no lock."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder, on all machines that share it, as long as the block lasts.

    The operating system gives the lock back when the process ends, however it does.

    Args:
        folder: that is there.

    Raises:
        ValueError: another run has it; says which.
    """
    path = folder / NAME
    descriptor = None
    try:
        descriptor = _lock(path)
    except OSError as error:
        warnings.warn(
            f"'{folder}' cannot be locked ({error.strerror}), as on some network file systems: see "
            "to it yourself that no other run writes its checkpoints there.",
            stacklevel=4,
        )
    if descriptor is None:
        yield
        return
    try:
        _sign(descriptor)
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # while it is locked: whoever has opened it meanwhile looks again
        with suppress(OSError):
            unlock_descriptor(descriptor)  # a forked child may have it open as well
        os.close(descriptor)


def _lock(path: Path) -> int:
    """The descriptor of a file that is locked, and that is still the one in its place."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            mine = lock_descriptor(descriptor, blocking=False)
            if mine and os.fstat(descriptor).st_nlink:
                return descriptor
            owner = os.read(descriptor, 200).decode(errors="replace")
        except OSError:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        os.close(descriptor)
        if not mine:
            owner = owner.replace(_own(), "this process") or "another process"
            raise ValueError(
                f"'{path.parent}' is in use by a run of {owner}: wait for its end, or give this "
                "run another folder."
            )


def _sign(descriptor: int) -> None:
    """Write down who has the folder."""
    words = f"{_own()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"
    with suppress(OSError):  # a full disk: then nobody knows who it is
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, words.encode(), 0)


def _own() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"
