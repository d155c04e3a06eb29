"""Passes of a network that are looked at: on tensors without content or, if need be, on real ones.

torch's fake tensors have shapes, devices and storages but no numbers, so a network of any size is
looked at on any machine. But what a network does may depend on numbers (``.item()``, a boolean
mask), and some operations have no fake version, or one that leaves out memory. Such a network is
run: on the first rows of the batch, at the values that it holds.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.utils._python_dispatch import TorchDispatchMode

from spnb.maths.models import BayesianModel
from spnb.maths.posteriors import Posterior

T = TypeVar("T")

ROWS = 64
"""Rows that a real pass has at most; a plan for large batches must not need their memory."""

WORKSPACES = (
    torch.ops.aten.mkldnn_rnn_layer.default,
    torch.ops.aten._cudnn_rnn.default,
    torch.ops.aten.miopen_rnn.default,
)
"""Operations that keep memory for their way back of which the fake version knows nothing."""

_NUMBERS = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
    NotImplementedError,
)
"""What fake tensors raise where a network needs numbers, or an operation has no fake version."""


def look(
    posterior: Posterior,
    x: Tensor,
    y: Tensor,
    see: Callable[[BayesianModel, Tensor, Tensor, Tensor], T],
    place: torch.device | None = None,
) -> T:
    """What a function sees in passes of a network.

    Args:
        posterior: the posterior; it stays as it is.
        x: inputs ``[B, ...]``.
        y: targets ``[B, ...]``.
        see: runs passes; gets a copy of the model, its point, inputs and targets, all of them
            where it computes. If they are real ones, these are the first rows alone.
        place: where it computes; None: where the posterior does, and a CPU for the meta device.

    Raises:
        ValueError: it takes numbers, and posterior or data lie on the meta device.
    """
    own = next(posterior.parameters()).device
    place = place or (torch.device("cpu") if own.type == "meta" else own)
    model = copy.deepcopy(posterior.model)
    try:
        with _quiet(), FakeTensorMode(allow_non_fake_inputs=True), _NoWorkspaces():
            model.net.to_empty(device=place)
            model.likelihood.to_empty(device=place)
            like = (posterior.point, x, y)
            return see(model, *(torch.empty(t.shape, dtype=t.dtype, device=place) for t in like))
    except Exception as error:
        if own.type == "meta" or x.is_meta or y.is_meta:
            kind = type(posterior.model.net).__name__
            raise ValueError(
                f"The {kind} has to be run to be counted, since what it does depends on numbers or "
                "its memory is not known in advance: make net, posterior and data on a CPU, not on "
                "the meta device."
                if isinstance(error, _NUMBERS)
                else f"The {kind} fails on inputs of shape {tuple(x.shape)}, for the reason above: "
                "change them, or make net, posterior and data on a CPU, not on the meta device."
            ) from error
    model = copy.deepcopy(posterior.model).to(place)
    rows = (values[:ROWS].to(place) for values in (x, y))
    return see(model, posterior.point.detach().to(place), *rows)


def computes(operation: Any) -> bool:
    """Whether an operation computes anything: it is no view, and no question for the device."""
    return not (operation.is_view or operation is torch.ops.prim.device.default)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's log of operations that have no fake version."""
    log = logging.getLogger(FakeTensorMode.__module__)
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


class _NoWorkspaces(TorchDispatchMode):
    """Refuses `WORKSPACES`."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any | None = None
    ) -> Any:
        if func in WORKSPACES:
            raise NotImplementedError(f"The fake version of {func} leaves out memory.")
        return func(*args, **(kwargs or {}))
