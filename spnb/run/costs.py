"""What one forward and backward pass of a network costs: measured here, or counted anywhere."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from spnb.maths.posteriors import Posterior
from spnb.run import inputs
from spnb.run.footprint import Footprint, footprint, line, two_sizes
from spnb.run.machine import Machine

MEASURE_SECONDS = 0.4
"""How long passes of each size are repeated for."""


@dataclass(frozen=True)
class Costs(Footprint):
    """What the cost model has to know of a network.

    Attributes:
        pass_fixed: seconds of a pass of one sample, whatever the rows.
        pass_per_row: seconds of a pass for each row.
        antithetic: whether two samples share their noise.
        origin: whether the passes were measured or counted.
    """

    pass_fixed: float
    pass_per_row: float
    antithetic: bool
    origin: Literal["measured", "counted"]

    def passes(self, rows: int) -> float:
        """Seconds of one sample's forward and backward pass on some rows."""
        return self.pass_fixed + self.pass_per_row * rows


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
    sizes = two_sizes(len(x))
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
    sizes = two_sizes(len(x))
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
    fixed, per_row = line(sizes, seconds)
    found = asdict(footprint(posterior, x, y))
    return Costs(
        **found,
        pass_fixed=fixed,
        pass_per_row=per_row,
        antithetic=posterior.antithetic,
        origin=origin,
    )
