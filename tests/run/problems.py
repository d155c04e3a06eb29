"""Small problems on which layouts are compared: nets, data, and every objective."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import spnb


class Attention(nn.Module):
    """Self-attention over four tokens of six features, mean pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 8)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x.view(len(x), 4, 3))
        mixed, _ = self.attend(tokens, tokens, tokens, need_weights=False)
        return self.head(self.norm(tokens + mixed).mean(1))


def mlp() -> nn.Module:
    """12 inputs, one hidden layer, 3 outputs."""
    return nn.Sequential(nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 3))


def confident(predictions: Tensor, targets: Tensor) -> Tensor:
    """A user's objective: one loss an item, not linear in the samples."""
    return predictions.softmax(-1).mean(0).square().sum(-1).neg()


def worst_case(predictions: Tensor, targets: Tensor) -> Tensor:
    """A user's objective that is one scalar, and no mean over the items."""
    return predictions.mean(0).square().mean(-1).logsumexp(0)


OBJECTIVES: dict[str, Callable[[], spnb.Objective]] = {
    "ELBO": lambda: spnb.ELBO(temperature=0.7),
    "PredictiveNLL": spnb.PredictiveNLL,
    "AlphaDivergence": lambda: spnb.AlphaDivergence(0.5),
    "EnergyScore": spnb.EnergyScore,
    "EnergyScore of reals": spnb.EnergyScore,
    "EnsembleEnergyScore": spnb.EnsembleEnergyScore,
    "GaussianMoments": spnb.GaussianMoments,
    "per item": lambda: spnb.Objective(confident),
    "scalar": lambda: spnb.Objective(worst_case),
}

OF_REALS = ("GaussianMoments", "EnergyScore of reals")
"""The objectives that are tried on real targets; the others are on classes."""

Problem = tuple[spnb.MeanField, tuple[Tensor, Tensor]]


def problem(
    rows: int = 24,
    dtype: torch.dtype = torch.float64,
    net: Callable[[], nn.Module] = mlp,
    likelihood: str = "categorical",
    prior: spnb.priors.Prior | None = None,
) -> Problem:
    """A posterior and data of some size, always the same ones."""
    torch.manual_seed(0)
    model = spnb.BayesianModel(net().to(dtype), prior=prior, likelihood=likelihood)
    x = torch.randn(rows, 12, dtype=torch.float64).to(dtype)
    if likelihood == "categorical":
        y = torch.randint(0, 3, (rows,))
    else:
        y = torch.randn(rows, 3, dtype=torch.float64).to(dtype)
    return spnb.MeanField(model, init_scale=0.3), (x, y)


def relative(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Largest relative difference of gradients, over the posterior's parameters."""
    assert found.keys() == expected.keys()
    return max(
        ((found[name] - expected[name]).norm() / expected[name].norm()).item() for name in found
    )
