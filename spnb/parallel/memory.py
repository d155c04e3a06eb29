"""Large memory that travels between processes as a file descriptor instead of a copy.

A memory file lives in RAM and has no name (`memfd_create`), so nothing is left behind by a
process that dies, and /dev/shm, of which Docker gives only 64 MB, is not needed. Who receives
one maps it either *privately* (copy on write: reading costs nothing, writing changes only one's
own pages) or *shared* (a write is seen by all).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import tempfile
import weakref
from collections.abc import Iterable
from typing import Any

import torch

PAGE = mmap.PAGESIZE


def memory_file(parts: Iterable[memoryview]) -> tuple[int, list[int]]:
    """Write the parts into a new memory file, each at the start of a page.

    Returns:
        The open descriptor, and the offset of each part.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("spnb", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:  # macOS; it has no name either
            descriptor = os.dup(file.fileno())
    try:
        offsets, end = [], 0
        for part in parts:
            offsets.append(end)
            done = 0
            while done < part.nbytes:
                done += os.pwrite(descriptor, part[done:], end + done)
            end += -(-part.nbytes // PAGE) * PAGE
        os.ftruncate(descriptor, end)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, offsets


class Region(mmap.mmap):
    """A mapped memory file; unmapped when the last tensor or array in it is gone.

    Attributes:
        descriptor: For a shared region the file, so that it can be sent on; else None.
        address: Where the mapping begins.
    """

    descriptor: int | None
    address: int

    def __new__(cls, descriptor: int, shared: bool) -> Region:
        """Map all of the file; the caller keeps, and closes, its descriptor."""
        size = os.fstat(descriptor).st_size
        how = mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE
        region: Region = super().__new__(cls, descriptor, size, flags=how)
        region.descriptor = os.dup(descriptor) if shared else None
        region.address = ctypes.addressof(ctypes.c_char.from_buffer(region))
        return region

    def __del__(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)


_shared_regions: weakref.WeakValueDictionary[tuple[int, int], Region] = (
    weakref.WeakValueDictionary()
)


def shared_region(descriptor: int) -> Region:
    """Map a shared memory file; a second map of the same file is the first one again."""
    file = os.fstat(descriptor)
    key = (file.st_dev, file.st_ino)
    region = _shared_regions.get(key)
    if region is None:
        region = _shared_regions[key] = Region(descriptor, shared=True)
    return region


def find_shared(address: int) -> tuple[Region, int] | None:
    """Find the shared region that holds an address: it and the offset in it, or None."""
    for region in list(_shared_regions.values()):
        if region.address <= address < region.address + len(region):
            return region, address - region.address
    return None


def view_of(storage: torch.UntypedStorage) -> memoryview:
    """Look at the bytes of a CPU storage; the caller keeps the storage alive."""
    bytes_type = ctypes.c_ubyte * storage.nbytes()
    return memoryview(bytes_type.from_address(storage.data_ptr())).cast("B")


def storage_of(buffer: Any) -> torch.UntypedStorage:
    """Make a storage of a writable buffer, without a copy; it keeps the buffer alive."""
    return torch.frombuffer(buffer, dtype=torch.uint8).untyped_storage()


def share(value: Any) -> Any:
    """Put a tensor where the workers can use it without a copy.

    What a pool's function gets as an argument is normally its own: a worker that writes to it
    changes neither the notebook's value nor another worker's. `share` is for data that is large
    and read by all. The workers map the same memory, so handing it over costs next to nothing,
    and a *write by anyone is seen by everyone*.

    Args:
        value: A CPU tensor, or a list, tuple or dict of such (nested as you like).

    Returns:
        The same structure of new tensors that hold the same values in shared memory. Tensors
        that share memory with each other go on doing so. It lives as long as a tensor uses it.

    Example:
        >>> images = spnb.share(images)                        # doctest: +SKIP
        >>> pool.run(train, model, images)                     # doctest: +SKIP
    """
    storages: dict[tuple[int, int], torch.UntypedStorage] = {}
    _collect(value, storages, "the value")
    if not storages:
        return value
    descriptor, offsets = memory_file(view_of(storage) for storage in storages.values())
    try:
        region = shared_region(descriptor)
    finally:
        os.close(descriptor)
    homes = {
        key: storage_of(memoryview(region)[offset : offset + storage.nbytes()])
        for (key, storage), offset in zip(storages.items(), offsets, strict=True)
    }
    return _move(value, homes)


def _key(tensor: torch.Tensor) -> tuple[int, int]:
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.nbytes()


def _collect(value: Any, storages: dict[tuple[int, int], torch.UntypedStorage], where: str) -> None:
    if isinstance(value, torch.Tensor):
        if value.device.type != "cpu" or value.layout != torch.strided:
            raise ValueError(
                f"share() holds dense CPU tensors, but {where} is a {value.layout} tensor on "
                f"{value.device}: call .cpu() or .to_dense() first, and .to(device) in the worker."
            )
        if value.untyped_storage().nbytes():
            storages.setdefault(_key(value), value.untyped_storage())
    elif isinstance(value, list | tuple):
        for number, entry in enumerate(value):
            _collect(entry, storages, f"entry {number}")
    elif isinstance(value, dict):
        for name, entry in value.items():
            _collect(entry, storages, f"entry {name!r}")
    else:
        raise TypeError(
            f"share() takes a tensor, or a list, tuple or dict of tensors, but {where} is a "
            f"{type(value).__name__}: use torch.from_numpy() for arrays; models are copied to "
            "each rank on purpose."
        )


def _move(value: Any, homes: dict[tuple[int, int], torch.UntypedStorage]) -> Any:
    if isinstance(value, torch.Tensor):
        home = homes.get(_key(value))
        if home is None:  # an empty tensor
            return value.detach().clone().requires_grad_(value.requires_grad)
        moved = torch.empty(0, dtype=value.dtype)
        moved.set_(home, value.storage_offset(), value.size(), value.stride())
        return moved.requires_grad_(value.requires_grad)
    if isinstance(value, dict):
        return {name: _move(entry, homes) for name, entry in value.items()}
    entries = [_move(entry, homes) for entry in value]
    if isinstance(value, tuple):
        return type(value)(*entries) if hasattr(value, "_fields") else tuple(entries)
    return entries
