"""Where the time of a step goes: named spans, on a clock that all ranks of a host share.

Tracing is off unless asked for, and then costs next to nothing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Span:
    """A stretch of time in which a rank did one thing.

    Attributes:
        name: what it did.
        start: seconds on the host's monotonic clock.
        stop: likewise.
    """

    name: str
    start: float
    stop: float

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.stop - self.start


_NOTHING: AbstractContextManager[None] = contextlib.nullcontext()


@dataclass
class Trace:
    """Records spans while it is on.

    Attributes:
        on: whether to record.
        spans: what was recorded, in order of the ends.
    """

    on: bool = False
    spans: list[Span] = field(default_factory=list)

    def span(self, name: str) -> AbstractContextManager[None]:
        """Record what happens within a ``with`` block."""
        return self._record(name) if self.on else _NOTHING

    @contextlib.contextmanager
    def _record(self, name: str) -> Iterator[None]:
        start = _now()
        try:
            yield
        finally:
            self.spans.append(Span(name, start, _now()))


def _now() -> float:
    """The time when all that was asked of a GPU so far is done."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()
