"""Scores are those of all samples on whatever ranks: the same by samples, by rows, and alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

import spnb

SAMPLES = 7


@pytest.fixture(scope="module")
def pool() -> Iterator[spnb.WorkerPool]:
    with spnb.WorkerPool(2) as pool:
        yield pool


@pytest.mark.parametrize("likelihood", ["categorical", "heteroscedastic"])
def test_scores_are_the_same_on_two_ranks(pool: spnb.WorkerPool, likelihood: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    posterior = spnb.MeanField(spnb.BayesianModel(net, likelihood=likelihood), init_scale=0.5)
    x = torch.randn(31, 5, dtype=torch.float64)
    real = likelihood == "heteroscedastic"
    y = torch.randn(31, 2, dtype=torch.float64) if real else torch.randint(4, (31,))
    alone = spnb.score(posterior, (x, y), num_samples=SAMPLES)
    assert set(alone) == (
        {"rmse", "nll", "energy_score", "ensemble_energy_score", "crps", "coverage_90"}
        if real
        else {"accuracy", "nll", "brier", "ece"}
    )
    for layout in (spnb.Layout(sample=2), spnb.Layout(sample=1, data=2)):
        for found in pool.run(spnb.score, posterior, (x, y), num_samples=SAMPLES, layout=layout):
            assert found == pytest.approx(alone, rel=0, abs=1e-9)
