"""What memory one pass of a network takes, counted operation by operation, as it would allocate."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from spnb.maths.models import BayesianModel
from spnb.maths.posteriors import Posterior
from spnb.run.passes import computes, look


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
        x: inputs ``[B, ...]``, of which only the shape counts, as long as what the network does
            does not depend on numbers.
        y: targets ``[B, ...]``, likewise.

    Raises:
        ValueError: what the network does depends on numbers, and there are none.
    """

    def see(model: BayesianModel, point: Tensor, x: Tensor, y: Tensor) -> tuple[float, ...]:
        sizes = two_sizes(len(x))
        passes = [one_pass(model, point, x[:rows], y[:rows]) for rows in sizes]
        kept, peak, predicted = zip(*passes, strict=True)
        try:
            at_once = two_at_once(model, point, x, y) / (2 * kept[-1])
        except torch.OutOfMemoryError:
            raise
        except Exception:  # torch.vmap cannot take the network: one by one they keep as much
            at_once = 1.0
        return predicted[0] // sizes[0], *line(sizes, kept), *line(sizes, peak), at_once

    prediction, *found = look(posterior, x, y, see)
    drawn, deterministic = (
        sum(site.size for site in sites)
        for sites in (posterior.model.drawn, posterior.model.deterministic)
    )
    itemsize = next(posterior.model.net.parameters()).element_size()
    row = x[:1].nbytes + y[:1].nbytes
    return Footprint(drawn, deterministic, itemsize, int(prediction), row, *found)


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


def one_pass(model: BayesianModel, point: Tensor, x: Tensor, y: Tensor) -> tuple[int, int, int]:
    """Bytes that a forward and backward pass of one sample takes, its weights aside.

    Args:
        model: the model, where it computes.
        point: its deterministic parameters ``[D]``.
        x: inputs ``[B, ...]``.
        y: targets ``[B, ...]``.

    Returns:
        What is held when the forward pass is over, the most at any time, and how many numbers
        were predicted.
    """
    weights = model.flatten(model.drawn)
    values = model.unflatten(weights, model.drawn)
    for name, gradient in model.unflatten(torch.zeros_like(weights), model.drawn).items():
        values[name].requires_grad_()
        values[name].grad = gradient  # as in training, where autograd adds to it
    with Held() as held, model.at(values, point) as predict:
        predictions = predict(x).unsqueeze(0)
        loss, predicted = model.likelihood.total_nll(predictions, y), predictions.numel()
        del predictions
        kept = held.now
        loss.backward()
    return kept, held.most, predicted


def two_at_once(model: BayesianModel, point: Tensor, x: Tensor, y: Tensor) -> int:
    """Bytes held when the forward pass of two samples at once is over, their weights aside."""
    weights = model.flatten(model.drawn).expand(2, -1).clone().requires_grad_()
    with Held() as held:
        loss = model.likelihood.total_nll(model.predict(weights, point, x), y)
        kept = held.now
    del loss
    return kept


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
        if not computes(func):  # most calls; they make nothing
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
