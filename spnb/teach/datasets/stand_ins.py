"""What a notebook takes where its data cannot be had: it runs all the same, and says so.

Handwritten digits stand in for photographs. For the two records there is nothing of the kind inside
the installed packages, so theirs are made up: they have the form of the real ones, and enough of
their habits that every cell has something to show. What is found on them is not about the world.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from spnb.parallel.keyed import Key
from spnb.teach.datasets.air import STEP, Fields, air_temperature
from spnb.teach.datasets.cifar import cifar10
from spnb.teach.datasets.entsoe import HOUR, Load, load
from spnb.teach.datasets.files import DataUnavailableError
from spnb.teach.datasets.images import Images, digits

T = TypeVar("T", Images, Load, Fields)
SEED = 2604
YEAR, DAY = timedelta(days=365.2425), timedelta(days=1)


def photographs(num_train: int | None = None) -> Images:
    """`cifar10`; where it cannot be had, handwritten digits, enlarged to its shape.

    Args:
        num_train: how many training images, a multiple of ten; None: all there are.
    """
    return _or(lambda: cifar10(num_train=num_train), lambda: _large_digits(num_train))


def load_record() -> Load:
    """`load`; where it cannot be had, a made-up record of the same hours."""
    return _or(load, made_up_load)


def air_fields() -> Fields:
    """`air_temperature`; where it cannot be had, made-up fields of the same times and places."""
    return _or(air_temperature, made_up_fields)


def _or(real: Callable[[], T], stand_in: Callable[[], T]) -> T:
    try:
        return real()
    except DataUnavailableError as error:
        other = stand_in()
        return replace(other, sentence=f"{other.sentence} (Instead of the real data: {error})")


def _large_digits(num_train: int | None) -> Images:
    small = digits(flat=False)
    train, test = (
        interpolate(x, scale_factor=4).expand(-1, 3, -1, -1).contiguous()
        for x in (small.train_x, small.test_x)
    )
    return replace(
        small,
        train_x=train[:num_train],
        train_y=small.train_y[:num_train],
        test_x=test,
        names=tuple(f"digit {n}" for n in range(10)),
    )


def made_up_load() -> Load:
    """Days, weeks, seasons, and noise that lasts, in MW, from 2021 to 2024."""
    start = datetime(2021, 1, 1, tzinfo=UTC)
    hours = round((datetime(2025, 1, 1, tzinfo=UTC) - start) / HOUR)
    t = torch.arange(hours, dtype=torch.float64)
    day, year = 2 * math.pi * t / 24, 2 * math.pi * t / (YEAR / HOUR)
    weekday = ((t // 24) + start.weekday()) % 7
    usual = 52_000 + 11_000 * year.cos() - 5_000 * (day - 0.6).cos() - 2_500 * (2 * day + 0.7).cos()
    usual = usual - 6_000 * (weekday == 5) - 8_500 * (weekday == 6)
    actual = usual + _lasting(hours, 0.99, 2_500) + _lasting(hours, 0.7, 700)
    return Load(
        start,
        actual=actual,
        operator=actual + _lasting(hours, 0.9, 1_300),
        unit="MW",
        sentence="A made-up record of hourly electricity load.",
    )


def _lasting(length: int, memory: float, size: float, name: int = 0) -> Tensor:
    """Noise of a standard deviation, each value of which keeps a part of the one before."""
    generator = Key(SEED).fold("lasting", str(memory), name).generator()
    fresh = torch.randn(length, generator=generator, dtype=torch.float64).tolist()
    value, rest, values = 0.0, math.sqrt(1 - memory**2), []
    for step in fresh:
        value = memory * value + rest * step
        values.append(value)
    return size * torch.tensor(values, dtype=torch.float64)


def made_up_fields(waves: int = 12) -> Fields:
    """Seasons, days, and waves that travel east and change their size, in kelvin."""
    steps = 2920
    latitude, longitude = torch.arange(75.0, 14.9, -2.5), torch.arange(200.0, 330.1, 2.5)
    t = torch.arange(steps, dtype=torch.float64)[:, None, None]
    north = (latitude.double() * math.pi / 180)[:, None]
    east = (longitude.double() * math.pi / 180)[None, :]
    season = -(2 * math.pi * t / (YEAR / STEP)).cos()
    time_of_day = (2 * math.pi * t / (DAY / STEP) + east).cos()
    values = 300 - 45 * north.sin() ** 2 + 14 * north.sin() * season - 2 * time_of_day
    generator = Key(SEED).fold("waves").generator()
    for number in range(waves):
        along, across, phase, pace = torch.rand(
            4, generator=generator, dtype=torch.float64
        ).tolist()
        angle = (3 + 9 * along) * east + 8 * (across - 0.5) * north - (0.15 + 0.25 * pace) * t
        size = _lasting(steps, 0.97, 1.5, number)[:, None, None]
        values = values + size * (angle + 2 * math.pi * phase).cos() * (2 * north).sin()
    return Fields(
        datetime(2013, 1, 1, tzinfo=UTC),
        values.float(),
        latitude,
        longitude,
        unit="K",
        sentence="Made-up fields of temperature.",
    )
