"""The regression benchmark: its protocol against scikit-learn, ranks agree, tables are checked."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

import spnb
from spnb.teach import figures
from spnb.teach.recipes import recorded
from spnb.teach.recipes import regression as recipe
from spnb.teach.regression import METHODS, Protocol, benchmark, summary

QUICK = Protocol(splits=3, hidden=4, epochs=8, gains=(1.0,), test_samples=8)


def test_the_linear_model_is_that_of_scikit_learn() -> None:
    """The same splits, scalings and units, with scikit-learn's Bayesian ridge regression."""
    from sklearn.linear_model import BayesianRidge

    x, y = recipe.diabetes()
    found = benchmark(x, y, ["linear"], replace(QUICK, epochs=60))["linear"]
    for split in range(3):
        generator = spnb.Key(0).fold("split", split).generator()
        order = torch.randperm(442, generator=generator)
        test, train = order[:44], order[44:]
        mean, spread = x[train].mean(0), x[train].std(0)
        inputs = ((x - mean) / spread).numpy()
        model = BayesianRidge().fit(inputs[train], y[train].numpy())
        at, width = model.predict(inputs[test], return_std=True)
        expected = torch.distributions.Normal(torch.tensor(at), torch.tensor(width))
        rmse = (y[test] - expected.mean).square().mean().sqrt().item()
        assert found["rmse"][split] == pytest.approx(rmse, rel=0.02)
        likelihood = expected.log_prob(y[test]).mean().item()
        assert found["log_likelihood"][split] == pytest.approx(likelihood, abs=0.03)


def test_the_linear_model_has_the_width_of_prior_that_was_chosen() -> None:
    """With a prior that holds all weights at zero it predicts the mean, and is told so."""
    x, y = recipe.diabetes()
    narrow, wide = (
        benchmark(x, y, ["linear"], replace(QUICK, splits=2, gains=(gain,)))["linear"]
        for gain in (1e-3, 1.0)
    )
    assert narrow["gain"] == [1e-3, 1e-3]
    for split, rmse in enumerate(narrow["rmse"]):
        order = torch.randperm(442, generator=spnb.Key(0).fold("split", split).generator())
        test, train = y[order[:44]], y[order[44:]]
        assert rmse == pytest.approx((test - train.mean()).square().mean().sqrt().item(), rel=0.02)
        assert wide["rmse"][split] < 0.9 * rmse


