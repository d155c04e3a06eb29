r"""The planner: what a step costs in every layout, before it is run, and which layout to choose.

The rank with the largest tile decides. With :math:`S_r` samples on :math:`b_r` rows, P weights and
W ranks,

.. math:: t = S_r \,(t_\text{pass}(b_r) + P\, t_\text{draw} + t_\text{sample}) + P\, t_\text{update}
          + t_\text{step} + t_\text{all-reduce}(2P) + t_\text{gather}.

See `spnb.run.machine` for the constants and `spnb.run.costs` for the passes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from spnb.maths.objectives import ELBO, Objective
from spnb.maths.posteriors import Posterior
from spnb.parallel.layout import Layout
from spnb.parallel.pool import WorkerPool
from spnb.run import calibrate, costs, inputs
from spnb.run.costs import Costs
from spnb.run.gradient import NUM_LOSSES
from spnb.run.machine import Machine

FORWARD_SHARE = 0.35
"""A forward pass' part of a forward and backward pass: one of three equal matrix products, and a
little more, since the first layer's inputs need no gradient."""


@dataclass(frozen=True)
class Prediction:
    """What a step is expected to cost in one layout.

    Attributes:
        layout: the layout.
        parts: seconds by kind: ``passes``, ``draw``, ``update``, ``all-reduce``, ``gather``.
        bytes_per_step: bytes that a rank hands to collectives.
        memory: bytes that a rank needs: its state, its samples in flight, what passes keep.
        fits: whether that is within the limit.
    """

    layout: Layout
    parts: dict[str, float]
    bytes_per_step: int
    memory: float
    fits: bool

    @property
    def seconds(self) -> float:
        """Seconds of a step."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Plan:
    """Predictions for all layouts of some ranks, the fastest first.

    Attributes:
        predictions: one a layout; those that do not fit into memory come last.
        costs: of the network.
        machine: the constants.
    """

    predictions: tuple[Prediction, ...]
    costs: Costs
    machine: Machine

    @property
    def best(self) -> Prediction:
        """The fastest layout that fits.

        Raises:
            MemoryError: none does.
        """
        first = self.predictions[0]
        if not first.fits:
            least = min(self.predictions, key=lambda p: p.memory)
            raise MemoryError(
                f"No layout fits: the smallest, {least.layout}, needs {least.memory / 2**30:.2f} "
                "GiB a rank. Use more ranks or smaller batches; for objectives not linear in "
                "the samples, recompute=True."
            )
        return first

    def __repr__(self) -> str:
        """A table, one line a layout."""
        head = f"{'layout':<22}{'ms a step':>11}{'MB sent':>10}{'MB a rank':>11}"
        lines = [
            f"{p.layout!s:<22}{1e3 * p.seconds:>11.2f}{p.bytes_per_step / 1e6:>10.2f}"
            f"{p.memory / 1e6:>11.1f}{'' if p.fits else '  does not fit'}"
            for p in self.predictions
        ]
        return "\n".join([f"{self.machine.name}; passes {self.costs.origin}", head, *lines])


def plan(
    posterior: Posterior,
    data: Sequence[Any],
    *,
    num_samples: int,
    batch_size: int | None = None,
    world_size: int | None = None,
    objective: Objective | None = None,
    recompute: bool = False,
    machine: Machine | None = None,
    pool: WorkerPool | None = None,
    memory_limit: float | None = None,
) -> Plan:
    """Predict step time, traffic and memory of every layout, and put the best first.

    With a pool, the network's passes are timed on one of its workers, and without a machine the
    pool is calibrated as well, in some seconds. Without a pool, operations are only counted: for a
    machine that is not here.

    Args:
        posterior: the posterior.
        data: inputs ``[N, ...]`` and targets ``[N, ...]``; one batch is enough.
        num_samples: S, over all ranks.
        batch_size: B, over all ranks; None: all rows.
        world_size: number of ranks; None: the pool's.
        objective: None: the `ELBO`.
        recompute: as for `spnb.fit`.
        machine: the constants; None: those of the pool.
        pool: live workers to measure on.
        memory_limit: bytes a rank may use; None: the machine's memory.

    Returns:
        Predictions for all layouts of exactly so many ranks that give every rank something to do.
        Samples in antithetic pairs are counted as if they were independent.

    Raises:
        ValueError: neither a pool nor a machine and a world size, or more ranks than work.
    """
    given = {"num_samples": num_samples, "batch_size": batch_size, "world_size": world_size}
    inputs.positive(**{name: value for name, value in given.items() if value is not None})
    if pool is None and (machine is None or world_size is None):
        raise ValueError(
            "Give a pool to measure on, or a machine and world_size, such as "
            "machine=spnb.machines.H100, world_size=8."
        )
    rows = len(data[0]) if batch_size is None else min(batch_size, len(data[0]))
    if pool is not None:
        machine = machine or calibrate.calibrate(pool)
        found = pool.run(_measured_alone, posterior, data, rows)[0]
    else:
        assert machine is not None
        found = costs.count(posterior, data, rows, machine)
    size = world_size or (pool.size if pool else 1)
    limit = machine.memory if memory_limit is None else memory_limit
    per_item = objective is None or _per_item(posterior, data, objective)
    predictions = [
        predict(found, machine, layout, num_samples, rows, objective, recompute, limit, per_item)
        for layout in layouts(size, num_samples, rows)
    ]
    if not predictions:
        raise ValueError(
            f"{size} ranks cannot share S = {num_samples} samples and B = {rows} rows so that each "
            "has something to do: use fewer ranks, or more samples or rows."
        )
    predictions.sort(key=lambda p: (not p.fits, p.seconds))
    return Plan(tuple(predictions), found, machine)


def layouts(world_size: int, num_samples: int, num_rows: int) -> Iterator[Layout]:
    """All layouts of so many ranks in which none is always idle."""
    for sample in range(1, world_size + 1):
        data, left = divmod(world_size, sample)
        if not left and sample <= num_samples and data <= num_rows:
            yield Layout(sample, data)


def predict(
    found: Costs,
    machine: Machine,
    layout: Layout,
    num_samples: int,
    num_rows: int,
    objective: Objective | None = None,
    recompute: bool = False,
    memory_limit: float | None = None,
    per_item: bool = True,
) -> Prediction:
    """What a step costs in one layout.

    Args:
        found: the network's costs.
        machine: the constants.
        layout: the layout.
        num_samples: as for `plan`.
        num_rows: B, over all ranks.
        objective: as for `plan`.
        recompute: as for `plan`.
        memory_limit: as for `plan`; None: none.
        per_item: whether the objective gives a loss for each item, or one for the batch, for which
            the predictions of all rows have to be gathered.
    """
    objective = objective or ELBO()
    samples = math.ceil(num_samples / layout.sample)
    rows = math.ceil(num_rows / layout.data)
    gathers = not (objective.linear_in_samples or objective.local)
    separable = objective.separable and per_item
    again = recompute and not separable
    one_pass = found.passes(rows) * machine.slowdown(layout.size)
    drawing = found.weights * machine.draw + machine.per_sample
    total = 2 * found.weights + found.point + NUM_LOSSES + layout.size
    sent = found.itemsize * total if layout.size > 1 else 0
    parts = {
        "passes": samples * one_pass * (1 + FORWARD_SHARE * again),
        "draw": samples * drawing * (1 + again),
        "update": found.weights * machine.update + machine.per_step,
        "all-reduce": machine.link(layout.size).all_reduce(sent, layout.size),
        "gather": 0.0,
    }
    if gathers and layout.sample > 1:
        own = found.itemsize * found.prediction * samples * rows
        reach = layout.size if layout.size > machine.ranks_per_host else layout.sample
        parts["gather"] = machine.link(reach).all_gather(own * layout.sample, layout.sample)
        sent += own
    if not per_item and layout.data > 1:
        own = found.itemsize * found.prediction * (num_samples if gathers else samples) * rows
        reach = layout.size if layout.size > machine.ranks_per_host else layout.data
        parts["gather"] += machine.link(reach).all_gather(own * layout.data, layout.data)
        sent += own
    kept = 1 if separable or again else samples
    memory = _memory(found, kept, rows)
    fits = memory_limit is None or memory <= memory_limit
    return Prediction(layout, parts, sent, memory, fits)


def _memory(found: Costs, kept: int, rows: int) -> float:
    """Bytes of a rank: state, one sample in evaluation, and what the kept graphs hold."""
    state = 9  # means and scales, their gradients, two moments of both, and the net's own weights
    sample = 6  # sigma and its gradient, noise, weights, their gradient, and one intermediate
    if kept > 1:  # each graph holds its weights and noise
        sample += 2 * (kept - 1)
    numbers = (state + sample) * found.weights
    return found.itemsize * numbers + kept * found.kept(rows)


def _per_item(posterior: Posterior, data: Sequence[Any], objective: Objective) -> bool:
    """Whether an objective gives a loss for each item; tried on a few made-up predictions."""
    x, y = torch.as_tensor(data[0])[:1], torch.as_tensor(data[1])[:1]
    model = copy.deepcopy(posterior.model).to("meta")
    with torch.no_grad():
        weights = model.flatten(model.drawn).unsqueeze(0)
        shape = model.predict(weights, model.flatten(model.deterministic), x.to("meta")).shape
    made_up = torch.zeros(shape, dtype=torch.get_default_dtype())
    targets = torch.zeros(y.shape, dtype=y.dtype)
    return inputs.loss_per_item(posterior, objective, made_up, targets)


def _measured_alone(posterior: Posterior, data: Sequence[Any], rows: int) -> Costs | None:
    """What each rank of a pool runs: rank 0 measures while the others wait."""
    return calibrate.alone(lambda: costs.measure(posterior, data, rows))
