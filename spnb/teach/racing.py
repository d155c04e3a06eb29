"""Races between ways to share a step, and timelines of real steps, measured on a pool's live ranks.

All contenders of a race take turns in rounds, within one call of the pool, so that a passing load
of the machine meets all of them, and a speed-up compares what was measured in the same round.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from spnb.maths.posteriors import Posterior
from spnb.parallel.layout import Layout
from spnb.parallel.pool import WorkerPool
from spnb.parallel.trace import Span
from spnb.run.loop import Loop
from spnb.run.optimizer import adam
from spnb.run.place import place_of
from spnb.run.setup import begin
from spnb.run.timeline import timeline

Data = tuple[Tensor, Tensor]
Step = Callable[[], object]
Way = Layout | Callable[[Posterior, Data, int], Step] | None
"""How a step is shared: a layout; None: rank 0 does it alone, and the others wait; or a function
``(posterior, (x, y), num_samples) -> step`` that runs on every rank, gets the whole batch and a
posterior to train, and returns what takes one step."""

Spread = tuple[float, float, float]
"""Lower quartile, median and upper quartile."""

WARM_UP = 1
"""Steps of each contender before the first round: they allocate, and make process groups."""

MIN_ROUNDS = 3
"""Rounds that are run in any case: fewer have no spread."""


@dataclass(frozen=True)
class Contender:
    """One way to do a step, and how much there is to do.

    Attributes:
        way: how the ranks share it.
        num_samples: S, over all ranks.
        batch_size: B, over all ranks: the first rows of the data.
    """

    way: Way
    num_samples: int
    batch_size: int


@dataclass(frozen=True)
class Race:
    """What a race found.

    Attributes:
        rounds: milliseconds of every step on rank 0, by contender, ``[rounds][steps]``.
    """

    rounds: Mapping[str, list[list[float]]]

    def spread(self, name: str) -> Spread:
        """Quartiles of a contender's steps, in milliseconds."""
        return quartiles([step for steps in self.rounds[name] for step in steps])

    def fastest(self, name: str) -> float:
        """Milliseconds of a contender's fastest step."""
        return min(min(steps) for steps in self.rounds[name])

    def speed_up(self, name: str, against: str) -> Spread:
        """Quartiles, over the rounds, of how many times as fast as another one a contender was."""
        pairs = zip(self.rounds[against], self.rounds[name], strict=True)
        return quartiles([statistics.median(a) / statistics.median(b) for a, b in pairs])


