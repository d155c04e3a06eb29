"""The weather map: what it says is computed from the maps it shows."""

from __future__ import annotations

import math

import pytest
import torch
from matplotlib.contour import ContourSet
from torch import Tensor

from spnb.maths.likelihoods import HeteroscedasticNormal
from spnb.teach.datasets.stand_ins import made_up_fields
from spnb.teach.explorable import Explorable
from spnb.teach.explore.weather_map import spread_of, weather_map
from spnb.teach.weather import Weather, weather

NOISE = HeteroscedasticNormal(dim=-3)


@pytest.fixture(scope="module")
def data() -> Weather:
    return weather(every=24, fields=made_up_fields())


@pytest.fixture(scope="module")
def maps(data: Weather) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    truth = data.test.anomalies
    off = truth.clone()
    off[:, 1, 3, 4] += 10.0
    means = {"nearly right": off, "zero": torch.zeros_like(truth)}
    spreads = {"nearly right": torch.full_like(truth, 2.0), "zero": torch.full((3, 25, 53), 3.0)}
    return means, spreads, torch.full_like(truth, 0.5)


@pytest.fixture
def explorer(
    data: Weather, maps: tuple[dict[str, Tensor], dict[str, Tensor], Tensor]
) -> Explorable:
    return weather_map(data, *maps)


def test_the_summary_follows_the_state(explorer: Explorable, data: Weather) -> None:
    explorer.set(lead=48, day=5)
    assert explorer.error is None
    rmse = math.sqrt(100 * float(data.area[3]) / (25 * 53))
    assert f"for 48 hours later: it misses by {rmse:.2f} K" in explorer.summary
    assert "expected to miss by 2.00 K" in explorer.summary
    assert "most at 68° N, 150° W (+10.0 K)" in explorer.summary
    explorer.set(lead=24)
    assert "misses by 0.00 K" in explorer.summary
    explorer.set(forecast="zero", lead=72)
    truth = data.test.anomalies[5, 2]
    rmse = (truth.square() * data.area).mean().sqrt().item()
    assert f"misses by {rmse:.2f} K (RMSE over the map)" in explorer.summary
    assert "it expected to miss by 3.00 K" in explorer.summary


def test_signs_show_without_colours(explorer: Explorable) -> None:
    explorer.set(day=5)
    left = explorer.figure.axes[0]
    (lines,) = (c for c in left.collections if isinstance(c, ContourSet))
    dashed = [style[1] is not None for style in lines.get_linestyles()]
    assert dashed == [level < 0 for level in lines.levels] and any(dashed)


@pytest.mark.parametrize("beside", ["truth", "error", "spread", "spread of samples"])
def test_both_maps_are_those_of_the_state(
    explorer: Explorable, data: Weather, maps: tuple[dict[str, Tensor], dict[str, Tensor], Tensor],
    beside: str,
) -> None:  # fmt: skip
    explorer.set(lead=48, day=7, beside=beside)
    means, spreads, of_samples = maps
    truth = data.test.anomalies
    wanted = {
        "truth": truth,
        "error": means["nearly right"] - truth,
        "spread": spreads["nearly right"],
        "spread of samples": of_samples,
    }[beside]
    left, right = explorer.figure.axes[:2]
    assert torch.equal(torch.as_tensor(left.images[0].get_array()), means["nearly right"][7, 1])
    assert torch.equal(torch.as_tensor(right.images[0].get_array()), wanted[7, 1])
    assert ("The samples differ by 0.50 K" in explorer.summary) == (beside == "spread of samples")


def test_a_simple_forecast_has_no_samples(explorer: Explorable) -> None:
    explorer.set(forecast="zero", beside="spread of samples")
    assert explorer.error is None and not explorer.figure.axes[1].images
    assert "has no weight samples" in explorer.figure.axes[1].texts[0].get_text()


def test_the_parts_of_the_spread_add_up() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(6, 4, 6, 2, 3, generator=generator, dtype=torch.float64)
    mean, spread, of_samples = spread_of(draws, NOISE)
    means, log_scales = draws.chunk(2, -3)
    torch.testing.assert_close(mean, means.mean(0))
    aleatoric = (2 * log_scales).exp().mean(0)
    torch.testing.assert_close(spread.square(), aleatoric + of_samples.square())
    torch.testing.assert_close(of_samples, means.std(0, correction=0))


def test_maps_must_fit(
    data: Weather, maps: tuple[dict[str, Tensor], dict[str, Tensor], Tensor]
) -> None:
    means, spreads, of_samples = maps
    with pytest.raises(ValueError, match=r"is wanted: a map for each"):
        weather_map(data, means | {"zero": torch.zeros(3, 25, 53)}, spreads, of_samples)
    with pytest.raises(ValueError, match="must agree"):
        weather_map(data, means, {"zero": spreads["zero"]}, of_samples)
