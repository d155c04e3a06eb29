"""The standard regression benchmark on the diabetes data: all methods, their splits in parallel.

442 patients, ten measurements each, and how far the disease went within a year (Efron et al. 2004;
inside scikit-learn). Beside the networks stands a linear model with its exact posterior. Any other
table is one call, `spnb.teach.regression.benchmark(x, y)`. Standard errors are the corrected ones
for splits that overlap (`spnb.teach.regression.summary`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from spnb.parallel.layout import Layout
from spnb.teach import figures
from spnb.teach.regression import METHODS, Protocol, benchmark, summary

PLAIN = "point"
"""What the others are held against, split by split."""


@dataclass(frozen=True)
class Settings(Protocol):
    """The protocol, and the methods.

    Attributes:
        methods: which of `spnb.teach.regression.METHODS`.
    """

    methods: tuple[str, ...] = tuple(METHODS)


SETTINGS = {
    "ci": Settings(
        splits=2, epochs=20, gains=(1.0,), methods=("linear", PLAIN, "mean field", "SG-MCMC")
    ),
    "laptop": Settings(),
    "node": Settings(splits=100, gains=(0.1, 0.3, 1.0, 3.0)),
}


def diabetes() -> tuple[Tensor, Tensor]:
    """Measurements ``[442, 10]`` and progression ``[442]``, in their own units."""
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True, scaled=False)
    return torch.as_tensor(x), torch.as_tensor(y)


def run(settings: Settings, layout: Layout | None = None) -> dict[str, Any]:
    """Judge all methods on all splits; called on every rank.

    Raises:
        ValueError: there are too few splits for a standard error.
    """
    if settings.splits < 2:
        raise ValueError(f"splits={settings.splits} must be at least 2, for a standard error.")
    fields = {name: value for name, value in asdict(settings).items() if name != "methods"}
    x, y = diabetes()
    protocol = Protocol(**fields)
    by_split = benchmark(x, y, settings.methods, protocol, layout)
    overlap = protocol.overlap(len(x))
    return {
        "data": "diabetes, 442 patients",
        "splits": by_split,
        "overlap": overlap,
        "scores": score_table(by_split, overlap),
    }


def score_table(
    by_split: dict[str, dict[str, list[float]]], overlap: float
) -> dict[str, dict[str, float]]:
    """Means and standard errors of each method, and of what it gains over the plain network.

    Args:
        by_split: what `benchmark` found.
        overlap: test rows over training rows.

    Returns:
        By method ``rmse``, ``log_likelihood`` and ``gained``, the log-likelihood less that of the
        plain network on the same split; beside each its standard error, as in ``rmse_error``.
    """
    plain = by_split[PLAIN]["log_likelihood"]
    table = {}
    for method, found in by_split.items():
        values = {
            "rmse": found["rmse"],
            "log_likelihood": found["log_likelihood"],
            "gained": [a - b for a, b in zip(found["log_likelihood"], plain, strict=True)],
        }
        table[method] = {
            key: value
            for name, over_splits in values.items()
            for key, value in zip(
                (name, f"{name}_error"), summary(over_splits, overlap), strict=True
            )
        }
    return table


def describe(result: dict[str, Any]) -> str:
    """Mean and corrected standard error over the splits, one line a method."""
    width = max(map(len, result["scores"]))
    count = len(result["splits"][PLAIN]["rmse"])
    lines = [
        f"{result['data']}, {count} splits; mean ± corrected standard error",
        f"{'':<{width}}  {'RMSE':>14}  log-likelihood (nats)  more than {PLAIN}, by split",
    ]
    for method, found in result["scores"].items():
        pairs = [
            f"{found[name]:.{digits}f} ± {found[f'{name}_error']:.{digits}f}"
            for name, digits in (("rmse", 2), ("log_likelihood", 3), ("gained", 3))
        ]
        lines.append(f"{method:<{width}}  {pairs[0]:>14}  {pairs[1]:>21}  {pairs[2]:>26}")
    return "\n".join(lines)


def draw(result: dict[str, Any]) -> Figure:
    """The error of each method, and the log-likelihood it has more than the plain network."""
    figure, (left, right) = figures.new(11.0, 4.2, 1, 2, sharey=True)
    scores = dict(reversed(result["scores"].items()))
    _dots(left, scores, "rmse")
    left.set(xlabel="test RMSE (units of the target), smaller is better", title="Error")
    _dots(right, scores, "gained")
    right.axvline(0, color=figures.GREY, lw=1)
    right.set(xlabel=f"nats a row more than '{PLAIN}', larger is better")
    right.set_title("Test log-likelihood, compared on each split")
    count = len(result["splits"][PLAIN]["rmse"])
    figure.suptitle(f"{result['data']}: mean ± corrected standard error over {count} random splits")
    return figure


def _dots(axes: Axes, scores: dict[str, dict[str, float]], name: str) -> None:
    means = [found[name] for found in scores.values()]
    errors = [found[f"{name}_error"] for found in scores.values()]
    axes.errorbar(means, list(scores), xerr=errors, fmt="o", color=figures.BLUE, capsize=3)
    axes.grid(axis="y", visible=False)
