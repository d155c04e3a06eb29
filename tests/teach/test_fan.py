"""The fan chart: its bands and its words, against the forecasts they are of."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
import torch
from torch import Tensor

from spnb.maths import scores
from spnb.teach.datasets.stand_ins import made_up_load
from spnb.teach.day_ahead import DAY, DayAhead, day_ahead
from spnb.teach.explorable import Explorable
from spnb.teach.explore.fan import LEVELS, NOISE, fan_chart, part_of

NEW_YEAR = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def data() -> DayAhead:
    return day_ahead(made_up_load(), every=24)


@pytest.fixture(scope="module")
def forecasts(data: DayAhead) -> dict[str, Tensor]:
    actual = data.actual(data.test)
    generator = torch.Generator().manual_seed(0)
    noise = 800 * torch.randn(8, *actual.shape, generator=generator, dtype=torch.float64)
    scale = torch.full_like(noise, math.log(1500.0))
    flat = torch.cat([actual, scale[0]], -1).unsqueeze(0)
    return {"made up": torch.cat([actual + noise, scale], -1), "perfect": flat}


@pytest.fixture(scope="module")
def fan(data: DayAhead, forecasts: dict[str, Tensor]) -> Explorable:
    return fan_chart(data, forecasts, NEW_YEAR)


def test_the_parts_of_the_spread(forecasts: dict[str, Tensor]) -> None:
    made_up = forecasts["made up"]
    means, log_scales = made_up.chunk(2, -1)
    for part, variance in {
        "all": means.var(0, correction=0) + (2 * log_scales).exp().mean(0),
        "aleatoric": (2 * log_scales).exp().mean(0),
        "epistemic": means.var(0, correction=0),
    }.items():
        mixture = NOISE(part_of(made_up, part))
        found = mixture.mean.var(0, correction=0) + mixture.variance.mean(0)
        torch.testing.assert_close(found, variance, rtol=1e-9, atol=1e-6)
        torch.testing.assert_close(mixture.mean.mean(0), means.mean(0))


def test_the_summary_follows_the_state(fan: Explorable, forecasts: dict[str, Tensor]) -> None:
    fan.set(day=3, forecast="made up", part="all", samples=8)
    assert fan.error is None
    low, *_, high = scores.quantiles(forecasts["made up"][:, 3], NOISE, LEVELS) / 1000
    when = NEW_YEAR + timedelta(days=3)
    assert fan.summary.startswith(f"{when:%A %d %B %Y}, made up, 8 samples, spread: all.")
    assert f"band is {(high - low).mean():.1f} GW wide" in fan.summary
    wide = float((high - low).mean())
    fan.set(part="epistemic", samples=1)
    assert "1 sample, spread: epistemic. The 90 % band is 0.0 GW wide" in fan.summary
    fan.set(part="aleatoric", samples=8)
    narrow = float(fan.summary.split("band is ")[1].split(" GW")[0])
    assert 0 < narrow < wide


def test_a_perfect_forecast_holds_all_hours(fan: Explorable) -> None:
    fan.set(day=10, forecast="perfect", part="all", samples=8)
    assert "1 sample, spread" in fan.summary, "it has no more"
    assert "holds 24 of 24 hours; the median misses the load by 0.0 GW" in fan.summary


def test_the_bands_are_drawn_where_the_quantiles_are(
    fan: Explorable, forecasts: dict[str, Tensor]
) -> None:
    fan.set(day=20, forecast="made up", part="all", samples=4)
    quantiles = scores.quantiles(forecasts["made up"][:4, 20], NOISE, LEVELS) / 1000
    axes = fan.figure.axes[0]
    drawn = [torch.as_tensor(line.get_ydata()) for line in axes.lines]
    for wanted in quantiles:
        assert any(torch.allclose(line, wanted) for line in drawn if len(line) == DAY)


def test_a_redrawing_follows_the_hand(
    fan: Explorable, follows_the_hand: Callable[..., None]
) -> None:
    follows_the_hand(partial(fan.set, day=day) for day in range(60, 69))


def test_bad_forecasts_are_refused(data: DayAhead, forecasts: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"\[S, 366, 48\] is wanted"):
        fan_chart(data, {"short": forecasts["made up"][:, :5]}, NEW_YEAR)
    with pytest.raises(ValueError, match="none of the 366 test days"):
        fan_chart(data, forecasts, datetime(2023, 1, 1, tzinfo=UTC))
