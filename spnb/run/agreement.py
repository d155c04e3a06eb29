"""Ranks that train together start from the same posterior, and were asked for the same run."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from spnb.run import decisive, identity, inputs
from spnb.run.loop import Loop


def agree(loop: Loop, data: tuple[Tensor, Tensor], settings: dict[str, Any]) -> None:
    """Start all ranks from rank 0's posterior, and refuse ranks that were asked for other things.

    Each process of a script builds its own net, with its own initial weights.

    Args:
        loop: the run, which has not begun.
        data: inputs and targets ``[N, ...]``.
        settings: what else decides about the path of the run, besides its `Work`.

    Raises:
        ValueError: this rank was handed other data than rank 0, or asked for something else.
    """
    work, comm = loop.work, loop.work.communicator
    if comm.size == 1:
        return
    own, contents = decisive.of_run(loop, settings), inputs.fingerprint(*data)
    first, first_contents = comm.tell((own, contents), 0)
    if contents != first_contents:
        raise ValueError(
            f"Rank 0 was handed {first_contents}; rank {comm.rank} {contents}. Every rank needs "
            "the whole data set: the layout cuts each batch, so hand in no shards."
        )
    if differ := decisive.between_ranks(first, own):
        raise ValueError(
            f"Rank {comm.rank} was asked for another run than rank 0: "
            f"{identity.listed(differ, '; ')}."
        )
    if not work.parts.cuts:  # else it was told in `begin`
        for parameter in work.posterior.parameters():
            comm.copy_from_first(parameter.data)
