"""CIFAR-10: 60,000 colour photographs of 32 by 32 pixels in ten classes.

Read from the official *binary* version, records of one label byte and 3,072 pixel bytes: nothing is
unpickled. Cite: A. Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, 2009.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import torch
from torch import Tensor

from spnb.teach.datasets.files import File, find, present
from spnb.teach.datasets.images import Images

FULL = File(
    "cifar-10-binary.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    163,
    "md5:c32a1d4ab5d03f1284b67883e8d87530",
)
SUBSET = File(
    "cifar-10-subset-binary.tar.gz",
    None,
    35,
    "sha256:e54236e80aea6c0362ed8090ebdfd15e4cc2b3c24242bfa1a7af8d8bc589f421",
    instead="fetch the whole of CIFAR-10 by spnb.teach.datasets.cifar10(subset=False)",
)
SHAPE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32
CLASSES = 10


def cifar10(subset: bool | None = None, num_train: int | None = None) -> Images:
    """Photographs of 32 by 32 pixels in ten classes, float32 ``[N, 3, 32, 32]`` in [0, 1].

    Args:
        subset: True: 10,000 and 2,000 images, decoded from JPEG copies, so that their values differ
            slightly from the originals. False: all 50,000 and 10,000, fetched if need be (163 MB).
            None: all if they are on this machine, else the subset if that is, else all.
        num_train: how many of the training images to read, classes in equal parts; None: all.

    Raises:
        DataUnavailableError: the file cannot be had, or is damaged.
        ValueError: ``num_train`` is not a multiple of ten within the number of images.
    """
    if subset is None:
        subset = present(SUBSET) and not present(FULL)
    members = _members(find(SUBSET if subset else FULL))
    train_x, train_y = _join(members, "data_batch_")
    test_x, test_y = _join(members, "test_batch")
    if num_train is not None:
        if not 0 < num_train <= len(train_x) or num_train % CLASSES:
            raise ValueError(
                f"num_train={num_train} must be a multiple of {CLASSES} up to {len(train_x):,}."
            )
        each = num_train // CLASSES
        first = [(train_y == c).nonzero()[:each, 0] for c in range(CLASSES)]
        kept = torch.cat(first).sort()[0]
        train_x, train_y = train_x[kept], train_y[kept]
    kind = (
        "10,000 training and 2,000 test images of CIFAR-10 (A. Krizhevsky, 2009), decoded from "
        "JPEG copies: a subset, whose values differ slightly from the originals"
        if subset
        else "CIFAR-10 (A. Krizhevsky, 2009), 50,000 training and 10,000 test images"
    )
    names = members["batches.meta.txt"].decode().split()
    return Images(
        _pixels(train_x),
        train_y,
        _pixels(test_x),
        test_y,
        classes=CLASSES,
        unit="brightness of a colour, 0 to 1",
        sentence=f"{kind}{'' if num_train is None else f'; {num_train:,} of them to train on'}.",
        names=tuple(names),
    )


def _members(path: Path) -> dict[str, bytearray]:
    """What is in the archive's files, by name without the folder."""
    with tarfile.open(path, "r:gz") as archive:
        return {
            Path(entry.name).name: bytearray(file.read())
            for entry in archive
            if (file := archive.extractfile(entry))
        }


def _join(members: dict[str, bytearray], prefix: str) -> tuple[Tensor, Tensor]:
    """Bytes of pixels ``[N, 3, 32, 32]`` and classes ``[N]`` of all files that begin so."""
    files = [members[name] for name in sorted(members) if name.startswith(prefix)]
    table = torch.cat([torch.frombuffer(f, dtype=torch.uint8).view(-1, RECORD) for f in files])
    return table[:, 1:].reshape(-1, *SHAPE), table[:, 0].long()


def _pixels(values: Tensor) -> Tensor:
    return values.float().div_(255)
