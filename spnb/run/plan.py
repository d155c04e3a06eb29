"""The planner: what a step costs in every layout, before it is run, and which layout to choose."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from spnb.maths.objectives import Objective
from spnb.maths.posteriors import Posterior
from spnb.parallel.layout import Layout
from spnb.parallel.pool import WorkerPool
from spnb.run import calibrate, costs, inputs
from spnb.run.costs import Costs
from spnb.run.machine import Machine
from spnb.run.step_cost import Prediction, predict


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
        width = max(22, *(len(str(p.layout)) for p in self.predictions))
        head = f"{'layout':<{width}}{'ms a step':>11}{'MB sent':>10}{'MB a rank':>11}"
        lines = [
            f"{p.layout!s:<{width}}{1e3 * p.seconds:>11.2f}{p.bytes_per_step / 1e6:>10.2f}"
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
        Layouts with ``shard`` are looked at where no other fits into memory.

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

    def all_of(shards: Iterable[int]) -> list[Prediction]:
        return [
            predict(found, machine, cut, num_samples, rows, objective, recompute, limit, per_item)
            for cut in layouts(size, num_samples, rows, shards)
        ]

    predictions = all_of([1])
    if posterior.elementwise and not any(p.fits for p in predictions):
        predictions += all_of(range(2, size + 1))
    if not predictions:
        raise ValueError(
            f"{size} ranks cannot share S = {num_samples} samples and B = {rows} rows so that each "
            "has something to do: use fewer ranks, or more samples or rows."
        )
    predictions.sort(key=lambda p: (not p.fits, p.seconds))
    return Plan(tuple(predictions), found, machine)


def layouts(
    world_size: int, num_samples: int, num_rows: int, shards: Iterable[int] = (1,)
) -> Iterator[Layout]:
    """All layouts of so many ranks in which none is always idle, with so many ranks along shard."""
    for shard, sample in itertools.product(shards, range(1, world_size + 1)):
        data, left = divmod(world_size, sample * shard)
        if not left and sample <= num_samples and data * shard <= num_rows:
            yield Layout(sample, data, shard)


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
