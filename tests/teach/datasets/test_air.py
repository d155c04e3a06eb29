"""Air temperature: values by their checksum, the grid, area weights in closed form, positions."""

from __future__ import annotations

import functools
import hashlib
import math
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from spnb.teach.datasets import Fields, air_temperature

VALUES = "347cdd430e39b2578424821a91aa269c41cffb81a7b55563b887b2a2cdd4446f"
"""sha256 of the values in hundredths of a kelvin, little-endian int32, by time, row and column."""


once = functools.cache(air_temperature)


def test_what_reads_the_file_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spnb.teach.datasets.air.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="need xarray"):
        air_temperature()


@pytest.fixture
def air(real: Path) -> Fields:
    return once()


def test_the_values_are_those_that_were_published(air: Fields) -> None:
    assert air.values.shape == (2_920, 25, 53) and air.values.dtype == torch.float32
    hundredths = (air.values.double() * 100).round().to(torch.int32)
    assert hashlib.sha256(hundredths.numpy().astype("<i4").tobytes()).hexdigest() == VALUES
    assert air.unit == "K" and "Kalnay" in air.sentence
    assert repr(air) == "Fields(2,920 of 25x53 in K from 2013-01-01 00h)"


def test_the_grid_goes_from_north_to_south_and_eastwards(air: Fields) -> None:
    assert torch.equal(air.latitude, torch.arange(75, 14, -2.5))
    assert torch.equal(air.longitude, torch.arange(200, 331, 2.5))
    mean = air.values.mean((0, 2))
    assert mean[0] < 265 and mean[-1] > 295, "it is cold in the north"


def test_area_weights_in_closed_form(air: Fields) -> None:
    """Cosines of evenly spaced angles add up to sin(n h / 2) / sin(h / 2) cos(middle)."""
    assert air.area.shape == (25, 1) and air.area.dtype == torch.float32
    half = math.radians(2.5) / 2
    mean = math.sin(25 * half) / math.sin(half) * math.cos(math.radians(45)) / 25
    expected = [math.cos(math.radians(75 - 2.5 * row)) / mean for row in range(25)]
    assert air.area[:, 0].tolist() == pytest.approx(expected, rel=1e-6)
    assert air.area.mean().item() == pytest.approx(1, rel=1e-6)
    # The area of a cell, exactly: the difference of the sines of its edges.
    strips = [
        math.sin(math.radians(76.25 - 2.5 * row)) - math.sin(math.radians(73.75 - 2.5 * row))
        for row in range(25)
    ]
    assert air.area[:, 0].tolist() == pytest.approx([25 * s / sum(strips) for s in strips], 1e-6)


def test_persistence_errs_as_is_known(air: Fields) -> None:
    """Area-weighted RMSE in kelvin, July to December 2014, after 24, 48 and 72 hours."""
    first = air.index(2014, 7)
    for steps, expected in ((4, 2.74), (8, 3.56), (12, 3.85)):
        wrong = air.values[first + steps :] - air.values[first:-steps]
        found = (wrong.square() * air.area).mean().sqrt()
        assert found.item() == pytest.approx(expected, abs=0.02)


def test_days_and_positions(air: Fields) -> None:
    assert air.index(2013, 1, 1) == 0 and air.index(2014, 1) == 1_460
    assert air.index(2015, 1) == len(air) == 2_920
    year = air.between(air.index(2014, 1), air.index(2015, 1))
    assert year.start == datetime(2014, 1, 1, tzinfo=UTC) and len(year) == 1_460
    assert torch.equal(year.values[year.index(2014, 3)], air.values[air.index(2014, 3)])
    assert torch.equal(year.area, air.area)
    later = air.between(3, 7)
    assert later.start == datetime(2013, 1, 1, 18, tzinfo=UTC)
    assert torch.equal(later.values[later.index(2013, 1, 2)], air.values[4])


def test_what_is_not_in_the_record_is_refused(air: Fields) -> None:
    for year in (2012, 2016):
        with pytest.raises(ValueError, match=rf"{year}-01-01 00:00:00\+00:00 is none of the 2,920"):
            air.index(year, 1)
    for first, last in ((-4, 10), (10, 10), (0, 2_921)):
        with pytest.raises(ValueError, match=f"No fields from {first} to before {last} in Fields"):
            air.between(first, last)
