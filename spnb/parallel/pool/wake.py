"""Wake a rank that waits in a collective, without killing it.

None of gloo's own ways to abort reaches a rank that already waits. What does, at once, is to
shut down its connections: the waiting call then fails with an ordinary error. Only connections
between ranks are shut down, or to the pool's store, where a rank may wait as well; never a
listening socket (gloo ends the whole process if that fails), nor a connection of the user's own.

Nor while a rank makes a process group (`makes_group`): of a connection that is shut before gloo
has seen it, it never learns, and waits for it where nothing can wake it.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

LISTENING = "0A"
ESTABLISHED = "01"

MAKES_GROUP = "_new_process_group_helper"
"""The function of torch.distributed that does."""


def shut_connections(listeners: Iterable[int]) -> None:
    """Shut down this process's connections to where certain processes listen.

    Args:
        listeners: Their process ids: of all ranks, this one too, or of the store's host.
    """
    table = _connections()
    listening = set()
    for pid in listeners:
        for inode in _sockets(pid).values():
            if inode in table and table[inode][2] == LISTENING:
                listening.add(table[inode][0])
    for descriptor, inode in _sockets(os.getpid()).items():
        local, remote, state = table.get(inode, (0, 0, ""))
        if state == ESTABLISHED and (local in listening or remote in listening):
            try:
                with socket.socket(fileno=os.dup(descriptor)) as connection:
                    connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # closed in the meantime
                continue


def makes_group() -> bool:
    """Whether the main thread is making a process group, and so connects to the other ranks."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame and frame.f_code.co_name != MAKES_GROUP:
        frame = frame.f_back
    return frame is not None


def _connections() -> dict[str, tuple[int, int, str]]:
    """Read the system's TCP sockets: inode -> (local port, remote port, state)."""
    table = {}
    for family in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/self/net/{family}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            columns = line.split()
            local, remote = (int(end.rpartition(":")[2], 16) for end in columns[1:3])
            table[columns[9]] = (local, remote, columns[3])
    return table


def _sockets(pid: int) -> dict[int, str]:
    """List a process's sockets: descriptor -> inode."""
    found = {}
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")
    except OSError:  # it has ended
        return {}
    for descriptor in descriptors:
        try:
            target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
        except OSError:
            continue
        if target.startswith("socket:["):
            found[int(descriptor)] = target[8:-1]
    return found
