"""The planner: what a step costs in every layout, before it is run, and which layout to choose."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from spnb.maths.objectives import Objective
from spnb.maths.posteriors import Posterior
from spnb.parallel.arguments import flag, real, whole
from spnb.parallel.layout import divisors, layouts
from spnb.parallel.pool import WorkerPool
from spnb.run import calibrate, costs
from spnb.run.costs import Costs
from spnb.run.job import Job, check_numbers
from spnb.run.machine import Machine
from spnb.run.memory import of_rank
from spnb.run.place import placed
from spnb.run.step_cost import Prediction, predict

__all__ = ["Plan", "layouts", "plan"]


@dataclass(frozen=True)
class Plan:
    """Predictions for all layouts of some ranks, the fastest first.

    Attributes:
        predictions: one a layout; those that do not fit into memory come last.
        costs: of the network.
        machine: the constants.
        way_out: where no layout fits into memory, what does, in a sentence.
    """

    predictions: tuple[Prediction, ...]
    costs: Costs
    machine: Machine
    way_out: str = ""

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
                f"No layout fits: the smallest, {least.layout}, needs {_bytes(least.memory)} a "
                f"rank. {self.way_out}"
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
    num_samples: int | None = None,
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
        posterior: the posterior. Without a pool it may lie on the meta device, where it takes no
            memory.
        data: inputs ``[N, ...]`` and targets ``[N, ...]``; one batch is enough. On the meta device
            their shapes alone count, as long as what the network does does not depend on numbers.
        num_samples: S, over all ranks; None: 8, or all that the posterior has.
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
        TypeError: something is of the wrong kind.
        ValueError: bad numbers, shapes or data; neither a pool nor a machine and a world size; or
            more ranks than work.
    """
    size = _world_size(world_size, machine, pool)
    if memory_limit is not None:
        real("memory_limit", memory_limit, above=True, infinite=True)
    flag("recompute", recompute)
    job = Job.of(posterior, data, num_samples, batch_size, objective)
    _check_work(job, size)
    if pool is not None:
        machine, found = _measured(job, machine, pool)
    else:
        assert machine is not None
        found = costs.count(posterior, (job.x, job.y), job.rows, machine)
    limit = machine.memory if memory_limit is None else memory_limit

    def all_of(shards: Iterable[int]) -> list[Prediction]:
        return [
            predict(
                found,
                machine,
                layout,
                job.num_samples,
                job.rows,
                job.objective,
                recompute,
                limit,
                job.per_item,
            )
            for layout in layouts(size, job.num_samples, job.rows, shards)
        ]

    predictions, way_out = all_of([1]), ""
    if job.shards and not any(p.fits for p in predictions):
        predictions += all_of(divisors(size)[1:])
    if limit is not None and not any(p.fits for p in predictions):
        way_out = _way_out(found, machine, job, size, recompute, limit)
    predictions.sort(key=lambda p: (not p.fits, p.seconds))
    return Plan(tuple(predictions), found, machine, way_out)


def _world_size(world_size: int | None, machine: Machine | None, pool: WorkerPool | None) -> int:
    """How many ranks to plan for.

    Raises:
        TypeError: something is of the wrong kind.
        ValueError: nothing to plan with, or more ranks than the machine is known to connect.
    """
    if not isinstance(machine, Machine | None):
        raise TypeError(
            f"machine is a {type(machine).__name__}; give one of spnb.machines, such as "
            "spnb.machines.H100, or what spnb.calibrate returned."
        )
    if not isinstance(pool, WorkerPool | None):
        raise TypeError(f"pool is a {type(pool).__name__}; give a spnb.WorkerPool or None.")
    size = pool.size if world_size is None and pool else world_size
    if size is None or (pool is None and machine is None):
        raise ValueError(
            "Give a pool to measure on, or a machine and world_size, such as "
            "machine=spnb.machines.H100, world_size=8."
        )
    size = whole("world_size", size)
    if machine is not None:
        machine.link(size)
    elif pool is not None and size > pool.size:
        raise ValueError(
            f"world_size={size}, but the pool's {pool.size} ranks do not show how several hosts "
            "are connected: give machine=dataclasses.replace(spnb.calibrate(pool), "
            "between=spnb.machines.INFINIBAND_NDR)."
        )
    return size


def _check_work(job: Job, world_size: int) -> None:
    """Refuse more ranks than can have something to do.

    Raises:
        ValueError: names fewer ranks, more samples and more rows with which each would.
    """
    samples, rows = job.num_samples, job.rows
    if any(layouts(world_size, samples, rows)):
        return
    fewer = range(min(world_size - 1, samples * rows), 0, -1)
    ways = [f"world_size={next(n for n in fewer if any(layouts(n, samples, rows)))}"]
    if job.posterior.draws_in_training is None:
        more = min(n for n in divisors(world_size) if world_size // n <= rows)
        ways.append(f"num_samples={more}")
    more = min(n for n in divisors(world_size) if world_size // n <= samples)
    raise ValueError(
        f"{world_size} ranks cannot share S = {samples} samples and B = {rows} rows so that each "
        f"has something to do: use {', '.join(ways)} or batches of {more} rows."
    )


def _measured(job: Job, machine: Machine | None, pool: WorkerPool) -> tuple[Machine, Costs]:
    """The constants of a pool, unless they are given, and the costs of a network's passes on it."""
    check_numbers(job.posterior, job.x, job.y)
    machine = machine or calibrate.calibrate(pool)
    batch = job.x.clone(), job.y.clone()  # without the rest of the data set
    return machine, pool.run(_measured_alone, job.posterior, batch, job.rows)[0]


def _measured_alone(posterior: Posterior, data: Sequence[Any], rows: int) -> Costs | None:
    """What each rank of a pool runs: rank 0 measures while the others wait."""
    return calibrate.alone(lambda: costs.measure(placed(posterior), data, rows))


def _way_out(
    found: Costs, machine: Machine, job: Job, world_size: int, recompute: bool, limit: float
) -> str:
    """What fits into memory where no layout of so many ranks does, in a sentence."""

    def least(ranks: int, rows: int, again: bool) -> float:
        shards = divisors(ranks) if job.shards else [1]
        return min(
            (
                of_rank(
                    found,
                    layout,
                    job.num_samples,
                    rows,
                    job.objective,
                    recompute=again,
                    per_item=job.per_item,
                ).total
                for layout in layouts(ranks, job.num_samples, rows, shards)
            ),
            default=math.inf,
        )

    most = job.num_samples * job.rows
    if machine.between is None:
        most = min(most, machine.ranks_per_host)
    more = [world_size * 2**n for n in range(1, 64) if world_size * 2**n <= most]
    fewer = [job.rows // 2**n for n in range(1, job.rows.bit_length())]
    tried = {"recompute=True": least(world_size, job.rows, True)}
    tried |= {f"world_size={ranks}": least(ranks, job.rows, recompute) for ranks in more}
    tried |= {f"batch_size={rows}": least(world_size, rows, recompute) for rows in fewer}
    fits = [way for way, memory in tried.items() if memory <= limit]
    kinds = {way.split("=")[0]: way for way in reversed(fits)}  # the first of each
    if kinds:
        return f"One does with {' or '.join(reversed(kinds.values()))}."
    least_of_all = _bytes(min(tried.values()))
    return f"Neither more ranks nor smaller batches would do: a rank needs {least_of_all} at least."


def _bytes(number: float) -> str:
    power = min(3, int(math.log(number, 1024)))
    return f"{number / 1024**power:.3g} {('B', 'KiB', 'MiB', 'GiB')[power]}"
