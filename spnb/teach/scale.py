"""How large the course runs: ``SPNB_SCALE=ci|laptop|node`` in the environment.

    ci      a minute or so on two cores: small enough for every automatic run
    laptop  a few minutes, with results worth looking at
    node    as long as it takes on a machine with several GPUs

Notebooks name their sizes in the open, ``epochs = scale.pick(ci=2, laptop=20, node=100)``; nothing
is guessed from the machine.
"""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")

VARIABLE = "SPNB_SCALE"
SCALES = ("ci", "laptop", "node")
DEFAULT = "laptop"


def name() -> str:
    """The scale: ``"ci"``, ``"laptop"`` or ``"node"``; laptop if the environment names none.

    Raises:
        ValueError: the environment names another.
    """
    scale = os.environ.get(VARIABLE, "").strip() or DEFAULT
    if scale not in SCALES:
        raise ValueError(f"{VARIABLE}={scale!r} is no scale: set it to ci, laptop or node.")
    return scale


def pick(*, ci: T, laptop: T, node: T | None = None) -> T:
    """The value that belongs to the scale.

    Args:
        ci: for automatic runs.
        laptop: for readers.
        node: for a machine with several GPUs; the laptop's if it is not given.
    """
    large = laptop if node is None else node
    return {"ci": ci, "laptop": laptop, "node": large}[name()]
