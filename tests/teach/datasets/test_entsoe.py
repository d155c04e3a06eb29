"""The load of France: every hour once, its gaps, the quarters of the last day, and positions."""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pandas as pd
import pytest
import torch

from spnb.teach.datasets import Load, entsoe, load

once = functools.cache(load)


@pytest.fixture
def french(real: Path) -> Load:
    return once()


def test_the_record_and_its_gaps(french: Load) -> None:
    assert len(french) == 35_064 == (3 * 365 + 366) * 24
    assert french.actual.dtype == french.operator.dtype == torch.float64
    assert (french.start, french.when(35_063)) == (
        datetime(2021, 1, 1, tzinfo=UTC),
        datetime(2024, 12, 31, 23, tzinfo=UTC),
    )
    # The 37 hours lack what was consumed; what was expected is always there.
    missing = [french.when(i) for i in french.actual.isnan().nonzero()[:, 0].tolist()]
    assert [sum(when.year == year for when in missing) for year in entsoe.FILES] == [9, 22, 5, 1]
    assert missing[0] == datetime(2021, 1, 3, 22, tzinfo=UTC) and missing[-1] == french.when(35_063)
    assert not french.operator.isnan().any()
    assert 28_000 < french.actual[~french.actual.isnan()].min() < french.operator.max() < 90_000
    assert repr(french) == "Load(35,064 hours from 2021-01-01, 37 missing, in MW)"
    assert "ENTSO-E" in french.sentence and "CC BY 4.0" in french.sentence


def test_it_is_what_pandas_reads(french: Load, real: Path) -> None:
    frames = [
        pd.read_csv(real / file.name, na_values=["-", "N/A", "n/e"])
        for file in entsoe.FILES.values()
    ]
    table = pd.concat(frames, ignore_index=True)
    when = pd.to_datetime(
        table.iloc[:, 0].str.split(" - ").str[0], format="%d.%m.%Y %H:%M", utc=True
    )
    table = table[when.dt.minute == 0]
    assert (when[when.dt.minute == 0].diff().dropna() == pd.Timedelta(hours=1)).all()
    for ours, theirs in ((french.operator, 1), (french.actual, 2)):
        column = torch.tensor(table.iloc[:, theirs].to_numpy(float))
        torch.testing.assert_close(ours, column, rtol=0, atol=0, equal_nan=True)


def test_only_the_last_day_has_quarters_of_an_hour(french: Load, real: Path) -> None:
    lines = (real / entsoe.FILES[2024].name).read_text().splitlines()[1:]
    assert not any(line[15:17] != "00" for line in lines[:-96])
    assert all(line.startswith('"31.12.2024') for line in lines[-96:])
    values = [line.split(",")[1:] for line in lines[-96:]]
    hours = [values[i : i + 4] for i in range(0, 96, 4)]
    assert all(hour == [hour[0]] * 4 for hour in hours[:-1]), "the quarters repeat the hour's value"
    # But for the last hour, whose actual load is missing, so that no forecast of it is scored.
    assert hours[-1][0] == ['"64000"', '"N/A"'] and hours[-1][1] == ['"63350"', '"N/A"']
    first = french.index(datetime(2024, 12, 31, tzinfo=UTC))
    assert french.operator[first:].tolist() == [float(hour[0][0][1:-1]) for hour in hours]
    assert french.actual[first:-1].tolist() == [float(hour[0][1][1:-1]) for hour in hours[:-1]]


def test_the_operators_forecast_is_as_good_as_is_known(french: Load) -> None:
    """On the hours of 2024; a day that was taken for another would be wrong by 5 %."""
    part = slice(french.index(datetime(2024, 1, 1, tzinfo=UTC)), None)
    actual, operator = french.actual[part], french.operator[part]
    error = ((operator - actual).abs() / actual).nanmean()
    assert error.item() == pytest.approx(0.0207, abs=5e-4)


def test_hours_and_positions(french: Load) -> None:
    for position in (0, 1, 12_345, 35_064):
        assert french.index(french.when(position)) == position
    paris = timezone(timedelta(hours=1))
    assert french.index(datetime(2021, 1, 1, 3, tzinfo=paris)) == 2


@pytest.mark.parametrize(
    ("when", "message"),
    [
        (datetime(2020, 12, 31, 23, tzinfo=UTC), "2020-12-31 .* is none of the 35,064 full hours"),
        (datetime(2025, 1, 1, 1, tzinfo=UTC), "2025-01-01 .* is none of the 35,064 full hours"),
        (datetime(2022, 1, 1, 1, 15, tzinfo=UTC), "01:15:00.* is none of the 35,064 full hours"),
        (datetime(2022, 1, 1), "2022-01-01 00:00:00 has no time zone: give datetime"),
    ],
)
def test_what_is_no_hour_of_the_record_is_refused(
    french: Load, when: datetime, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        french.index(when)
