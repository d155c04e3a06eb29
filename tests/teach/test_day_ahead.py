"""Examples of the electricity load: no future in them, blocks of time, and the calendar."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
import torch

from spnb.teach import datasets
from spnb.teach.datasets import Load
from spnb.teach.day_ahead import (
    DAY,
    WEEK,
    DayAhead,
    Examples,
    calendar,
    day_ahead,
    filled,
    holidays,
    summer_time,
)

needs_data = pytest.mark.skipif(
    not os.environ.get("SPNB_DATA"), reason="needs the electricity load in $SPNB_DATA"
)


@pytest.fixture(scope="module")
def load() -> Load:
    return datasets.load()


@pytest.fixture(scope="module")
def data(load: Load) -> DayAhead:
    return day_ahead(load, every=6)


def mape(data: DayAhead, forecast: torch.Tensor) -> float:
    actual = data.actual(data.test)
    return 100 * ((forecast - actual).abs() / actual).mean().item()


@needs_data
def test_the_simple_forecasts_are_as_far_off_as_they_are_known_to_be(data: DayAhead) -> None:
    assert mape(data, data.previous(data.test)) == pytest.approx(5.33, abs=0.005)
    assert mape(data, data.previous(data.test, WEEK)) == pytest.approx(6.41, abs=0.005)
    assert mape(data, data.operator(data.test)) == pytest.approx(2.07, abs=0.005)


@needs_data
@pytest.mark.parametrize(
    "hour", [datetime(2023, 9, 12, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)]
)
def test_inputs_know_nothing_of_what_comes_after_their_midnight(
    load: Load, data: DayAhead, hour: datetime
) -> None:
    position = load.index(hour)
    later = load.actual.clone()
    later[position:] += 1000 * torch.arange(len(later) - position).remainder(7)
    later[position + 30] = torch.nan  # a gap is not filled from its future either
    other = day_ahead(replace(load, actual=later), every=6)

    def part(data: DayAhead) -> Examples:
        return data.test if hour.year == 2024 else data.validation

    row = (part(data).at == position).nonzero().item()
    assert torch.equal(part(data).x[: row + 1], part(other).x[: row + 1])
    assert torch.equal(part(data).y[:row], part(other).y[:row])
    assert not torch.allclose(part(data).y[row], part(other).y[row])
    after = (part(other).at == position + 2 * DAY).nonzero().item()
    assert not torch.allclose(part(data).x[row + 2], part(other).x[after])
    assert torch.equal(data.train.x, other.train.x) and torch.equal(data.train.y, other.train.y)


@needs_data
def test_scalings_come_from_the_training_part_alone(load: Load, data: DayAhead) -> None:
    stop = load.index(datetime(2023, 7, 1, tzinfo=UTC))
    later = load.actual.clone()
    later[stop:] *= 2
    assert day_ahead(replace(load, actual=later), every=6).departures == data.departures
    x, y = data.train.pair
    assert y.mean().abs() < 0.02 and y.std().item() == pytest.approx(1, abs=0.02)
    assert x[:, :WEEK].abs().max() < 10


@needs_data
def test_parts_are_blocks_one_after_the_other(load: Load, data: DayAhead) -> None:
    borders = [load.index(datetime(*day, tzinfo=UTC)) for day in ((2023, 7, 1), (2024, 1, 1))]
    assert data.train.at.min() >= WEEK and data.train.at.max() + DAY <= borders[0]
    assert data.validation.at.min() == borders[0] and data.validation.at.max() + DAY == borders[1]
    assert data.test.at.min() == borders[1]
    assert data.test.at.max() + 2 * DAY == len(load)  # the last day of 2024 misses an hour
    assert (len(data.validation), len(data.test)) == (184, 365)
    for part in (data.validation, data.test):
        assert {load.when(position).hour for position in part.at.tolist()} == {0}
    assert {load.when(position).hour for position in data.train.at.tolist()} == {0, 6, 12, 18}
    assert all((part.at.diff() > 0).all() for part in (data.train, data.validation, data.test))


@needs_data
def test_inputs_and_targets_are_what_they_say(load: Load, data: DayAhead) -> None:
    part, row = data.test, 40
    at = part.at[row].item()
    perfect = torch.cat([part.y, torch.zeros_like(part.y)], -1).unsqueeze(0)
    found = data.forecast(part, perfect)
    torch.testing.assert_close(found[0, :, :DAY], data.actual(part), rtol=1e-5, atol=0.1)
    noise = found[0, :, DAY:].exp()
    torch.testing.assert_close(noise, torch.full_like(noise, data.departures.scale))
    history = load.actual[at - WEEK : at]
    shape = history - history[-DAY:].mean()
    ratio = part.x[row, :WEEK] / shape
    torch.testing.assert_close(ratio, ratio[:1].expand(WEEK), rtol=1e-4, atol=0)
    assert torch.equal(part.x[row, WEEK + 1 :], calendar(load.when(at)))
    assert part.x.shape == (365, WEEK + 1 + len(calendar(load.when(at))))


@needs_data
def test_no_example_holds_a_gap(load: Load, data: DayAhead) -> None:
    hourly = day_ahead(load, every=1)
    for part in (hourly.train, data.validation, data.test):
        assert part.x.isfinite().all() and part.y.isfinite().all()
    gaps = load.actual.isnan().nonzero()[:, 0]
    targets = hourly.train.at.unsqueeze(1) + torch.arange(DAY)
    assert not torch.isin(targets, gaps).any()
    stop = load.index(datetime(2023, 7, 1, tzinfo=UTC))
    lost = {at for gap in gaps.tolist() for at in range(gap - DAY + 1, gap + 1)}
    every = set(range(WEEK, stop - DAY + 1))
    assert len(hourly.train) == len(every - lost)


def test_gaps_are_filled_from_the_past() -> None:
    series = torch.arange(400.0)
    series[[30, 199, 367]] = torch.nan
    found = filled(series)
    assert found[30] == 6 and found[199] == 31 and found[367] == 31  # a filled gap fills another
    assert series.isnan().sum() == 3


def test_holidays_of_a_year() -> None:
    assert holidays(2024) == {
        date(2024, month, number)
        for month, number in (
            (1, 1), (4, 1), (5, 1), (5, 8), (5, 9), (5, 20), (7, 14), (8, 15), (11, 1), (11, 11),
            (12, 25),
        )
    }  # fmt: skip
    assert {date(2021, 4, 5), date(2022, 4, 18), date(2023, 4, 10)} <= (
        holidays(2021) | holidays(2022) | holidays(2023)
    )


def test_summer_time_is_that_of_paris() -> None:
    paris = ZoneInfo("Europe/Paris")
    hour = datetime(2021, 1, 1, tzinfo=UTC)
    while hour.year < 2025:
        assert summer_time(hour) == (hour.astimezone(paris).utcoffset() == timedelta(hours=2))
        hour += timedelta(hours=1)


def test_the_calendar_of_a_day() -> None:
    ascension = calendar(datetime(2024, 5, 9, 6, tzinfo=UTC)).tolist()  # a Thursday, 130th day
    assert ascension[:2] == pytest.approx([1, 0], abs=1e-6)  # a quarter of a turn
    assert ascension[4:11] == [0, 0, 0, 1, 0, 0, 0]
    assert ascension[11:] == [1, 1, 0, 0, 1, 1]  # the eighth of May was a holiday too
    eve = calendar(datetime(2024, 12, 24, tzinfo=UTC)).tolist()
    assert eve[11:] == [0, 0, 1, 1, 0, 0]
    sunday = calendar(datetime(2024, 3, 31, 1, tzinfo=UTC)).tolist()  # the day clocks change
    assert sunday[11:] == [0, 0, 1, 0, 1, 0]


@needs_data
def test_an_interval_that_leaves_midnight_out_is_refused(load: Load) -> None:
    for every in (0, 5, 48):
        with pytest.raises(ValueError, match=f"every={every} must be a divisor of 24"):
            day_ahead(load, every)
