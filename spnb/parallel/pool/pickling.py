"""Objects on their way between the notebook and its workers.

cloudpickle carries functions and classes that were defined in a cell. What is large (tensors,
arrays, a long pickle) is not written into the pickle but, once, into one memory file, which
every receiver maps privately: an argument behaves like a copy, and is copied only where it is
written to. Tensors that went through `share` travel as themselves. Views and tied parameters
stay views and tied, because it is storages, not tensors, that are moved.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import mmap
import os
import pickle
from collections.abc import Collection
from functools import partial
from types import CodeType
from typing import Any

import cloudpickle
import torch
from cloudpickle import cloudpickle as classes

from spnb.parallel.memory import (
    Region,
    find_shared,
    memory_file,
    shared_region,
    storage_of,
    view_of,
)
from spnb.parallel.pool.channel import MAX_DESCRIPTORS, Payload

LARGE = 2**20
"""Storages and buffers of at least so many bytes go into the memory file."""

LONG_PICKLE = 2**16
"""So does a pickle of at least so many bytes, which keeps messages small."""


class _Pickler(cloudpickle.Pickler):
    def __init__(self, file: io.BytesIO, known_classes: Collection[str]) -> None:
        self.buffers: list[memoryview] = []
        # Not a method: a pickler in a cycle would hold on to large memory until it is collected.
        super().__init__(file, protocol=5, buffer_callback=partial(_out_of_band, self.buffers))
        self.class_ids: list[str] = []
        self._known_classes = known_classes
        self._alive: list[Any] = []
        self._views: list[memoryview | pickle.PickleBuffer] = []

    def close(self) -> None:
        """Let go of all memory that was looked at, in the reverse order.

        An exception's traceback may keep the pickler until it is collected as garbage, and Python
        cannot collect a view that another one still looks through.
        """
        for view in [*self.buffers, *reversed(self._views)]:
            view.release()

    def reducer_override(self, obj: Any) -> Any:
        """Take storages apart into buffers, and leave the rest to cloudpickle."""
        kind = type(obj)
        if kind is torch.UntypedStorage and obj.device.type != "meta" and obj.nbytes():
            # The notebook may not have the worker's GPU: what comes from one arrives on the CPU.
            storage = obj if obj.device.type == "cpu" else obj.cpu()
            self._alive.append(storage)
            view = view_of(storage)
            buffer = pickle.PickleBuffer(view)
            self._views += [view, buffer]
            return storage_of, (buffer,)
        if kind is torch.UntypedStorage and obj.device.type != "meta":
            return torch.UntypedStorage, (0,)
        if kind is torch.TypedStorage:
            return _typed_storage, (obj._untyped_storage, obj.dtype)
        if kind is CodeType:
            # Some versions of cloudpickle leave the file out, by which tracebacks find the lines.
            _, parts = self.dispatch_table[CodeType](obj)
            return _code_of, (obj.co_filename, parts)
        if isinstance(obj, type):
            # A class that came from the notebook goes back as itself: sent by value, its methods
            # would be replaced there by copies that no longer see the notebook's globals.
            known = classes._DYNAMIC_CLASS_TRACKER_BY_CLASS.get(obj)
            if known in self._known_classes:
                return _known_class, (known,)
            reduced = super().reducer_override(obj)
            if reduced is not NotImplemented:
                self.class_ids.append(classes._get_or_create_tracker_id(obj))
            return reduced
        return super().reducer_override(obj)


def _code_of(filename: str, parts: tuple[Any, ...]) -> CodeType:
    return CodeType(*parts).replace(co_filename=filename)


def _out_of_band(buffers: list[memoryview], buffer: pickle.PickleBuffer) -> bool:
    """Take a buffer out of the pickle, by a false return value, if it is large or shared."""
    raw = buffer.raw()
    if raw.nbytes < LARGE and find_shared(_address(raw)) is None:
        return True
    buffers.append(raw)
    return False


def dumps(obj: Any, known_classes: Collection[str] = ()) -> Payload:
    """Pickle an object; the caller closes the payload.

    Args:
        obj: Anything that cloudpickle can take.
        known_classes: Names of classes that the receiver has already, to be sent by name.
    """
    file = io.BytesIO()
    with contextlib.closing(_Pickler(file, known_classes)) as pickler:
        pickler.dump(obj)
        return _pack(pickler, file)


def _pack(pickler: _Pickler, file: io.BytesIO) -> Payload:
    """Put a pickle and its large buffers into a payload."""
    shared: dict[int, Region] = {}
    pieces: list[tuple[int, int, int]] = []
    large: list[memoryview] = []
    for buffer in pickler.buffers:
        found = find_shared(_address(buffer))
        if found is None:
            pieces.append((0, len(large), buffer.nbytes))
            large.append(buffer)
        else:
            region, offset = found
            shared[id(region)] = region
            pieces.append((1 + list(shared).index(id(region)), offset, buffer.nbytes))
    body = file.getbuffer()
    long = len(body) >= LONG_PICKLE
    if long:
        pieces.append((0, len(large), len(body)))
        large.append(body)
    if len(shared) + 1 > MAX_DESCRIPTORS:
        raise ValueError(
            f"{len(shared)} separately shared tensors are too many for one call (at most "
            f"{MAX_DESCRIPTORS - 1}): share them together, spnb.share([a, b, ...])."
        )
    descriptor, offsets = memory_file(large)
    payload = Payload(None if long else bytes(body), [], pickler.class_ids, [descriptor])
    body.release()
    payload.pieces = [
        (0, offsets[place], size) if number == 0 else (number, place, size)
        for number, place, size in pieces
    ]
    for region in shared.values():
        assert region.descriptor is not None
        payload.descriptors.append(os.dup(region.descriptor))
    return payload


def loads(payload: Payload, twin: Payload | None = None) -> Any:
    """Load an object; the payload can be closed afterwards.

    Args:
        payload: What `dumps` made, with the descriptors as they arrived here.
        twin: Another rank's payload. Pieces that are equal, byte for byte, are mapped from its
            file and given back to the system here, so that they take memory only once.
    """
    regions: list[Region | None] = [None] * len(payload.descriptors)
    for number, descriptor in enumerate(payload.descriptors):
        if number:
            regions[number] = shared_region(descriptor)
        elif os.fstat(descriptor).st_size:
            regions[0] = Region(descriptor, shared=False)
    same = _equal_pieces(payload, twin) if twin else {}
    others = Region(twin.descriptors[0], shared=False) if twin and same else None
    buffers = []
    for index, (number, offset, size) in enumerate(payload.pieces):
        region = others if index in same else regions[number]
        start = same.get(index, offset)
        assert region is not None
        buffers.append(memoryview(region)[start : start + size])
    body: bytes | memoryview = buffers.pop() if payload.pickle is None else payload.pickle
    return pickle.loads(body, buffers=buffers)


def loads_all(payloads: list[Payload]) -> list[Any]:
    """Load the answers of all ranks; what equals the first one's takes no memory of its own."""
    return [loads(payload, payloads[0] if rank else None) for rank, payload in enumerate(payloads)]


