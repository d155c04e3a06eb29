"""Where data cannot be had, something of the same form takes their place, and says so."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from spnb.teach import datasets
from spnb.teach.datasets import DataUnavailableError, entsoe, stand_ins
from spnb.teach.day_ahead import day_ahead
from spnb.teach.weather import weather


@pytest.fixture
def nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(*_: object, **__: object) -> None:
        raise DataUnavailableError("no network, as a test has it.")

    for name in ("cifar10", "load", "air_temperature"):
        monkeypatch.setattr(stand_ins, name, unavailable)


@pytest.mark.usefixtures("nothing")
@pytest.mark.parametrize("take", [datasets.photographs, datasets.load_record, datasets.air_fields])
def test_it_says_what_is_missing(take: Callable[[], datasets.Load]) -> None:
    found = take()
    assert "Instead of the real data: no network, as a test has it." in found.sentence
    first, second = (vars(take()) for _ in range(2))
    assert all(torch.equal(v, second[k]) for k, v in first.items() if isinstance(v, Tensor))


@pytest.mark.usefixtures("nothing")
def test_digits_in_the_shape_of_photographs() -> None:
    found = datasets.photographs(100)
    assert found.train_x.shape == (100, 3, 32, 32) and len(found.train_y) == 100
    assert found.test_x.shape == (360, 3, 32, 32) and len(found.names) == found.classes == 10
    small = datasets.digits(flat=False)
    assert torch.equal(found.test_x[:, 1, ::4, 1::4], small.test_x[:, 0])


@pytest.mark.usefixtures("nothing")
def test_made_up_load_has_the_hours_and_habits_of_the_real_one() -> None:
    found = datasets.load_record()
    assert len(found) == 35_064 and found.when(0).year == 2021
    assert 15_000 < found.actual.min() and found.actual.max() < 95_000
    days = found.actual.unflatten(0, (-1, 24))
    weekend = days[1:3].mean()  # 2 and 3 January 2021
    assert weekend < days[4:9].mean(), "less on weekends"
    examples = day_ahead(found, every=24)
    assert len(examples.test) == 366 and examples.train.y.isfinite().all()
    assert (found.operator - found.actual).std() == pytest.approx(1300, rel=0.1)


@pytest.mark.usefixtures("nothing")
def test_made_up_fields_have_the_grid_of_the_real_ones() -> None:
    found = datasets.air_fields()
    assert found.values.shape == (2920, 25, 53) and found.unit == "K"
    assert found.latitude[0] == 75 and found.longitude[-1] == 330
    assert 200 < found.values.min() and found.values.max() < 330
    parts = weather(every=24, fields=found)
    last, next_day = parts.test.frames[:, 0], parts.test.anomalies[:, 0]
    persistent = torch.corrcoef(torch.stack([last.flatten(), next_day.flatten()]))[0, 1]
    assert 0.1 < persistent.abs() < 0.95, "neither noise nor a standstill"


def test_real_data_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    real = entsoe.Load(stand_ins.made_up_load().start, torch.ones(3), torch.ones(3), "MW", "Real.")
    monkeypatch.setattr(stand_ins, "load", lambda: real)
    assert datasets.load_record() is real
