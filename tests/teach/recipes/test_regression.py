"""The regression benchmark: its protocol against scikit-learn, ranks agree, tables are checked."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

import spnb
from spnb.teach import figures
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
    assert "2 splits; mean ± standard error" in words
    for name, found in result["scores"].items():
        assert name in words and f"{found['rmse']:.2f}" in words
    assert figures.is_drawing(recipe.draw(result))


def test_mean_and_standard_error() -> None:
    assert summary([1.0, 3.0]) == pytest.approx((2.0, 1.0))
    assert summary([4.0]) == (4.0, 0.0)


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