@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs_on_a_small_table(name: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(60, 2)
    y = 3 * x[:, 0] + 100
    protocol = replace(QUICK, splits=1, epochs=40)
    found = benchmark(x, y, [name], protocol)[name]
    assert found["rmse"][0] < 4 and found["log_likelihood"][0] > -3.5  # y alone: 3, and -2.5
    assert found == benchmark(x, y, [name], protocol)[name]


def test_the_width_of_the_prior_is_chosen_without_the_test_rows() -> None:
    """Test rows that say something else change the scores, and nothing that was chosen."""
    torch.manual_seed(0)
    x = torch.randn(50, 2)
    y = x.sum(1) + 0.1 * torch.randn(50)
    protocol = replace(QUICK, splits=2, gains=(0.01, 1.0), epochs=40)
    first = benchmark(x, y, ["point"], protocol)["point"]
    assert first["gain"] == [1.0, 1.0]
    test = torch.randperm(50, generator=spnb.Key(0).fold("split", 0).generator())[:5]
    y[test] += 100
    second = benchmark(x, y, ["point"], protocol)["point"]
    assert second["rmse"][0] == pytest.approx(100, abs=5) and second["gain"][0] == 1.0


def test_ranks_share_the_splits(pool: spnb.WorkerPool) -> None:
    x, y = recipe.diabetes()
    names = ["linear", "mean field"]
    expected = benchmark(x, y, names, QUICK)
    for layout in (spnb.Layout(sample=2), spnb.Layout(data=2)):
        for found in pool.run(benchmark, x, y, names, QUICK, layout):
            for name in names:
                assert found[name]["rmse"] == pytest.approx(expected[name]["rmse"], rel=1e-5)


def test_a_result_is_described_and_drawn() -> None:
    settings = replace(recipe.SETTINGS["ci"], epochs=8, hidden=4, test_samples=4)
    result: dict[str, Any] = recipe.run(settings)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert list(result["scores"]) == ["linear", "point", "mean field", "SG-MCMC"]
    assert result["scores"]["point"]["gained"] == 0
    words = recipe.describe(result)
    assert "2 splits; mean ± corrected standard error" in words
    for name, found in result["scores"].items():
        assert name in words and f"{found['rmse']:.2f}" in words
    assert figures.is_drawing(recipe.draw(result))


def test_mean_and_standard_error() -> None:
    assert summary([1.0, 3.0]) == pytest.approx((2.0, 1.0))
    twenty = list(map(float, range(20)))
    plain, corrected = summary(twenty)[1], summary(twenty, 44 / 398)[1]
    assert corrected / plain == pytest.approx(1.792, abs=1e-3)
    with pytest.raises(ValueError, match="at least 2 splits, and there is 1"):
        summary([4.0])


@pytest.mark.slow
def test_corrected_errors_hold_what_they_say() -> None:
    """A mean over splits of fresh tables varies as much as the error says, and 1.8 times more than
    the error for independent values."""
    protocol = Protocol(splits=20)
    generator = torch.Generator().manual_seed(0)
    means, errors = [], {0.0: [], protocol.overlap(200): []}  # type: ignore[var-annotated]
    for _ in range(300):
        x = torch.randn(200, generator=generator, dtype=torch.float64)
        y = x + torch.randn(200, generator=generator, dtype=torch.float64)
        scores = []
        for _ in range(protocol.splits):
            order = torch.randperm(200, generator=generator)
            test, train = order[: protocol.held(200)], order[protocol.held(200) :]
            slope = (x[train] @ y[train]) / x[train].square().sum()
            scores.append((y[test] - slope * x[test]).square().mean().item())
        means.append(sum(scores) / len(scores))
        for overlap, found in errors.items():
            found.append(summary(scores, overlap)[1])
    varies = torch.tensor(means).std().item()
    plain, corrected = (sum(found) / len(found) for found in errors.values())
    assert corrected == pytest.approx(varies, rel=0.15)
    assert plain < 0.6 * varies


def test_the_record_follows_from_its_splits() -> None:
    record = recorded("regression")
    assert record["overlap"] == Protocol().overlap(442) == 44 / 398
    table = recipe.score_table(record["splits"], record["overlap"])
    for method, found in record["scores"].items():
        assert found == pytest.approx(table[method], abs=1e-9), method


def test_the_linear_model_of_the_record_is_computed_anew() -> None:
    """It is the one method that takes a second for all splits."""
    record = recorded("regression")
    settings = recipe.SETTINGS["laptop"]
    protocol = Protocol(splits=settings.splits, gains=settings.gains)
    found = benchmark(*recipe.diabetes(), ["linear"], protocol)["linear"]
    for name, values in record["splits"]["linear"].items():
        assert found[name] == pytest.approx(values, rel=1e-5), name


def test_one_split_is_refused_before_work() -> None:
    with pytest.raises(ValueError, match="splits=1 must be at least 2"):
        recipe.run(replace(recipe.SETTINGS["ci"], splits=1))


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (torch.zeros(20, 2), torch.zeros(20), {"methods": ["magic"]}, "There is no method 'magic'"),
        (
            torch.zeros(20),
            torch.zeros(20),
            {},
            r"x has shape \(20,\) and y \(20, 1\): give",
        ),
        (torch.zeros(20, 2), torch.zeros(19), {}, r"y \(19, 1\): give a table"),
        (torch.zeros(9, 2), torch.zeros(9), {}, "10% of 9 rows are 1: test, validation and"),
    ],
)
def test_bad_tables_are_named(x: Any, y: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        benchmark(x, y, **options)
