"""Forecasts of air temperature: nothing leaks, and the simple ones are as good as expected."""

from __future__ import annotations

import itertools
import math
import os
from datetime import UTC, datetime

import pytest
import torch
from torch import Tensor

from spnb.teach.datasets import Fields
from spnb.teach.weather import (
    AHEAD,
    FRAMES,
    GAP,
    PENALTIES,
    Damped,
    Forecast,
    Part,
    Ridge,
    Weather,
    as_usual,
    climatology,
    persistence,
    weather,
)

needs_data = pytest.mark.skipif(
    not os.environ.get("SPNB_DATA"), reason="needs the air temperature in $SPNB_DATA"
)


@pytest.fixture(scope="module")
def data() -> Weather:
    return weather()


def made_up(rows: int = 3, columns: int = 4) -> Weather:
    """Red noise on a few points, and parts of it."""
    generator = torch.Generator().manual_seed(0)
    values = torch.zeros(400, rows, columns)
    for now, before in itertools.pairwise(range(400)):
        news = torch.randn(rows, columns, generator=generator)
        values[before] = 0.9 * values[now].roll(1, 1) + news
    values = 100 * values  # so that the best penalty is none of the ends
    usual = torch.zeros_like(values)
    parts = (Part(values, usual, torch.arange(a, a + 90)) for a in (2, 130, 260))
    fields = Fields(
        datetime(2013, 1, 1, tzinfo=UTC), values, torch.linspace(60, 20, rows),
        torch.arange(float(columns)), "K", "Made up.",
    )  # fmt: skip
    return Weather(fields, *parts)


def rmse(forecast: Forecast, part: Part, area: Tensor) -> list[float]:
    errors = (forecast(part) - part.anomalies).square() * area
    return errors.mean((0, 2, 3)).sqrt().tolist()


@needs_data
def test_the_parts_do_not_know_of_each_other(data: Weather) -> None:
    parts = (data.train, data.validation, data.test)
    ends = [(int(p.times[0]) - FRAMES + 1, int(p.times[-1]) + max(AHEAD), len(p)) for p in parts]
    (first, *_), *_ = ends
    assert first == 0 and [n for *_, n in ends] == [1806, 326, 698]
    for (_, last, _), (begin, *_) in itertools.pairwise(ends):
        assert begin - last > GAP
    assert ends[1][0] == data.fields.index(2014, 4) + GAP
    assert ends[2][1] == len(data.fields) - 1
    assert data.fields.index(2014, 4) - 1 == ends[0][1]


@needs_data
def test_a_quick_run_learns_from_less_and_is_judged_alike(data: Weather) -> None:
    quick = weather(every=10)
    assert len(quick.train) == 181 and torch.equal(quick.test.times, data.test.times)
    assert torch.equal(quick.train.times, data.train.times[::10])


@needs_data
def test_frames_and_targets_are_the_fields_around_a_time(data: Weather) -> None:
    part = data.validation
    now = int(part.times[7])
    values, usual = data.fields.values, part.usual
    for back in range(FRAMES):
        assert torch.equal(part.frames[7, back], values[now - back] - usual[now - back])
    for place, ahead in enumerate((4, 8, 12)):
        assert torch.equal(part.targets[7, place], values[now + ahead])
        assert torch.equal(part.expected[7, place], usual[now + ahead])
        at_last = persistence(part)[7, place] + part.expected[7, place]
        torch.testing.assert_close(at_last, values[now], atol=1e-3, rtol=0)


@needs_data
def test_places_differ_in_ways_that_are_known(data: Weather) -> None:
    north, east, size, daily = data.places
    assert data.places.shape == (4, 25, 53)
    assert north[0, 0] == -north[-1, 0] == 1 and east[0, 0] == -east[0, -1] == -1
    sea, land = (slice(14, 20), slice(2, 10)), (slice(14, 17), slice(20, 25))  # Pacific, Rockies
    assert daily[land].mean() > daily[sea].mean() + 1
    assert size[land].mean() > size[sea].mean() + 1


def test_a_climatology_finds_the_waves_of_year_and_day() -> None:
    days = torch.arange(6 * 365, dtype=torch.float64) / 4
    year, day = 2 * math.pi * days / 365.2425, 2 * math.pi * days
    truth = 280 + 10 * (year - 0.3).cos() + (3 + year.sin()) * (day - 1).cos() + (2 * day).cos()
    found = climatology(truth.view(-1, 1, 1).float(), 4 * 365).flatten()
    torch.testing.assert_close(found.double(), truth, atol=1e-3, rtol=0)


def test_a_climatology_knows_only_the_training_part() -> None:
    values = torch.randn(3000, 2, 2)
    changed = values.clone()
    changed[1800:] += 5
    assert torch.equal(climatology(values, 1800), climatology(changed, 1800))


@needs_data
def test_simple_forecasts_are_as_good_as_they_should_be(data: Weather) -> None:
    """The figures of reference, of another split with a gap, to within its difference."""
    test, area = data.test, data.area
    assert rmse(persistence, test, area) == pytest.approx([2.74, 3.56, 3.85], abs=0.02)
    assert rmse(as_usual, test, area) == pytest.approx([3.35, 3.35, 3.36], abs=0.05)
    damped = rmse(Damped(data.train), test, area)
    assert all(a < b for a, b in zip(damped, rmse(persistence, test, area), strict=True))


@needs_data
@pytest.mark.slow
def test_ridge_is_as_good_as_it_should_be(data: Weather) -> None:
    ridge = Ridge(data, as_usual)
    found = rmse(ridge, data.test, data.area)
    assert found == pytest.approx([2.36, 2.99, 3.32], abs=0.15)
    assert found[0] == pytest.approx(2.36, abs=0.03)
    better = rmse(Ridge(data, Damped(data.train)), data.test, data.area)
    assert all(a < b for a, b in zip(better, found, strict=True))
    assert all(PENALTIES[0] < p < PENALTIES[-1] for p in ridge.penalties)


def test_ridge_solves_its_equation_and_chooses_the_best_penalty() -> None:
    data = made_up()
    ridge = Ridge(data, persistence)
    inputs, others = data.train.inputs, data.validation.inputs
    wanted = (data.train.anomalies - persistence(data.train)).double()

    def solved(penalty: float, lead: int) -> Tensor:
        normal = inputs.T @ inputs + penalty * torch.eye(inputs.shape[1], dtype=torch.float64)
        factors = torch.linalg.solve(normal, inputs.T @ wanted[:, lead].flatten(1))
        return (others @ factors).view(len(others), 3, 4) + persistence(data.validation)[:, lead]

    found = ridge(data.validation).double()
    for lead in range(3):
        truth = data.validation.anomalies[:, lead]
        by_penalty = {
            p: ((solved(p, lead) - truth).square() * data.area).mean().item() for p in PENALTIES
        }
        assert ridge.penalties[lead] == min(by_penalty, key=lambda p: by_penalty[p])
        torch.testing.assert_close(
            found[:, lead], solved(ridge.penalties[lead], lead), atol=1e-2, rtol=1e-5
        )


def test_what_stays_of_an_anomaly_is_its_regression() -> None:
    train = made_up().train
    damped = Damped(train)
    last, later = train.frames[:, 0, 1, 2], train.anomalies[:, 1, 1, 2]
    slope = torch.linalg.lstsq(last.unsqueeze(1), later).solution.item()
    assert damped.left[1, 1, 2].item() == pytest.approx(slope, rel=1e-4)
    assert torch.equal(damped(train), damped.left * train.frames[:, :1])
