"""Where a posterior computes."""

from __future__ import annotations

import copy

import torch
from torch import nn

from spnb.maths.posteriors import Posterior
from spnb.parallel.collectives import is_rank, local_device


def place_of(module: nn.Module, wanted: torch.device | str | None = None) -> torch.device:
    """The device to compute on: the one asked for, else a rank's own, else the module's.

    A notebook's own process is no rank: it stays on the CPU and never touches a GPU.

    Raises:
        ValueError: there is no such device.
    """
    if wanted is not None:
        try:
            device = torch.device(wanted)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, TypeError) as error:
            raise ValueError(
                f"device='{wanted}', but there is no such device here: leave device out to compute "
                "where the posterior is."
            ) from error
        return device
    return local_device()[0] if is_rank() else next(module.parameters()).device


def placed(posterior: Posterior, wanted: torch.device | str | None = None) -> Posterior:
    """The posterior where it is to compute: itself if it is there already, else a copy."""
    place = place_of(posterior, wanted)
    if next(posterior.parameters()).device == place:
        return posterior
    return copy.deepcopy(posterior).to(place)
