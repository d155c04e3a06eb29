"""Layouts: how the work of S samples on B rows is cut into tiles, one for each rank.

Ranks form a grid of axes. Along ``sample`` they share out the samples, along ``data`` the rows of
the batch; along ``shard`` the rows as well, and the parameters of the posterior with them, of which
each rank then holds only its share. ``Layout(sample=W)`` is sampling parallelism,
``Layout(data=W)`` data parallelism, ``Layout(shard=W)`` what others call fully sharded data
parallelism, anything else a hybrid.

Ranks count fastest along ``shard``, whose ranks speak to each other at every sample, and slowest
along ``sample``: launchers number the ranks of a host in a row, so the talkative ones share one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Literal

from spnb.parallel.arguments import whole

Axis = Literal["sample", "data", "shard", "rows", "replicas"]
"""The three axes; ``rows``: ``data`` and ``shard`` as one, along which the batch is cut;
``replicas``: ``sample`` and ``data`` as one, whose ranks hold the same parameters."""


def share(total: int, parts: int, index: int) -> range:
    """Part ``index`` of ``range(total)`` cut into ``parts``, the first ones larger by one.

    Nothing is lost where the division leaves a remainder: 16 samples on 6 ranks are
    3, 3, 3, 3, 2 and 2.
    """
    size, larger = divmod(total, parts)
    start = index * size + min(index, larger)
    return range(start, start + size + (index < larger))


@dataclass(frozen=True)
class Tile:
    """The part of the S x B work that one rank does.

    Attributes:
        samples: indices of its samples.
        rows: positions of its rows in the batch.
    """

    samples: range
    rows: range


@dataclass(frozen=True)
class Layout:
    """How many ranks share the samples, the batch, and the parameters.

    Args:
        sample: ranks along the sample axis; -1 infers it from the world size.
        data: ranks along the data axis; -1 likewise.
        shard: ranks along the shard axis; -1 likewise, at most one of the three.

    Raises:
        TypeError: a degree is no whole number.
        ValueError: a degree is neither positive nor -1, or several are -1.
    """

    sample: int = 1
    data: int = 1
    shard: int = 1

    def __post_init__(self) -> None:
        """Refuse degrees that cannot be."""
        for axis, degree in asdict(self).items():
            if whole(axis, degree, least=None) < 1 and degree != -1:
                raise ValueError(f"{axis}={degree} must be at least 1, or -1 to infer it.")
            object.__setattr__(self, axis, int(degree))
        if len(self._inferred) > 1:
            words = " and ".join(f"{axis}=-1" for axis in self._inferred)
            raise ValueError(f"{words}: only one axis can be inferred.")

    @property
    def _inferred(self) -> list[str]:
        """The axes that are still to be inferred: one, or none."""
        return [axis for axis in ("sample", "data", "shard") if getattr(self, axis) == -1]

    @property
    def size(self) -> int:
        """Number of ranks.

        Raises:
            ValueError: an axis is still to be inferred.
        """
        size = self.sample * self.data * self.shard
        if size < 0:
            raise ValueError(
                f"{self} does not say how many ranks there are: give all axes, or infer "
                f"{self._inferred[0]} with layout.resolve(world_size)."
            )
        return size

    def __str__(self) -> str:
        """Such as ``sample=2 × data=1``; ``shard`` is named where there is one."""
        sharded = f" × shard={self.shard}" if self.shard != 1 else ""
        return f"sample={self.sample} × data={self.data}{sharded}"

    def __repr__(self) -> str:
        """As it is written in code; ``shard`` is named where there is one."""
        sharded = f", shard={self.shard}" if self.shard != 1 else ""
        return f"Layout(sample={self.sample}, data={self.data}{sharded})"

    def resolve(self, world_size: int) -> Layout:
        """The layout with an inferred axis filled in.

        Args:
            world_size: number of ranks there are.

        Raises:
            ValueError: the degrees do not multiply to the world size.
        """
        whole("world_size", world_size)
        fixed = abs(self.sample * self.data * self.shard)
        if self._inferred and world_size % fixed == 0:
            return replace(self, **{self._inferred[0]: world_size // fixed})
        if fixed == world_size:
            return self
        trouble = (
            f"{self}: {fixed} does not divide world_size={world_size}"
            if self._inferred
            else f"{self} = {fixed} != world_size={world_size}"
        )
        if world_size == 1:
            raise ValueError(
                f"{trouble}: run it in a pool, spnb.WorkerPool({fixed}).run(...), or under "
                f"python -m torch.distributed.run --nproc-per-node {fixed}."
            )
        ranks = fixed * max(1, world_size // fixed) if self._inferred else fixed
        nearest = self._nearest(world_size, world_size, world_size)
        raise ValueError(f"{trouble}: use {_count(ranks, 'rank')}, or {nearest!r}.")

    def length(self, axis: Axis) -> int:
        """How many ranks there are along an axis."""
        lengths: dict[Axis, int] = {"sample": self.sample, "data": self.data, "shard": self.shard}
        lengths |= {"rows": self.data * self.shard, "replicas": self.sample * self.data}
        return lengths[axis]

    def coordinate(self, rank: int, axis: Axis) -> int:
        """Where a rank stands along an axis."""
        replica, shard = divmod(rank, self.shard)
        sample, data = divmod(replica, self.data)
        at: dict[Axis, int] = {"sample": sample, "data": data, "shard": shard}
        at |= {"rows": rank % (self.data * self.shard), "replicas": replica}
        return at[axis]

    def ranks(self, rank: int, axis: Axis) -> tuple[int, ...]:
        """The ranks that differ from a rank along one axis only, itself included."""
        apart: dict[Axis, int] = {"sample": self.length("rows"), "data": self.shard}
        step = apart.get(axis, self.shard if axis == "replicas" else 1)
        first = rank - self.coordinate(rank, axis) * step
        return tuple(first + step * i for i in range(self.length(axis)))

    def sizes(self, axis: Axis, total: int) -> list[int]:
        """How many of ``total`` samples or rows each rank along an axis has."""
        parts = self.length(axis)
        return [len(share(total, parts, i)) for i in range(parts)]

    def tile(self, rank: int, num_samples: int, num_rows: int) -> Tile:
        """The samples and rows of a rank; every pair of them belongs to exactly one rank."""
        return Tile(
            share(num_samples, self.sample, self.coordinate(rank, "sample")),
            share(num_rows, self.length("rows"), self.coordinate(rank, "rows")),
        )

    def check_work(self, num_samples: int, num_rows: int) -> None:
        """Refuse a layout in which a rank would always be idle.

        Raises:
            ValueError: more sample ranks than samples, or more data ranks than rows; names the
                nearest layout of as many ranks in which each has something to do or, where there
                is none, of fewer.
        """
        size, rows = self.size, self.length("rows")
        trouble, larger = [], []
        if self.sample > num_samples:
            trouble.append(f"{self.sample} ranks along sample but num_samples={num_samples}")
            larger.append(f"num_samples={self.sample}")
        if rows > num_rows:
            axes = "data" if self.shard == 1 else "data and shard"
            trouble.append(f"{rows} ranks along {axes} but only {_count(num_rows, 'row')}")
            larger.append(_count(rows, "row"))
        if not trouble:
            return
        idle = size - min(self.sample, num_samples) * min(rows, num_rows)
        words = f"{' and '.join(trouble)}: {idle} would have nothing to do"
        found = self._nearest(size, num_samples, num_rows)
        way_out = repr(found)
        if found is None:
            words += f", and no layout of {size} ranks fits S = {num_samples} and B = {num_rows}"
            fewer = range(min(size - 1, num_samples * num_rows), 0, -1)
            nearest = (self._nearest(ranks, num_samples, num_rows) for ranks in fewer)
            found = next(layout for layout in nearest if layout is not None)
            way_out = f"{_count(found.size, 'rank')}, {found!r}"
        raise ValueError(
            f"{words}; use {way_out}, or at least {' and '.join(larger)} for this layout."
        )

    def _nearest(self, world_size: int, num_samples: int, num_rows: int) -> Layout | None:
        """The most similar layout of some ranks in which each has something to do."""
        shards = (1,) if self.shard == 1 else divisors(world_size)
        fixed = [axis for axis in ("sample", "data", "shard") if axis not in self._inferred]

        def distance(other: Layout) -> tuple[bool, int]:
            away = sum(abs(getattr(other, axis) - getattr(self, axis)) for axis in fixed)
            return other.shard < self.shard, away  # with fewer shards, memory might not suffice

        found = layouts(world_size, num_samples, num_rows, shards)
        return min(found, key=distance, default=None)


def layouts(
    world_size: int, num_samples: int, num_rows: int, shards: Iterable[int] = (1,)
) -> Iterator[Layout]:
    """All layouts of that many ranks in which each has something to do.

    Args:
        world_size: number of ranks.
        num_samples: S, over all ranks.
        num_rows: B, over all ranks.
        shards: how many ranks there may be along ``shard``.
    """
    for shard in shards:
        if world_size % shard == 0 and shard <= num_rows:
            for sample in divisors(world_size // shard):
                data = world_size // shard // sample
                if sample <= num_samples and data * shard <= num_rows:
                    yield Layout(sample, data, shard)


def divisors(number: int) -> list[int]:
    """The divisors of a number, in ascending order."""
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return small + [number // d for d in reversed(small) if d * d != number]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"