def quartiles(values: list[float]) -> Spread:
    """Lower quartile, median and upper quartile of at least one value."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def limit(layout: Layout, num_samples: int, batch_size: int) -> float:
    """How many times as fast as one rank a layout can be at best, by the arithmetic of its tiles.

    The step lasts as long as the largest tile. Sending, and work that is not shared, only add.

    Args:
        layout: how the ranks share the work.
        num_samples: S, over all ranks.
        batch_size: B, over all ranks.
    """
    tiles = [layout.tile(rank, num_samples, batch_size) for rank in range(layout.size)]
    return num_samples * batch_size / max(len(t.samples) * len(t.rows) for t in tiles)


def race(
    pool: WorkerPool,
    contenders: Mapping[str, Contender],
    posterior: Posterior,
    data: Data,
    *,
    rounds: int = 50,
    steps: int = 2,
    seconds: float = 2.0,
) -> Race:
    """Let contenders take turns on a pool's ranks.

    Args:
        pool: the ranks.
        contenders: who takes part, by name.
        posterior: where each of them starts from.
        data: inputs ``[N, ...]`` and targets ``[N, ...]``; N at least the largest batch.
        rounds: how often each has its turn.
        steps: timed steps in a turn; one more, which finds the caches cold, is not timed.
        seconds: no further round begins after this time, except for the first three.

    Raises:
        ValueError: there are not enough rows, or a layout does not fit the pool or its work.
    """
    largest = max(contender.batch_size for contender in contenders.values())
    if largest > len(data[0]):
        raise ValueError(f"a batch of {largest} rows needs more data than {len(data[0])} rows.")
    found = pool.run(on_this_rank, dict(contenders), posterior, data, rounds, steps, seconds)
    return Race(found[0])


def on_this_rank(
    contenders: Mapping[str, Contender],
    posterior: Posterior,
    data: Data,
    rounds: int,
    steps: int,
    seconds: float,
) -> dict[str, list[list[float]]]:
    """What each rank runs in a race: milliseconds of its steps, by contender."""
    ready = {name: _ready(contender, posterior, data) for name, contender in contenders.items()}
    for step in ready.values():
        for _ in range(WARM_UP):
            _milliseconds(step)
    times: dict[str, list[list[float]]] = {name: [] for name in contenders}
    start = time.perf_counter()
    for done in range(1, rounds + 1):
        for name, step in ready.items():
            dist.barrier()
            _milliseconds(step)
            times[name].append([_milliseconds(step) for _ in range(steps)])
        go_on = [done < MIN_ROUNDS or time.perf_counter() - start < seconds]
        dist.broadcast_object_list(go_on, src=0)
        if not go_on[0]:
            break
    return times


def _ready(contender: Contender, posterior: Posterior, data: Data) -> Step:
    """What takes one step of a contender on this rank; nothing, where others do it alone."""
    way, num_samples = contender.way, contender.num_samples
    x, y = (part[: contender.batch_size] for part in data)
    if way is None and dist.get_rank() > 0:
        return lambda: None
    if way is None or isinstance(way, Layout):
        return _training(posterior, (x, y), way, num_samples)
    place = place_of(posterior)
    return way(copy.deepcopy(posterior).to(place), (x.to(place), y.to(place)), num_samples)


def strangers(posterior: Posterior, data: Data, num_samples: int) -> Step:
    """A way that shares nothing: every rank does all of the step for itself, at the same time.

    What it costs against one rank alone is the machine's part, not the method's: processes that
    never speak to each other still share memory, caches and cores.
    """
    return _training(posterior, data, None, num_samples)


def _training(posterior: Posterior, data: Data, layout: Layout | None, num_samples: int) -> Step:
    work, x, y = begin(posterior, data, None, layout, num_samples, seed=0)
    loop = Loop(work, adam(work.posterior, 1e-3))
    return lambda: loop.step(x, y)


def _milliseconds(step: Step) -> float:
    start = time.perf_counter()
    step()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start)


def least_disturbed_step(
    pool: WorkerPool,
    posterior: Posterior,
    data: Data,
    layout: Layout | None,
    num_samples: int,
    *,
    repeats: int = 7,
) -> list[list[Span]]:
    """The spans of a real step on every rank: of several steps, the one that took least.

    That is the step which other programs disturbed least: it shows best what the step itself is
    made of. How long a step typically takes is told by a `race`.

    Args:
        pool: the ranks.
        posterior: where to start from.
        data: the batch: inputs ``[B, ...]`` and targets ``[B, ...]``.
        layout: how the ranks share it; None: rank 0 does it alone.
        num_samples: S, over all ranks.
        repeats: how many steps to choose from.

    Returns:
        The spans of each rank; none for a rank that had nothing to do.
    """
    by_rank = pool.run(timelines, posterior, data, layout, num_samples, repeats)
    return min((list(one) for one in zip(*by_rank, strict=True)), key=duration)


def duration(timeline: Sequence[Sequence[Span]]) -> float:
    """Milliseconds from the first rank's start of a step to the last rank's end."""
    steps = [span for spans in timeline for span in spans if span.name == "step"]
    return 1000 * (max(s.stop for s in steps) - min(s.start for s in steps))


def timelines(
    posterior: Posterior, data: Data, layout: Layout | None, num_samples: int, repeats: int
) -> list[list[Span]]:
    """What each rank runs for `least_disturbed_step`: the spans of some steps."""
    if layout is None and dist.get_rank() > 0:
        return [[] for _ in range(repeats)]
    return [
        timeline(posterior, data, layout=layout, num_samples=num_samples) for _ in range(repeats)
    ]
