"""What a worker is told when it starts: who it is, and the environment that goes with it.

This module must not load torch, which reads the environment when it is loaded.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass

_NOT_INHERITED = re.compile(
    r"((LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)|TORCHELASTIC_\w+)"
)


@dataclass(frozen=True)
class Place:
    """What a worker is told when it starts.

    Attributes:
        rank: Its number.
        world_size: How many there are.
        store_port: Where the notebook's store listens.
        threads: How many threads torch may use in it.
        device: ``cpu`` or ``cuda``.
        notebook: The notebook's process id if the worker shall be killed with it, else 0.
    """

    rank: int
    world_size: int
    store_port: int
    threads: int
    device: str
    notebook: int

    def environment(self) -> dict[str, str]:
        """The environment that it stands for, as torch and the user's code look for it."""
        return {
            "RANK": str(self.rank),
            "LOCAL_RANK": str(self.rank),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_WORLD_SIZE": str(self.world_size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.store_port),
            "OMP_NUM_THREADS": str(self.threads),
            "MKL_NUM_THREADS": str(self.threads),
            "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
            "MPLBACKEND": "Agg",  # the notebook's own backend works only in the notebook
            "SPNB_DEVICE": self.device,  # read by `devices`, which cannot be imported yet
        }

    def take(self) -> None:
        """Set the environment of this process, before torch is loaded and reads it."""
        for name in [name for name in os.environ if _NOT_INHERITED.fullmatch(name)]:
            del os.environ[name]  # traces of another launcher
        self.restore()
        # When a rank is woken, torch logs each connection that it loses, with a page of C++ frames.
        # The error itself is raised in any case; only NCCL logs what cannot be learned otherwise.
        level = "FATAL" if self.device == "cpu" else "ERROR"
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", level)

    def restore(self) -> None:
        """Set the environment anew: a function may have changed it."""
        os.environ.update(self.environment())
