"""Layouts: how the work of S samples on B rows is cut into tiles, one for each rank.

Ranks form a grid of two axes, ``sample`` and ``data``; along the first they share out the samples,
along the second the rows of the batch. ``Layout(sample=W)`` is sampling parallelism,
``Layout(data=W)`` data parallelism, anything else a hybrid.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Literal

Axis = Literal["sample", "data"]


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
    """How many ranks share the samples, and how many the batch.

    Args:
        sample: ranks along the sample axis; -1 infers it from the world size.
        data: ranks along the data axis; -1 likewise, at most one of the two.

    Raises:
        ValueError: a degree is neither positive nor -1, or both are -1.
    """

    sample: int = 1
    data: int = 1

    def __post_init__(self) -> None:
        """Refuse degrees that cannot be."""
        for axis, degree in asdict(self).items():
            if not isinstance(degree, int) or isinstance(degree, bool):
                raise TypeError(f"{axis}={degree!r} must be a whole number.")
            if degree < 1 and degree != -1:
                raise ValueError(f"{axis}={degree} must be at least 1, or -1 to infer it.")
        if self.sample == self.data == -1:
            raise ValueError("sample=-1 and data=-1: only one axis can be inferred.")

    @property
    def size(self) -> int:
        """Number of ranks."""
        return self.sample * self.data

    def __str__(self) -> str:
        """Such as ``sample=2 × data=1``."""
        return f"sample={self.sample} × data={self.data}"

    def resolve(self, world_size: int) -> Layout:
        """The layout with an inferred axis filled in.

        Args:
            world_size: number of ranks there are.

        Raises:
            ValueError: the degrees do not multiply to the world size.
        """
        if -1 in (self.sample, self.data):
            known = max(self.sample, self.data)
            if world_size % known:
                raise ValueError(f"{self}: {known} does not divide world_size={world_size}.")
            axis = "sample" if self.sample == -1 else "data"
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

    def coordinate(self, rank: int, axis: Axis) -> int:
        """Where a rank stands along an axis; ranks count fastest along ``data``."""
        return rank // self.data if axis == "sample" else rank % self.data

    def ranks(self, rank: int, axis: Axis) -> tuple[int, ...]:
        """The ranks that differ from a rank along one axis only, itself included."""
        if axis == "data":
            start = rank - rank % self.data
            return tuple(range(start, start + self.data))
        return tuple(range(rank % self.data, self.size, self.data))

    def sizes(self, axis: Axis, total: int) -> list[int]:
        """How many of ``total`` samples or rows each rank along an axis has."""
        parts = self.sample if axis == "sample" else self.data
        return [len(share(total, parts, i)) for i in range(parts)]

    def tile(self, rank: int, num_samples: int, num_rows: int) -> Tile:
        """The samples and rows of a rank; every pair of them belongs to exactly one rank."""
        return Tile(
            share(num_samples, self.sample, self.coordinate(rank, "sample")),
            share(num_rows, self.data, self.coordinate(rank, "data")),
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
        if self.data > num_rows:
            raise ValueError(
                f"{self.data} ranks along data but only {num_rows} rows in a batch: use larger "
                "batches or fewer data ranks."
            )
