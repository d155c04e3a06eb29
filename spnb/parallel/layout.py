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
from dataclasses import asdict, dataclass, replace
from typing import Literal

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
        ValueError: a degree is neither positive nor -1, or several are -1.
    """

    sample: int = 1
    data: int = 1
    shard: int = 1

    def __post_init__(self) -> None:
        """Refuse degrees that cannot be."""
        for axis, degree in asdict(self).items():
            if not isinstance(degree, int) or isinstance(degree, bool):
                raise TypeError(f"{axis}={degree!r} must be a whole number.")
            if degree < 1 and degree != -1:
                raise ValueError(f"{axis}={degree} must be at least 1, or -1 to infer it.")
        if sum(degree == -1 for degree in asdict(self).values()) > 1:
            words = " and ".join(f"{a}={d}" for a, d in asdict(self).items() if d == -1)
            raise ValueError(f"{words}: only one axis can be inferred.")

    @property
    def size(self) -> int:
        """Number of ranks."""
        return self.sample * self.data * self.shard

    def __str__(self) -> str:
        """Such as ``sample=2 × data=1``; ``shard`` is named where there is one."""
        sharded = f" × shard={self.shard}" if self.shard != 1 else ""
        return f"sample={self.sample} × data={self.data}{sharded}"

    def resolve(self, world_size: int) -> Layout:
        """The layout with an inferred axis filled in.

        Args:
            world_size: number of ranks there are.

        Raises:
            ValueError: the degrees do not multiply to the world size.
        """
        degrees = asdict(self)
        if -1 in degrees.values():
            known = -self.size
            if world_size % known:
                raise ValueError(f"{self}: {known} does not divide world_size={world_size}.")
            axis = next(axis for axis, degree in degrees.items() if degree == -1)
            return replace(self, **{axis: world_size // known})
        if self.size != world_size:
            hint = (
                f"run it in a pool, spnb.WorkerPool({self.size}).run(...), or under "
                f"python -m torch.distributed.run --nproc-per-node {self.size}"
                if world_size == 1
                else "change the layout or the number of workers"
            )
            raise ValueError(f"{self} = {self.size} != world_size={world_size}: {hint}.")
        return self

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
            ValueError: more sample ranks than samples, or more data ranks than rows.
        """
        if self.sample > num_samples:
            raise ValueError(
                f"{self.sample} ranks along sample but num_samples={num_samples}: "
                f"{self.sample - num_samples} would have nothing to do; use more samples, or "
                f"Layout(sample={num_samples}, data={math.ceil(self.size / num_samples)})."
            )
        if self.length("rows") > num_rows:
            axes = "data" if self.shard == 1 else "data and shard"
            raise ValueError(
                f"{self.length('rows')} ranks along {axes} but only {num_rows} rows in a batch: "
                "use larger batches or fewer data ranks."
            )
