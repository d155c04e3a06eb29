"""What memory one pass of a network takes, counted on tensors without content.

The pass is run with torch's fake tensors: they have shapes, devices and storages but no numbers,
so a network of any size is counted on any machine, operation by operation, as it would allocate.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from spnb.maths.models import BayesianModel
from spnb.maths.posteriors import Posterior


@dataclass(frozen=True)
class Footprint:
    """Sizes of a network, and the bytes of a pass of one sample as lines over the rows.

    Attributes:
        weights: P, parameters that are drawn.
        point: D, deterministic parameters.
        itemsize: bytes of a number.
        prediction: numbers that a sample predicts for a row.
        row: bytes of one row of inputs and targets.
        kept_fixed: bytes that a forward pass leaves for its way back, whatever the rows.
        kept_per_row: the same for each row.
        peak_fixed: bytes that a forward and backward pass takes at most, whatever the rows.
        peak_per_row: the same for each row.
        at_once: how many times as much a sample keeps where several are evaluated at once, by
            `torch.vmap`, which takes some operations apart.
    """

    weights: int
    point: int
    itemsize: int
    prediction: int
    row: int
    kept_fixed: float
    kept_per_row: float
    peak_fixed: float
    peak_per_row: float
    at_once: float

    def kept(self, rows: int) -> float:
        """Bytes that one sample keeps between its forward and its backward pass."""
        return self.kept_fixed + self.kept_per_row * rows

    def peak(self, rows: int) -> float:
        """Bytes that a sample's forward and backward pass takes at most, its weights aside."""
        return self.peak_fixed + self.peak_per_row * rows


def footprint(posterior: Posterior, x: Tensor, y: Tensor) -> Footprint:
    """Count a pass on a batch, and on half of it.

    Args:
        posterior: the posterior; it may lie on the meta device and counts as on a CPU then.
        x: inputs ``[B, ...]``, of which only the shape counts.
        y: targets ``[B, ...]``, likewise.
    """
    sizes = two_sizes(len(x))
    passes = [one_pass(posterior, x[:rows], y[:rows]) for rows in sizes]
    kept, peak = (line(sizes, values) for values in zip(*passes, strict=True))
    model = copy.deepcopy(posterior.model).to("meta")
    with torch.no_grad():
        weights = model.flatten(model.drawn).unsqueeze(0)
        point = model.flatten(model.deterministic)
        prediction = model.predict(weights, point, x[:1].to("meta"))
    row = x[:1].nbytes + y[:1].nbytes
    return Footprint(
        weights.numel(),
        point.numel(),
        weights.element_size(),
        prediction.numel(),
        row,
        *kept,
        *peak,
        at_once=two_at_once(posterior, x, y) / (2 * passes[-1][0]),
    )


def two_sizes(rows: int) -> tuple[int, ...]:
    """Half of the rows, and all of them; one size where they are the same."""
    few = max(1, rows // 2)
    return (few, rows) if few < rows else (rows,)


def line(sizes: Sequence[int], values: Sequence[float]) -> tuple[float, float]:
    """Offset and slope through one or two points; neither is negative."""
    if len(sizes) == 1:
        return 0.0, values[0] / sizes[0]
    slope = max(0.0, (values[1] - values[0]) / (sizes[1] - sizes[0]))
    return max(0.0, values[1] - slope * sizes[1]), slope


def one_pass(posterior: Posterior, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Bytes that a forward and backward pass of one sample takes, its weights aside.

    Args:
        posterior: as for `footprint`.
        x: inputs ``[B, ...]``.
        y: targets ``[B, ...]``.

    Returns:
        What is held when the forward pass is over, and the most at any time.
    """
    with _without_content(posterior, x, y) as (model, x, y, point):
        weights, gradient = (_weights(model) for _ in range(2))
        values = model.unflatten(weights, model.drawn)
        for name, grad in model.unflatten(gradient, model.drawn).items():
            values[name].requires_grad_()
            values[name].grad = grad  # as in training, where autograd adds to it
        with Held() as held, model.at(values, point) as predict:
            loss = model.likelihood.total_nll(predict(x).unsqueeze(0), y)
            kept = held.now
            loss.backward()
    return float(kept), float(held.most)


def two_at_once(posterior: Posterior, x: Tensor, y: Tensor) -> float:
    """Bytes held when the forward pass of two samples at once is over, their weights aside."""
    with _without_content(posterior, x, y) as (model, x, y, point):
        weights = torch.stack([_weights(model), _weights(model)]).requires_grad_()
        with Held() as held:
            loss = model.likelihood.total_nll(model.predict(weights, point, x), y)
            kept = held.now
        del loss
    return float(kept)


@contextmanager
def _without_content(
    posterior: Posterior, *tensors: Tensor
) -> Iterator[tuple[BayesianModel, Tensor, Tensor, Tensor]]:
    """The model, the tensors and the point as fake tensors where the posterior computes."""
    place = next(posterior.parameters()).device
    place = torch.device("cpu") if place.type == "meta" else place
    model = copy.deepcopy(posterior.model)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.net.to_empty(device=place)
        model.likelihood.to_empty(device=place)
        x, y, point = (
            torch.empty(like.shape, dtype=like.dtype, device=place)
            for like in (*tensors, posterior.point)
        )
        yield model, x, y, point


def _weights(model: BayesianModel) -> Tensor:
    """Weights of one sample, ``[P]``."""
    size = sum(site.size for site in model.drawn)
    return next(model.net.parameters()).new_empty(size, requires_grad=False)


class Held(TorchDispatchMode):
    """Counts the bytes of all tensors that are made within its block, and are still there.

    Attributes:
        now: bytes held at present.
        most: the most at any time so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any | None = None
    ) -> Any:
        """Run an operation, and see what it made."""
        if func is torch.ops.prim.device.default or func.is_view:  # most calls; they make nothing
            return func(*args, **(kwargs or {}))
        before = {_identity(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and _identity(tensor) not in before | self._known:
                self._see(tensor)
        return made

    def _see(self, tensor: Tensor) -> None:
        storage, key = tensor.untyped_storage(), _identity(tensor)
        size = storage.nbytes()
        self._known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _identity(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
