"""The recipe of the Swin transformer, small: it runs, ranks agree, and what it says is drawn."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from typing import Any

import pytest
import torch

import spnb
from spnb.maths.likelihoods import HeteroscedasticNormal
from spnb.teach import figures
from spnb.teach import weather as forecasts
from spnb.teach.recipes import weather

needs_data = pytest.mark.skipif(
    not os.environ.get("SPNB_DATA"), reason="needs the air temperature in $SPNB_DATA"
)
SMALL = replace(weather.SETTINGS["ci"], every=16, epochs=1, num_samples=3, test_samples=3)


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return weather.run(SMALL)


@needs_data
def test_ranks_agree(result: dict[str, Any], pool: spnb.WorkerPool) -> None:
    for shared in pool.run(weather.run, SMALL, spnb.Layout(sample=2)):
        for who, found in result["scores"].items():
            for name, values in found.items():
                assert shared["scores"][who][name] == pytest.approx(values, abs=1e-4)
        assert shared["loss"] == pytest.approx(result["loss"], rel=1e-5)


@needs_data
def test_a_result_holds_scores_by_lead_time_and_a_forecast(result: dict[str, Any]) -> None:
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["leads"] == [24, 48, 72]
    for found in result["scores"].values():
        assert {"rmse", "acc", "crps", "spread_skill"} <= set(found)
        assert all(len(values) == 3 for values in found.values())
    assert result["scores"]["persistence"]["rmse"][0] == pytest.approx(2.74, abs=0.02)
    assert "of_samples" in result["scores"][weather.SWIN]
    swin, damped = (result["scores"][who]["rmse"] for who in (weather.SWIN, "damped persistence"))
    assert swin == pytest.approx(damped, abs=0.1), "it starts from there"
    assert result["maps"]["time"] == "10 Nov 2014"
    assert [len(row) for row in result["maps"]["mean"][2]] == 25 * [53]


@needs_data
def test_a_result_is_drawn_and_described(result: dict[str, Any]) -> None:
    figure = weather.draw(result)
    assert figures.png(figure).startswith(b"\x89PNG")
    scored = figure.axes[:3]
    assert [len(axes.lines) for axes in scored] == [6, 6, 7]
    lines = [line.get_ydata().tolist() for line in scored[0].lines]
    assert lines[0] == result["scores"][weather.SWIN]["rmse"]
    text = weather.describe(result)
    assert "at 24 / 48 / 72 hours" in text
    assert all(any(line.startswith(who) for line in text.splitlines()) for who in result["scores"])


@needs_data
def test_units_are_undone() -> None:
    data = forecasts.weather(every=30)
    units, part = weather.Units.of(data), data.validation
    assert units.inputs(part).shape == (len(part), 7, 25, 53)
    assert units.targets(data.train).square().mean((0, 2, 3)).tolist() == pytest.approx(3 * [1.0])
    log_scales = torch.full_like(part.anomalies, 0.5)
    draws = torch.cat([units.targets(part), log_scales], 1).unsqueeze(0)
    found = HeteroscedasticNormal(dim=-3)(units.forecast(draws, part))
    torch.testing.assert_close(found.mean[0], part.anomalies, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(found.stddev[0, 0], units.error * math.exp(0.5))


def test_the_large_network_has_about_200_million_weights() -> None:
    with torch.device("meta"):
        net = weather.network(weather.SETTINGS["node"], torch.zeros(4, 25, 53))
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(200e6, rel=0.02)


def test_a_network_always_starts_from_the_same_weights() -> None:
    state, places = torch.get_rng_state(), torch.zeros(4, 25, 53)
    one, other = (weather.network(SMALL, places).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.get_rng_state(), state)
