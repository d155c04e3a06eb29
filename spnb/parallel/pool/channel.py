"""Messages between the notebook and one worker, over a local socket.

A message is a tuple whose first entry names its kind, sent as a length and a pickle; open file
descriptors travel beside it. Messages are small: what is large is put into a memory file
(`memory`), whose descriptor is sent. So a send does not block on a receiver that is busy.

This module must not load torch: a worker listens before it has loaded it.
"""

from __future__ import annotations

import os
import pickle
import socket
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

MAX_DESCRIPTORS = 250
"""The kernel passes at most 253 descriptors with one message."""

_LENGTH = struct.Struct("!Q")


@dataclass
class Payload:
    """One pickled object.

    Attributes:
        pickle: The pickle itself, or None if it is the last piece of the memory file.
        pieces: For each buffer ``(file, offset, bytes)``; ``file`` counts in `descriptors`.
        class_ids: cloudpickle's names for the classes that were sent by value.
        descriptors: Open files: they travel beside the message, not in it.
    """

    pickle: bytes | None
    pieces: list[tuple[int, int, int]]
    class_ids: list[str]
    descriptors: list[int] = field(default_factory=list)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "descriptors": []}

    def close(self) -> None:
        """Close the descriptors; what has been loaded stays."""
        while self.descriptors:
            os.close(self.descriptors.pop())


class Channel:
    """One end of the line between the notebook and a worker."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._sending = threading.Lock()

    def fileno(self) -> int:
        """Return the socket's descriptor, for `select.poll`."""
        return self._line.fileno()

    def send(self, *message: Any, descriptors: Sequence[int] = ()) -> None:
        """Send one message; raises `OSError` if the other side is gone."""
        body = pickle.dumps(message, protocol=5)
        data = _LENGTH.pack(len(body)) + body
        with self._sending:
            sent = socket.send_fds(self._line, [data], list(descriptors))
            self._line.sendall(data[sent:])

    def receive(self) -> tuple[tuple[Any, ...], list[int]] | None:
        """Wait for one message: it and its descriptors, or None if the other side is gone."""
        try:
            head, descriptors, _, _ = socket.recv_fds(self._line, _LENGTH.size, MAX_DESCRIPTORS)
            head += self._exactly(_LENGTH.size - len(head))
            body = self._exactly(_LENGTH.unpack(head)[0])
        except (OSError, EOFError):
            return None
        message: tuple[Any, ...] = pickle.loads(body)
        return message, descriptors

    def close(self) -> None:
        """Hang up: the other side reads an end of file."""
        self._line.close()

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            part = self._line.recv(min(count - len(data), 1 << 20))
            if not part:
                raise EOFError
            data += part
        return bytes(data)
