"""What one forward and backward pass of a network costs: measured here, or counted anywhere."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from spnb.maths.models import BayesianModel, plain_attention
from spnb.maths.posteriors import Posterior
from spnb.run.footprint import Footprint, footprint, line, two_sizes
from spnb.run.job import check_numbers, first_rows
from spnb.run.machine import Machine
from spnb.run.passes import computes, look

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

    Raises:
        TypeError: something is of the wrong kind.
        ValueError: bad numbers, shapes or data, or none.
    """
    x, y = first_rows(posterior, data, batch_size)
    check_numbers(posterior, x, y)
    place = next(posterior.parameters()).device
    x, y = x.to(place), y.to(place)
    sizes = two_sizes(len(x))
    return _costs(posterior, x, y, line(sizes, _times(posterior, x, y, sizes)), "measured")


def count(posterior: Posterior, data: Sequence[Any], batch_size: int, machine: Machine) -> Costs:
    """Count operations instead, for a machine that is not here; nothing is timed.

    A pass takes ``operations * launch + floating-point operations / flops``. A recurrent layer is
    counted step by step; where a machine has one operation for it, that is the slower way.

    Args:
        posterior: the posterior; it may lie on the meta device, where it takes no memory.
        data: inputs ``[N, ...]`` and targets ``[N, ...]``. On the meta device their shapes alone
            count, as long as what the network does does not depend on numbers.
        batch_size: B.
        machine: the constants.

    Raises:
        TypeError: something is of the wrong kind.
        ValueError: bad numbers, shapes or data, or none where the network needs them.
    """
    x, y = first_rows(posterior, data, batch_size)

    def see(model: BayesianModel, point: Tensor, x: Tensor, y: Tensor) -> tuple[float, float]:
        sizes, seconds = two_sizes(len(x)), []
        for rows in sizes:
            with FlopCounterMode(display=False) as flops, _Operations() as operations:
                _run(model, point, x[:rows], y[:rows])
            launches = operations.number * machine.launch
            seconds.append(launches + flops.get_total_flops() / machine.flops)
        return line(sizes, seconds)

    with _in_plain_steps(), plain_attention():
        passes = look(posterior, x, y, see, torch.device("cpu"))
    return _costs(posterior, x, y, passes, "counted")


@contextmanager
def _in_plain_steps() -> Iterator[None]:
    """Recurrent layers in operations that any device has; the counter knows their products."""
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before


class _Operations(TorchDispatchMode):
    """Counts operations that compute something."""

    number = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any | None = None
    ) -> Any:
        self.number += computes(func)
        return func(*args, **(kwargs or {}))


def _run(model: BayesianModel, point: Tensor, x: Tensor, y: Tensor) -> None:
    """One pass of the network at the values that it holds."""
    weights = model.flatten(model.drawn)
    values = {n: v.requires_grad_() for n, v in model.unflatten(weights, model.drawn).items()}
    predictions = model.predict_one(values, point, x).unsqueeze(0)
    loss = model.likelihood.total_nll(predictions, y)
    torch.autograd.backward(loss, inputs=list(values.values()))


def seconds_of_passes(posterior: Posterior, x: Tensor, y: Tensor, number: int) -> float:
    """Seconds of some passes in a row.

    Args:
        posterior: the posterior.
        x: inputs ``[B, ...]``, where it computes.
        y: targets ``[B, ...]``.
        number: how many passes.
    """
    point = posterior.point.detach()
    start = time.perf_counter()
    for _ in range(number):
        _run(posterior.model, point, x, y)
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter() - start


def _times(posterior: Posterior, x: Tensor, y: Tensor, sizes: Sequence[int]) -> list[float]:
    """Median seconds of a pass for each number of rows, measured in turns."""
    times: dict[int, list[float]] = {rows: [] for rows in sizes}
    for rows in sizes:
        seconds_of_passes(posterior, x[:rows], y[:rows], 1)
    begin = time.perf_counter()
    while time.perf_counter() - begin < MEASURE_SECONDS * len(sizes) or len(times[sizes[0]]) < 5:
        for rows in sizes:
            times[rows].append(seconds_of_passes(posterior, x[:rows], y[:rows], 1))
    return [statistics.median(times[rows]) for rows in sizes]


def _costs(
    posterior: Posterior,
    x: Tensor,
    y: Tensor,
    passes: tuple[float, float],
    origin: Literal["measured", "counted"],
) -> Costs:
    fixed, per_row = passes
    found = asdict(footprint(posterior, x, y))
    return Costs(
        **found,
        pass_fixed=fixed,
        pass_per_row=per_row,
        antithetic=posterior.antithetic,
        origin=origin,
    )
