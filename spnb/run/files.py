"""Files of numbers and words that are whole or not there, and execute nothing.

They are safetensors with a digest: of every tensor and every word in the file, so that a single
flipped bit is noticed. They are written aside, pushed to the disk, and renamed: whoever looks, and
whenever the machine stops, there is the old file or the new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


class DamagedFile(ValueError):
    """A file is not what was written, or not what was asked for."""


def write(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    """Write a file, whole or not at all; one that is there is replaced.

    Args:
        path: of the file.
        tensors: numbers by name, on any device.
        about: words by name, ``format`` and ``version`` among them.

    Raises:
        OSError: it cannot be written.
    """
    flat = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    words = {**about, "digest": _digest(flat, about)}
    try:
        # A folder: the library has its own way. Of this call alone, also on a shared file system.
        with tempfile.TemporaryDirectory(
            prefix=f".{path.name}.", dir=path.parent, ignore_cleanup_errors=True
        ) as aside:
            part = Path(aside) / path.name
            save_file(flat, part, words)
            with open(part, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(part, path)
        _fsync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"'{path}' cannot be written: {reason}.") from error


def tidy(folder: Path) -> None:
    """Remove what killed processes left half written in a folder."""
    for aside in folder.glob(".*.safetensors.*"):
        shutil.rmtree(aside, ignore_errors=True)


def read(
    path: Path, kind: str, version: str, *others: tuple[str, str]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file, and see that it is what was written. Nothing in it is executed.

    Args:
        path: of the file.
        kind: its ``format``.
        version: its ``version``.
        *others: pairs of the same, which will do as well.

    Returns:
        The tensors, on the CPU, and the words.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: it is damaged, or holds something else.
    """
    if not path.is_file():
        hint = " It is a folder: give the file in it." if path.is_dir() else ""
        raise FileNotFoundError(f"There is no file '{path}'.{hint}")
    try:
        with safe_open(path, "pt") as file:
            about = dict(file.metadata() or {})
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except OSError:
        raise
    except Exception as error:  # a damaged header can say anything
        raise DamagedFile(f"'{path}' is no whole safetensors file: {error}.") from None
    known = ((kind, version), *others)
    if (about.get("format"), about.get("version")) not in known:
        reads = " or ".join(f"{kind!r}, version {version}" for kind, version in known)
        raise DamagedFile(
            f"'{path}' is {about.get('format', 'something else')!r}, version "
            f"{about.get('version', 'none')}; this reads {reads}."
        )
    if about.pop("digest", None) != _digest(tensors, about):
        raise DamagedFile(
            f"'{path}' is damaged: its contents do not fit the digest that was written with them."
        )
    return tensors, about


def _digest(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    """SHA-256 of all words and numbers, whatever their order in the file."""
    found = hashlib.sha256(json.dumps(sorted(about.items())).encode())
    for name in sorted(tensors):
        found.update(json.dumps(name).encode())
        feed(found, tensors[name])
    return found.hexdigest()


def feed(digest: hashlib._Hash, tensor: Tensor) -> None:
    """Add a tensor's precision, shape and numbers to a digest."""
    digest.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
    if tensor.numel():
        numbers = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(numbers.view(torch.uint8).numpy().data)


def _fsync_folder(folder: Path) -> None:
    """Have the disk know the new name, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
