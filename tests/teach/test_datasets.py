"""The data sets of the course: sizes, units, gaps, splits and scalings."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import sys
from pathlib import Path

import pytest
import torch

from spnb.teach.datasets import Scaling, co2, digits, mauna_loa


def test_co2_has_its_units_and_its_gaps() -> None:
    record = co2()
    assert len(record) == 2225 and len(record.missing) == 59
    assert record.unit == "ppm" and "Keeling" in record.sentence
    assert record.values.isfinite().all() and 310 < record.values.min() < record.values.max() < 375
    assert (record.time.diff() > 0).all()
    assert record.time[0].item() == pytest.approx(1958 + 87 / 365)
    longest = max(record.gaps(), key=lambda gap: gap[1] - gap[0])
    assert longest == pytest.approx((1964.066, 1964.391), abs=0.01)


@pytest.mark.parametrize(
    ("part", "checksum"),
    [
        ("time", "07a771c3710b22aa2a8a9b15b0bb4e6e8ecd685532da4754b88a23ac8b00c86f"),
        ("values", "7e301efd6dbd2b4007723368aa69ebd2259ea6aa1d431650c209df181f244cb9"),
        ("missing", "eaf6be5a8e650b638fa8f013abe3def92a794393d8610f9ccbf0ceafce6fe31a"),
    ],
)
def test_co2_is_bit_by_bit_what_statsmodels_gave(part: str, checksum: str) -> None:
    found = getattr(co2(), part)
    assert found.dtype == torch.float64
    assert hashlib.sha256(found.numpy().astype("<f8").tobytes()).hexdigest() == checksum


def test_co2_lies_beside_its_loader_where_the_package_is_installed(tmp_path: Path) -> None:
    """A wheel has no folder ``data``; pyproject.toml puts the file into the package."""
    loader = tmp_path / "site" / "loader.py"
    loader.parent.mkdir()
    shutil.copy(mauna_loa.__file__, loader)
    shutil.copy(mauna_loa._path(), loader.with_name(mauna_loa.NAME))
    spec = importlib.util.spec_from_file_location("spnb_installed_loader", loader)
    assert spec and spec.loader
    installed = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, installed)  # where dataclasses look
        spec.loader.exec_module(installed)
        assert installed._path().parent == loader.parent
        assert torch.equal(installed.co2().values, co2().values)


def test_a_stretch_keeps_its_own_gaps() -> None:
    stretch = co2().between(1964.0, 1965.0)
    assert len(stretch) + len(stretch.missing) in (52, 53)
    assert [round((b - a) * 365.25 / 7) + 1 for a, b in stretch.gaps()] == [18, 2, 1]
    assert repr(stretch) == "Series(31 values in ppm, 21 weeks missing)"


def test_a_scaling_is_undone() -> None:
    values = torch.tensor([310.0, 320.0, 330.0], dtype=torch.float64)
    scaling = Scaling.of(values)
    scaled = scaling.apply(values)
    assert scaled.dtype == torch.float32
    assert scaled.tolist() == pytest.approx([-1, 0, 1])
    assert scaling.undo(scaled).tolist() == pytest.approx(values.tolist())


def test_digits_are_split_the_same_every_time() -> None:
    data = digits()
    assert data.train_x.shape == (1437, 64) and data.test_x.shape == (360, 64)
    assert data.train_x.dtype == torch.float32 and data.train_y.dtype == torch.int64
    assert data.train_x.min() == 0 and data.train_x.max() == 1
    assert set(data.train_y.tolist()) == set(data.test_y.tolist()) == set(range(10))
    assert torch.equal(data.test_x, digits().test_x)
    together = {tuple(row.tolist()) for row in torch.cat([data.train_x, data.test_x])}
    assert len(together) == 1797, "no image is in both parts"


def test_digits_as_images() -> None:
    flat, images = digits(), digits(flat=False)
    assert images.train_x.shape == (1437, 1, 8, 8)
    assert torch.equal(images.train_x.flatten(1), flat.train_x)
    assert images.train[1] is images.train_y and images.test[0] is images.test_x
    assert repr(images) == "Images(1437 to train, 360 to test, each 1x8x8)"


def test_a_split_without_training_images_is_refused() -> None:
    with pytest.raises(ValueError, match="num_test=1797 must lie between 1 and 1796"):
        digits(num_test=1797)