def _equal_pieces(payload: Payload, twin: Payload) -> dict[int, int]:
    """Find the pieces that equal the twin's piece of the same number, and give them back."""
    sizes = [os.fstat(p.descriptors[0]).st_size for p in (payload, twin)]
    if not all(sizes):
        return {}
    mine, other = (Region(p.descriptors[0], shared=True) for p in (payload, twin))
    same = {}
    for index, pair in enumerate(zip(payload.pieces, twin.pieces, strict=False)):
        (number, offset, size), (twin_number, twin_offset, twin_size) = pair
        if number or twin_number or size != twin_size:
            continue
        if _equal(mine.address + offset, other.address + twin_offset, size):
            same[index] = twin_offset
            if hasattr(mmap, "MADV_REMOVE"):  # Linux
                mine.madvise(mmap.MADV_REMOVE, offset, size)
    return same


def _equal(first: int, second: int, size: int) -> bool:
    compare = ctypes.CDLL(None).memcmp
    compare.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    return bool(compare(first, second, size) == 0)


def _address(view: memoryview) -> int:
    """Return where a buffer begins; 0 if it is read-only or empty, as no shared memory is."""
    if view.readonly or not view.nbytes:
        return 0
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def _typed_storage(storage: torch.UntypedStorage, dtype: torch.dtype) -> torch.TypedStorage:
    return torch.TypedStorage(wrap_storage=storage, dtype=dtype, _internal=True)


def _known_class(name: str) -> type:
    known: type = classes._DYNAMIC_CLASS_TRACKER_BY_ID[name]
    return known


def can_travel(obj: Any) -> bool:
    """Try whether an object can be pickled, without writing what is large."""
    with contextlib.closing(_Pickler(io.BytesIO(), ())) as pickler:
        try:
            pickler.dump(obj)
        except Exception:
            return False
    return True
