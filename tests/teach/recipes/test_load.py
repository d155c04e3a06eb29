"""The recipe of the load forecast, small: it runs, ranks agree, and nothing of 2024 is learned."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from typing import Any

import pytest
import torch

import spnb
from spnb.maths import scores
from spnb.teach import datasets, figures
from spnb.teach.day_ahead import TEST, day_ahead
from spnb.teach.recipes import load

needs_data = pytest.mark.skipif(
    not os.environ.get("SPNB_DATA"), reason="needs the electricity load in $SPNB_DATA"
)
SMALL = replace(
    load.SETTINGS["ci"], every=24, hidden=16, epochs=2, plain_epochs=2, num_samples=4,
    test_samples=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return load.run(SMALL)


@needs_data
def test_ranks_agree(result: dict[str, Any], pool: spnb.WorkerPool) -> None:
    for layout in (spnb.Layout(sample=2), spnb.Layout(data=2)):
        for shared in pool.run(load.run, SMALL, layout):
            for who, found in result["scores"].items():
                assert shared["scores"][who] == pytest.approx(found, rel=1e-4)
            assert shared["loss"] == pytest.approx(result["loss"], rel=1e-5)


@needs_data
def test_a_result_holds_all_contenders_and_a_week(result: dict[str, Any]) -> None:
    assert json.loads(json.dumps(result, allow_nan=False)) == json.loads(json.dumps(result))
    assert list(result["scores"]) == [
        load.BAYESIAN, "plain MLP, own noise", "plain MLP", "grid operator", "previous day",
        "previous week",
    ]  # fmt: skip
    assert result["days"] == 365
    assert result["scores"]["grid operator"]["mape"] == pytest.approx(2.07, abs=0.01)
    assert result["scores"]["previous day"]["mape"] == pytest.approx(5.33, abs=0.01)
    own, fitted = (result["scores"][who] for who in ("plain MLP, own noise", "plain MLP"))
    assert own["mape"] == fitted["mape"] and own["crps"] != fitted["crps"]
    for who, by_hour in result["coverage_by_hour"].items():
        assert sum(by_hour) / 24 == pytest.approx(result["scores"][who]["coverage_90"])
    low, *_, high = result["week"]["quantiles"]
    assert len(low) == 168 and all(a < b for a, b in zip(low, high, strict=True))


@needs_data
def test_a_run_with_several_seeds_holds_the_scores_of_each(result: dict[str, Any]) -> None:
    """Each as if it had run alone; what has no weights to draw is scored once."""
    several = load.run(replace(SMALL, repeats=2))
    assert several["scores"] == result["scores"] and several["loss"] == result["loss"]
    second = load.run(replace(SMALL, seed=1))
    assert set(several["by_seed"]) == set(load.NETWORKS)
    for who, found in several["by_seed"].items():
        for name, values in found.items():
            assert values == [result["scores"][who][name], second["scores"][who][name]]
    assert several["by_seed"][load.BAYESIAN]["crps"][0] != second["scores"][load.BAYESIAN]["crps"]
    assert "CRPS (MW) with 2 seeds" in load.describe(several)


@needs_data
def test_a_result_is_drawn_and_described(result: dict[str, Any]) -> None:
    figure = load.draw(result)
    assert figures.png(figure).startswith(b"\x89PNG")
    text = load.describe(result)
    assert "365 days of 2024" in text
    assert all(any(line.startswith(who) for line in text.splitlines()) for who in result["scores"])


@needs_data
def test_what_comes_in_2024_changes_nothing_that_is_estimated() -> None:
    record = datasets.load()
    first = record.index(TEST)
    other = record.actual.clone()
    other[first:] = other[first:].flip(0)
    one, two = (day_ahead(replace(record, actual=a), every=24) for a in (record.actual, other))
    assert torch.equal(one.train.x, two.train.x) and torch.equal(one.train.y, two.train.y)
    assert torch.equal(one.validation.y, two.validation.y) and one.departures == two.departures
    assert not torch.equal(one.test.y, two.test.y)


def test_errors_make_a_point_forecast_probabilistic() -> None:
    point, errors = torch.zeros(3, 24).double(), torch.zeros(4, 24).double()
    errors[:, 0] = torch.tensor([1.0, -1.0, 3.0, -3.0])
    errors[:, 1:] = 2.0
    forecast = load.with_errors(point, errors)
    assert forecast.shape == (1, 3, 48)
    normal = load.NOISE(forecast)
    assert normal.stddev[0, 0, :3].tolist() == pytest.approx([math.sqrt(5), 2, 2])
    crps = scores.crps(forecast, point, load.NOISE)  # of a normal whose mean comes true
    expected = 2 * (math.sqrt(2) - 1) / math.sqrt(math.pi)
    assert crps[0, 1].item() == pytest.approx(expected)


def test_a_network_always_starts_from_the_same_weights() -> None:
    state = torch.get_rng_state()
    one, other = (load.network(SMALL, 186).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.get_rng_state(), state)
