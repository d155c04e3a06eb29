"""Collectives: the one place where ranks speak to each other, counted.

A `Communicator` knows the layout, has a process group for each axis, and counts the calls, bytes
and seconds of everything it sends. In a single process it exists as well and sends nothing, so
the code above it needs no special case.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from spnb.parallel import devices, launch
from spnb.parallel.blackboard import blackboard
from spnb.parallel.layout import Axis, Layout
from spnb.parallel.trace import Trace

T = TypeVar("T")

_AXES: tuple[Axis, ...] = ("sample", "data", "shard", "rows", "replicas")

# torch has given them new names
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor

#: groups along the axes, by layout, of the default group that they were made in
_groups: dict[tuple[Any, Layout], dict[Axis, Any]] = {}


@dataclass
class Traffic:
    """What one rank sent: number of calls, bytes handed over, seconds spent waiting."""

    calls: int = 0
    bytes: int = 0
    seconds: float = 0.0


def world() -> tuple[int, int]:
    """This process' rank and the world size, (0, 1) for a process by itself.

    Under ``python -m torch.distributed.run``, or ``srun``, the default process group is made here,
    if the program has not done so itself.
    """
    if not dist.is_available():
        return 0, 1
    launch.adopt_slurm()
    if not dist.is_initialized():
        if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "MASTER_ADDR" not in os.environ:
            return 0, 1
        device, backend = local_device()
        if device.type == "cuda":  # NCCL sends from the current one
            torch.cuda.set_device(device)
        devices.keep_freed_memory()
        launch.join(backend)
        atexit.register(_leave)
    return dist.get_rank(), dist.get_world_size()


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def is_rank() -> bool:
    """Whether a launcher, or a pool, has made this process one of its ranks."""
    launch.adopt_slurm()
    return "LOCAL_RANK" in os.environ


def local_device() -> tuple[torch.device, str]:
    """Device and backend of this process, from its place on its host."""
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    return devices.choose(local_rank, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


@dataclass
class Communicator:
    """The ranks of a layout, able to sum and to gather.

    Attributes:
        layout: how the ranks are laid out.
        rank: this one among them.
        traffic: what it sent, by the kind of call.
        trace: where its time went.
        group: the process group that sums; None: all ranks of the world.
    """

    layout: Layout
    rank: int = 0
    traffic: dict[str, Traffic] = field(default_factory=dict)
    trace: Trace = field(default_factory=Trace)
    group: Any = None

    @classmethod
    def join(cls, layout: Layout | None) -> Communicator:
        """The communicator of a layout, resolved and checked against the world.

        Args:
            layout: None for a process by itself, even where there are others.

        Raises:
            ValueError: the layout does not fit the world size.
        """
        if layout is None:
            return cls(Layout())
        if not isinstance(layout, Layout):
            raise TypeError(f"layout is a {type(layout).__name__}; give a spnb.Layout or None.")
        rank, world_size = world()
        return cls(layout.resolve(world_size), rank)

    @property
    def size(self) -> int:
        """Number of ranks."""
        return self.layout.size

    @property
    def sent_bytes(self) -> int:
        """Bytes that this rank has handed to collectives so far."""
        return sum(record.bytes for record in self.traffic.values())

    def coordinate(self, axis: Axis) -> int:
        """Where this rank stands along an axis."""
        return self.layout.coordinate(self.rank, axis)

    def along(self, axis: Axis) -> Communicator:
        """The ranks that differ from this one along one axis alone, with the same record."""
        length = self.layout.length(axis)
        layout = Layout(sample=length) if axis == "sample" else Layout(data=length)
        group = self._group(axis) if layout.size > 1 else None
        return Communicator(layout, self.coordinate(axis), self.traffic, self.trace, group)

    def sum(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all ranks."""
        if self.size > 1:
            group = self.group or dist.group.WORLD
            board = blackboard(group)
            with self.trace.span("all-reduce"), self._counted("all_reduce", tensor):
                if board is None:
                    dist.all_reduce(tensor, group=group)
                else:
                    board.sum(tensor)

    def gather(self, tensor: Tensor, axis: Axis, dim: int, sizes: Sequence[int]) -> Tensor:
        """Join the parts of a tensor that the ranks along an axis hold.

        Args:
            tensor: this rank's part.
            axis: the axis along which it is spread.
            dim: dimension of the tensor along which it is cut.
            sizes: length of each part along this dimension; they may differ, or be zero.

        Returns:
            The whole tensor, on every rank; without a gradient.
        """
        if len(sizes) == 1:
            return tensor
        parts = tensor.movedim(dim, 0)
        longest = max(sizes)
        padded = parts.new_zeros(longest, *parts.shape[1:])
        padded[: len(parts)] = parts
        group = self._group(axis)
        board = blackboard(group)
        with self.trace.span("all-gather"), self._counted("all_gather", padded):
            if board is None:
                received = [torch.empty_like(padded) for _ in sizes]
                dist.all_gather(received, padded, group=group)
            else:
                received = board.gather(padded)
        whole = torch.cat([part[:n] for part, n in zip(received, sizes, strict=True)])
        return whole.movedim(0, dim)

    def gather_windows(self, flat: Tensor) -> None:
        """Fill a vector from equal windows of it, of which each rank has its own; in place."""
        if self.size > 1:
            group = self.group or dist.group.WORLD
            board, own = blackboard(group), flat.view(self.size, -1)[self.rank]
            with self.trace.span("all-gather"), self._counted("all_gather", own):
                if board is None:
                    _all_gather(flat, own, group=group)
                else:
                    board.gather_windows(flat)

    def sum_windows(self, flat: Tensor) -> Tensor:
        """Sum a vector over the ranks, of which each gets its own window alone (reduce-scatter).

        Args:
            flat: a vector whose length the number of ranks divides; what is in it is lost.
        """
        if self.size == 1:
            return flat
        group = self.group or dist.group.WORLD
        board, own = blackboard(group), flat.view(self.size, -1)[self.rank]
        with self.trace.span("reduce-scatter"), self._counted("reduce_scatter", flat):
            if board is None:
                own = torch.empty_like(own)
                _reduce_scatter(own, flat, group=group)
            else:
                board.sum_windows(flat)
        return own

    def copy_from_first(self, tensor: Tensor) -> None:
        """Replace a tensor by rank 0's."""
        if self.size > 1:
            with self._counted("broadcast", tensor):
                dist.broadcast(tensor, group=self.group, group_src=0)

    def tell(self, value: T, source: int) -> T:
        """An object of one rank, on every rank. For rare messages; it is pickled."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, group=self.group, group_src=source)
        return box[0]

    def _group(self, axis: Axis) -> Any:
        """The process group of this rank along an axis; made once, by all ranks together."""
        if len(self.layout.ranks(self.rank, axis)) == self.size:
            return self.group or dist.group.WORLD
        key = (dist.group.WORLD, self.layout)
        if self.layout.shard == 1 and axis == "rows":
            axis = "data"
        if key not in _groups:
            for stale in [k for k in _groups if k[0] is not dist.group.WORLD]:
                del _groups[stale]
            _groups[key] = {
                a: dist.new_subgroups_by_enumeration(
                    sorted({self.layout.ranks(r, a) for r in range(self.size)})
                )[0]
                for a in (_AXES if self.layout.shard > 1 else _AXES[:2])
            }
        return _groups[key][axis]

    def _counted(self, name: str, tensor: Tensor) -> _Stopwatch:
        return _Stopwatch(self.traffic.setdefault(name, Traffic()), tensor)


@dataclass
class _Stopwatch:
    """Adds one call to a record of the traffic."""

    record: Traffic
    tensor: Tensor

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        if self.tensor.is_cuda:  # the call has only been queued: wait for it
            torch.cuda.synchronize(self.tensor.device)
        self.record.calls += 1
        self.record.bytes += self.tensor.nbytes
        self.record.seconds += time.perf_counter() - self.start
