"""Day-ahead forecasts of the French electricity load: a week of hours in, the next day's hours out.

An example begins at some hour. Its inputs are known before that hour: the 168 hours before, and the
calendar. Its targets are the 24 hours from there, as departures from the day before: what is left
to learn is how two days differ, which changes less over the years than the load itself. Days to
validate and to test on begin at midnight UTC, as the day of the data does; to train on there are
examples that begin at other hours as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache

import torch
from dateutil.easter import easter
from torch import Tensor

from spnb.teach.datasets.entsoe import HOUR, Load
from spnb.teach.datasets.scaling import Scaling

DAY, WEEK = 24, 168
"""Hours of targets, and hours of history."""

VALIDATION = datetime(2023, 7, 1, tzinfo=UTC)
"""Begin of the days to validate on, and end of the hours to train on."""

TEST = datetime(2024, 1, 1, tzinfo=UTC)
"""Begin of the days to test on, and end of the days to validate on."""


@dataclass(frozen=True)
class Examples:
    """Examples of one part of the record.

    Attributes:
        at: position of the first target hour in the record, ``[N]``, ascending.
        x: inputs ``[N, D]`` float32: 168 hours less the mean of their last day, that mean, both
            scaled; then the calendar.
        y: targets ``[N, 24]`` float32, scaled departures from the day before.
    """

    at: Tensor
    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.at)

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets, as `spnb.fit` takes them."""
        return self.x, self.y


@dataclass(frozen=True)
class DayAhead:
    """Examples to train, to validate and to test on: blocks of time, one after the other.

    Attributes:
        load: the record.
        departures: scaling of the targets, from the hours to train on.
        train: hours before July 2023.
        validation: the days from July to December 2023.
        test: the days of 2024.
    """

    load: Load
    departures: Scaling
    train: Examples
    validation: Examples
    test: Examples

    def actual(self, part: Examples) -> Tensor:
        """What was consumed, in MW, ``[N, 24]`` float64."""
        return day(self.load.actual, part.at)

    def operator(self, part: Examples) -> Tensor:
        """What the grid operator expected, in MW, ``[N, 24]``."""
        return day(self.load.operator, part.at)

    def previous(self, part: Examples, hours: int = DAY) -> Tensor:
        """What was consumed so many hours before, in MW, ``[N, 24]``: persistence."""
        return day(filled(self.load.actual), part.at - hours)

    def forecast(self, part: Examples, draws: Tensor) -> Tensor:
        """Means and log-scales of scaled departures as those of the load itself, in MW.

        Args:
            part: the examples that were predicted.
            draws: ``[S, N, 48]``, as a `HeteroscedasticNormal` takes them.

        Returns:
            ``[S, N, 48]`` float64, as it takes them.
        """
        means, log_scales = draws.double().cpu().chunk(2, -1)
        means = self.previous(part) + self.departures.undo(means)
        return torch.cat([means, log_scales + math.log(float(self.departures.scale))], -1)


def day_ahead(load: Load, every: int = 1) -> DayAhead:
    """Examples of a record.

    Args:
        load: the record, from 2021 to 2024.
        every: hours between the begins of two training examples; a divisor of 24, so that midnight
            is one of them.

    Raises:
        ValueError: ``every`` does not divide 24.
    """
    if every < 1 or DAY % every:
        raise ValueError(f"every={every} must be a divisor of {DAY}.")
    known = filled(load.actual)
    first, last = load.index(VALIDATION), load.index(TEST)
    hours = Scaling.of(known[:first])
    departures = Scaling.of(known[DAY:first] - known[: first - DAY])

    def examples(start: int, stop: int, step: int) -> Examples:
        """All whose targets lie in the hours from start to before stop, and were recorded."""
        at = torch.arange(start, stop - DAY + 1, step)
        at = at[~day(load.actual, at).isnan().any(1)]
        history = hours.apply(windows(known, at - WEEK, WEEK))
        level = history[:, -DAY:].mean(1, keepdim=True)
        dates = torch.stack([calendar(load.when(position)) for position in at.tolist()])
        changes = day(load.actual, at) - day(known, at - DAY)
        x = torch.cat([history - level, level, dates], 1)
        return Examples(at, x, departures.apply(changes))

    return DayAhead(
        load,
        departures,
        train=examples(WEEK, first, every),
        validation=examples(first, last, DAY),
        test=examples(last, len(load), DAY),
    )


def windows(series: Tensor, at: Tensor, length: int) -> Tensor:
    """Stretches ``[N, length]`` of a series, from positions ``[N]`` on."""
    return series.unfold(0, length, 1)[at]


def day(series: Tensor, at: Tensor) -> Tensor:
    """The 24 hours from each position on, ``[N, 24]``."""
    return windows(series, at, DAY)


def filled(series: Tensor) -> Tensor:
    """The series with each gap filled from its past alone: the same hour a week before.

    Within the first week, that of the day before.
    """
    series = series.clone()
    for gap in series.isnan().nonzero()[:, 0].tolist():
        series[gap] = series[gap - WEEK] if gap >= WEEK else series[gap - DAY]
    return series


def calendar(begin: datetime) -> Tensor:
    """What the calendar says of the 24 hours from an hour (UTC) on, ``[D]`` float32.

    Hour of the day and season as points on circles; the day of the week, one-hot; whether the day
    before, the day, and the day after are public holidays; whether it lies between Christmas Eve
    and New Year; whether clocks show summer time, now and a week ago, since people follow the clock
    while the hours are UTC.
    """
    turns = begin.hour / DAY, begin.timetuple().tm_yday / 365.25
    circles = [f(2 * math.pi * turn) for turn in turns for f in (math.sin, math.cos)]
    weekday = [float(begin.weekday() == number) for number in range(7)]
    today = begin.date()
    days = [today + timedelta(days=number) for number in (-1, 0, 1)]
    flags = [
        *(which in holidays(which.year) for which in days),
        (today.month, today.day) >= (12, 24),
        summer_time(begin),
        summer_time(begin - WEEK * HOUR),
    ]
    return torch.tensor([*circles, *weekday, *map(float, flags)])


@cache
def holidays(year: int) -> frozenset[date]:
    """The public holidays of France: eight fixed days, and three that follow Easter."""
    fixed = ((1, 1), (5, 1), (5, 8), (7, 14), (8, 15), (11, 1), (11, 11), (12, 25))
    after_easter = (1, 39, 50)  # Easter Monday, Ascension, Whit Monday
    return frozenset(
        [date(year, month, number) for month, number in fixed]
        + [easter(year) + timedelta(days=days) for days in after_easter]
    )


def summer_time(when: datetime) -> bool:
    """Whether clocks in France show summer time: it changes on last Sundays, at 1:00 UTC."""
    start, end = (_last_sunday(when.year, month) for month in (3, 10))
    return start <= when < end


def _last_sunday(year: int, month: int) -> datetime:
    last = datetime(year, month, 31, 1, tzinfo=UTC)
    return last - timedelta(days=(last.weekday() + 1) % 7)
