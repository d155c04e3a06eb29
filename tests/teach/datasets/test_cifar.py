"""CIFAR-10: the subset's images and classes, how many are read, and which archive is taken."""

from __future__ import annotations

import functools
import hashlib
import io
import tarfile
from pathlib import Path

import pytest
import torch

from spnb.teach.datasets import Images, Scaling, cifar, cifar10

NAMES = "airplane automobile bird cat deer dog frog horse ship truck".split()


once = functools.cache(lambda: cifar10(subset=True))


@pytest.fixture
def images(real: Path) -> Images:
    return once()


def test_the_subset_has_equal_classes_and_bright_and_dark_pixels(images: Images) -> None:
    assert images.train_x.shape == (10_000, 3, 32, 32) and images.test_x.shape == (2_000, 3, 32, 32)
    assert images.train_y.bincount().tolist() == [1_000] * 10
    assert images.test_y.bincount().tolist() == [200] * 10
    assert list(images.names) == NAMES and images.classes == 10
    for x in (images.train_x, images.test_x):
        assert x.dtype == torch.float32 and x.is_contiguous()
        assert (x.min(), x.max()) == (0, 1)
    assert "subset" in images.sentence and "differ slightly" in images.sentence
    # Published means of the three channels, from all 50,000 training images.
    assert images.train_x.mean((0, 2, 3)).tolist() == pytest.approx([0.491, 0.482, 0.447], abs=0.01)
    together = torch.cat([images.train_x, images.test_x]).flatten(1)
    sums = (together * torch.arange(3072).cos()).sum(1, dtype=torch.float64)
    assert len(sums.unique()) == 12_000, "no image is there twice"


def test_an_image_is_what_the_record_says(images: Images, real: Path) -> None:
    with tarfile.open(real / cifar.SUBSET.name) as archive:
        file = archive.extractfile("cifar-10-batches-bin/data_batch_1.bin")
        assert file is not None
        label, *pixels = file.read()[3073 * 4321 : 3073 * 4322]
    assert images.train_y[4321] == label
    for channel, row, column in ((0, 0, 0), (1, 0, 31), (2, 31, 5)):
        expected = pixels[1024 * channel + 32 * row + column] / 255
        assert images.train_x[4321, channel, row, column].item() == pytest.approx(expected)


def test_fewer_training_images_have_equal_classes_and_are_a_part(real: Path) -> None:
    few, more = cifar10(subset=True, num_train=50), cifar10(subset=True, num_train=500)
    assert few.train_y.bincount().tolist() == [5] * 10
    assert more.train_y.bincount().tolist() == [50] * 10
    assert torch.equal(few.test_x, more.test_x) and len(few.test_x) == 2_000
    rows = {row.numpy().tobytes() for row in more.train_x}
    assert all(row.numpy().tobytes() in rows for row in few.train_x)
    assert few.train_y.tolist() != sorted(few.train_y.tolist()), "classes stay mixed"
    assert few.sentence.endswith("; 50 of them to train on.")


@pytest.mark.parametrize("wrong", [0, -10, 15, 10_010])
def test_a_number_that_classes_cannot_share_is_refused(real: Path, wrong: int) -> None:
    with pytest.raises(ValueError, match=f"num_train={wrong} must be a multiple of 10 up to 10,0"):
        cifar10(subset=True, num_train=wrong)


def test_one_scaling_a_channel(images: Images) -> None:
    x = images.train_x[:1_000]
    scaling = Scaling.of(x, over=(0, 2, 3))
    assert isinstance(scaling.offset, torch.Tensor) and isinstance(scaling.scale, torch.Tensor)
    for channel in range(3):
        exact = x[:, channel].double()
        assert scaling.offset[channel].item() == pytest.approx(exact.mean().item(), rel=1e-5)
        assert scaling.scale[channel].item() == pytest.approx(exact.std().item(), rel=1e-5)
    std, mean = torch.std_mean(scaling.apply(x), (0, 2, 3))
    torch.testing.assert_close(mean, torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(std, torch.ones(3), atol=1e-5, rtol=0)


def test_all_images_are_taken_where_they_are(
    real: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive in the full one's layout, five training batches, with its checksum."""
    batches = [f"data_batch_{n}.bin" for n in (3, 1, 5, 2, 4)]
    cache.mkdir()
    path = cache / cifar.FULL.name
    with tarfile.open(path, "w:gz") as archive:
        for order, name in enumerate([*batches, "test_batch.bin", "batches.meta.txt"]):
            records = (bytes([(int(name[11]) + n) % 10]) + bytes([order]) * 3072 for n in range(10))
            content = b"\n".join(n.encode() for n in NAMES) + b"\n\n"
            if name.endswith(".bin"):
                content = b"".join(records) if order < 5 else bytes(3073) * 10
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    monkeypatch.setattr(cifar, "FULL", _with_checksum_of(path))
    images = cifar10()
    assert images.train_x.shape == (50, 3, 32, 32) and list(images.names) == NAMES
    assert (images.train_x[::10, 0, 0, 0] * 255).round().tolist() == [1, 3, 0, 4, 2]
    assert images.train_y[::10].tolist() == [1, 2, 3, 4, 5], "batches in the order of their numbers"
    assert "subset" not in images.sentence
    assert len(cifar10(subset=True).train_x) == 10_000


def test_the_subset_is_taken_where_all_are_not(real: Path) -> None:
    assert len(cifar10(num_train=10).test_x) == 2_000


def _with_checksum_of(path: Path) -> cifar.File:
    digest = hashlib.md5(path.read_bytes()).hexdigest()
    return cifar.File(path.name, cifar.FULL.url, 1, f"md5:{digest}")
