"""What one forward and backward pass of a network costs: measured here, or counted anywhere."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from spnb.maths.posteriors import Posterior
from spnb.run import inputs
from spnb.run.machine import Machine

MEASURE_SECONDS = 0.4
"""How long passes of each size are repeated for."""


@dataclass(frozen=True)
class Costs:
    """What the cost model has to know of a network.

    Attributes:
        weights: P, parameters that are drawn.
        point: D, deterministic parameters.
        itemsize: bytes of a number.
        pass_fixed: seconds of a pass of one sample, whatever the rows.
        pass_per_row: seconds of a pass for each row.
        kept_fixed: bytes that a pass keeps for its way back, whatever the rows.
        kept_per_row: the same for each row.
        prediction: numbers that a sample predicts for a row.
        antithetic: whether two samples share their noise.
        origin: whether the passes were measured or counted.
    """

    weights: int
    point: int
    itemsize: int
    pass_fixed: float
    pass_per_row: float
    kept_fixed: float
    kept_per_row: float
    prediction: int
    antithetic: bool
    origin: Literal["measured", "counted"]

    def passes(self, rows: int) -> float:
        """Seconds of one sample's forward and backward pass on some rows."""
        return self.pass_fixed + self.pass_per_row * rows

    def kept(self, rows: int) -> float:
        """Bytes that one sample keeps between its forward and its backward pass."""
        return self.kept_fixed + self.kept_per_row * rows


def measure(posterior: Posterior, data: Sequence[Any], batch_size: int) -> Costs:
    """Time plain passes of the network in this process, on the whole batch and on half of it.

    Args:
        posterior: the posterior; it computes where it lies.
        data: inputs ``[N, ...]`` and targets ``[N, ...]``.
        batch_size: B.
    """
    x, y = inputs.data_set(posterior, data)
    x, y = x[:batch_size], y[:batch_size]
    place = next(posterior.parameters()).device
    x, y = x.to(place), y.to(place)
    few = max(1, len(x) // 2)
    sizes = (few, len(x)) if few < len(x) else (len(x),)
    seconds = _times(posterior, x, y, sizes)
    return _costs(posterior, x, y, sizes, seconds, "measured")


def count(posterior: Posterior, data: Sequence[Any], batch_size: int, machine: Machine) -> Costs:
    """Count operations instead, for a machine that is not here; nothing is computed.

    A pass takes ``operations * launch + floating-point operations / flops``.

    Args:
        posterior: the posterior; it may lie on the meta device, where it takes no memory.
        data: inputs ``[N, ...]`` and targets ``[N, ...]``, of which only the shape counts.
        batch_size: B.
        machine: the constants.
    """
    x, y = torch.as_tensor(data[0])[:batch_size], torch.as_tensor(data[1])[:batch_size]
    posterior, x, y = copy.deepcopy(posterior).to("meta"), x.to("meta"), y.to("meta")
    few = max(1, len(x) // 2)
    sizes = (few, len(x)) if few < len(x) else (len(x),)
    seconds = []
    for rows in sizes:
        with FlopCounterMode(display=False) as flops, _Operations() as operations:
            _run(posterior, x[:rows], y[:rows])
        seconds.append(operations.number * machine.launch + flops.get_total_flops() / machine.flops)
    return _costs(posterior, x, y, sizes, seconds, "counted")


class _Operations(TorchDispatchMode):
    """Counts operations that compute something."""

    number = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any | None = None
    ) -> Any:
        self.number += not func.is_view
        return func(*args, **(kwargs or {}))


def _run(posterior: Posterior, x: Tensor, y: Tensor) -> Tensor:
    """One pass of the network at the posterior's own starting weights."""
    model = posterior.model
    weights = model.flatten(model.drawn).to(x.device)
    values = {n: v.requires_grad_() for n, v in model.unflatten(weights, model.drawn).items()}
    predictions = model.predict_one(values, posterior.point.detach(), x).unsqueeze(0)
    loss = model.likelihood.total_nll(predictions, y)
    torch.autograd.backward(loss, inputs=list(values.values()))
    return predictions


def seconds_of_passes(posterior: Posterior, x: Tensor, y: Tensor, number: int) -> float:
    """Seconds of some passes in a row.

    Args:
        posterior: the posterior.
        x: inputs ``[B, ...]``, where it computes.
        y: targets ``[B, ...]``.
        number: how many passes.
    """
    start = time.perf_counter()
    for _ in range(number):
        _run(posterior, x, y)
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter() - start


def _times(posterior: Posterior, x: Tensor, y: Tensor, sizes: Sequence[int]) -> list[float]:
    """Median seconds of a pass for each number of rows, measured in turns."""
    times: dict[int, list[float]] = {rows: [] for rows in sizes}
    for rows in sizes:
        _run(posterior, x[:rows], y[:rows])
    begin = time.perf_counter()
    while time.perf_counter() - begin < MEASURE_SECONDS * len(sizes) or len(times[sizes[0]]) < 5:
        for rows in sizes:
            times[rows].append(seconds_of_passes(posterior, x[:rows], y[:rows], 1))
    return [statistics.median(times[rows]) for rows in sizes]


def _costs(
    posterior: Posterior,
    x: Tensor,
    y: Tensor,
    sizes: Sequence[int],
    seconds: Sequence[float],
    origin: Literal["measured", "counted"],
) -> Costs:
    kept = [_kept_bytes(posterior, x[:rows], y[:rows]) for rows in sizes]
    model = posterior.model
    with torch.no_grad():
        values = model.unflatten(model.flatten(model.drawn).to(x.device), model.drawn)
        prediction = model.predict_one(values, posterior.point, x[:1])
    pass_fixed, pass_per_row = _line(sizes, seconds)
    kept_fixed, kept_per_row = _line(sizes, kept)
    return Costs(
        weights=sum(site.size for site in model.drawn),
        point=posterior.point.numel(),
        itemsize=prediction.element_size(),
        pass_fixed=pass_fixed,
        pass_per_row=pass_per_row,
        kept_fixed=kept_fixed,
        kept_per_row=kept_per_row,
        prediction=prediction[0].numel(),
        antithetic=posterior.antithetic,
        origin=origin,
    )


def _line(sizes: Sequence[int], values: Sequence[float]) -> tuple[float, float]:
    """Offset and slope through one or two points; neither is negative."""
    if len(sizes) == 1:
        return 0.0, values[0] / sizes[0]
    slope = max(0.0, (values[1] - values[0]) / (sizes[1] - sizes[0]))
    return max(0.0, values[1] - slope * sizes[1]), slope


def _kept_bytes(posterior: Posterior, x: Tensor, y: Tensor) -> float:
    """Bytes that autograd keeps of a pass, the weights and the inputs aside."""
    kept: dict[int, int] = {}
    model = posterior.model
    weights = model.flatten(model.drawn).to(x.device)
    own = {x.untyped_storage()._cdata, y.untyped_storage()._cdata}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return tensor

    values = {n: v.requires_grad_() for n, v in model.unflatten(weights, model.drawn).items()}
    own.add(weights.untyped_storage()._cdata)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        predictions = model.predict_one(values, posterior.point.detach(), x).unsqueeze(0)
        loss = model.likelihood.total_nll(predictions, y)
    total = float(sum(size for key, size in kept.items() if key not in own))
    del loss
    return total
