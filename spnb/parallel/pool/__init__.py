"""The worker pool: live processes behind a notebook, one a rank.

A worker process imports this package too, before it has loaded torch, so the names below are
looked up only when they are asked for.

| module | holds |
|---|---|
| `pool`, `options` | `WorkerPool`, what a notebook sees, and what it may be asked for |
| `call` | one `run`: waiting for all ranks, interrupts, failures |
| `process`, `place`, `worker` | a worker process: from the notebook, its start, from inside |
| `channel`, `pickling` | how messages and objects travel; large memory by `spnb.parallel.memory` |
| `rendezvous`, `wake` | how ranks find each other, and how a waiting one is woken |
| `output`, `failure`, `culprit`, `view` | what the reader gets to see |
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spnb.parallel.pool.failure import WorkerDied, WorkerError
    from spnb.parallel.pool.pool import WorkerPool
    from spnb.parallel.pool.process import RankStatus

__all__ = ["RankStatus", "WorkerDied", "WorkerError", "WorkerPool"]

_HOME = {
    "RankStatus": "process",
    "WorkerDied": "failure",
    "WorkerError": "failure",
    "WorkerPool": "pool",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
