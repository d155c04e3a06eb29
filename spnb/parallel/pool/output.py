"""What the workers print, brought into the cell.

Each worker writes into a pipe of its own, at the level of file descriptors, so that compiled code
is heard too. Whole lines are shown, with the rank where more than one rank is shown. A notebook
cannot take 100,000 lines, so the number shown is bounded; a larger number is kept to be asked for.
"""

from __future__ import annotations

import os
import sys
from collections import deque

SHOWN_LINES = 1000
"""How many lines of a rank one run shows in the cell ..."""

SHOWN_CHARACTERS = 200_000
"""... and how many characters."""

KEPT_CHARACTERS = 16 * 2**20
"""How much of a rank's output is kept: the last so many characters of the last run."""

LONGEST_LINE = 64 * 2**10
"""A longer line is broken, so that output without line ends is heard too."""

ON_FAILURE = 20
"""How many last lines of a rank that is not shown are shown when it fails."""


class RankOutput:
    """The output of one rank during one run."""

    def __init__(self, rank: int, shown: bool, labelled: bool) -> None:
        self.rank = rank
        self.shown = shown
        self._label = f"[rank {rank}] " if labelled else ""
        self._lines: deque[str] = deque()
        self._size = 0
        self._part = b""
        self._room = SHOWN_CHARACTERS
        self._count = 0
        self._withheld = 0

    def read(self, descriptor: int) -> bool:
        """Read and show what is there; false at the end of the file."""
        for _ in range(64):  # more than a pipe can hold; then let other ranks have their turn
            try:
                data = os.read(descriptor, 1 << 16)
            except BlockingIOError:
                return True
            if not data:
                return False
            *lines, self._part = (self._part + data).split(b"\n")
            if len(self._part) > LONGEST_LINE:
                lines.append(self._part)
                self._part = b""
            self._take(lines)
        return True

    def finish(self, descriptor: int) -> None:
        """Show all that is left when the run is over."""
        self.read(descriptor)
        if self._part:
            self._take([self._part])
            self._part = b""
        if self._withheld:
            write(
                f"{self._withheld:,} more lines of rank {self.rank} are not shown here: "
                f"pool.output({self.rank}) returns them.\n"
            )

    def text(self) -> str:
        """Return what is kept."""
        return "".join(self._lines)

    def last_lines(self) -> str:
        """Return the labelled last lines, if they have not been shown."""
        if self.shown and not self._withheld:
            return ""
        return "".join(f"[rank {self.rank}] {line}" for line in list(self._lines)[-ON_FAILURE:])

    def _take(self, lines: list[bytes]) -> None:
        show = []
        for raw in lines:
            # A progress bar writes over its line again and again: keep what one would see.
            line = raw.decode(errors="replace").rstrip("\r").rpartition("\r")[2] + "\n"
            self._lines.append(line)
            self._size += len(line)
            while self._size > KEPT_CHARACTERS:
                self._size -= len(self._lines.popleft())
            if not self.shown:
                continue
            if self._count < SHOWN_LINES and len(line) <= self._room:
                self._count += 1
                self._room -= len(line)
                show.append(self._label + line)
                continue
            if not self._withheld:
                show.append(f"... rank {self.rank} prints more than is good for a notebook.\n")
                self._count = SHOWN_LINES
            self._withheld += 1
        if show:
            write("".join(show))


def write(text: str) -> None:
    """Print a text of the workers in the notebook, whatever its stream can show."""
    try:
        print(text, end="", flush=True)
    except UnicodeEncodeError:  # no reason to lose a run
        encoding = sys.stdout.encoding
        print(text.encode(encoding, "backslashreplace").decode(encoding), end="", flush=True)
