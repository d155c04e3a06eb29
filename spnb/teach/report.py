"""A report on a trained posterior: its training, its calibration, and what its doubt is worth."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from spnb.maths import scores
from spnb.maths.likelihoods import Categorical, Likelihood
from spnb.maths.posteriors import Posterior
from spnb.maths.scores.targets import blanked
from spnb.run import inputs
from spnb.run.chains import Chains
from spnb.run.history import History
from spnb.run.predict import predict
from spnb.run.training import Fitted
from spnb.teach import figures

LEVELS = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)


def report(
    trained: Fitted | Chains | Posterior,
    data: tuple[Any, Any],
    *,
    num_samples: int | None = None,
    seed: int = 0,
) -> tuple[Figure, str]:
    """One figure for a trained posterior on data that it has not seen, and its words.

    The two parts of the loss in training, if there was any. Calibration: for classes how often it
    is right by how sure it is; for real targets how many lie in central intervals. And whether it
    pays to listen to its doubt: the error on the rows of which it is most sure.

    Args:
        trained: what `spnb.fit` or `spnb.nuts` returned, or a posterior from a file.
        data: held-out inputs ``[N, ...]`` and targets ``[N, ...]``.
        num_samples: S; None: 64, or all that the posterior has.
        seed: of the draws.

    Returns:
        The figure, and in words what it shows, with the scores: its alt text.

    Raises:
        ValueError: the data do not fit, or the noise of real targets is not normal.
    """
    posterior = inputs.posterior_of(trained)
    x, y = inputs.data_set(posterior, data)
    _, y = inputs.probe(posterior, x, y)
    likelihood = posterior.model.likelihood
    drawn = predict(posterior, x, num_samples=num_samples, seed=seed)
    assert drawn is not None
    y = y.to(drawn.device)
    with torch.no_grad():
        classes = isinstance(likelihood, Categorical)
        if not classes and scores.forecasts.normal_parts(drawn, likelihood) is None:
            raise ValueError("A report on real targets needs a likelihood with normal noise.")
        history = trained.history if isinstance(trained, Fitted) else None
        figure, axes = figures.new(12.0 if history else 8.2, 3.7, columns=3 if history else 2)
        if history:
            _training(axes[0], history)
        calibrated = draw_reliability if classes else _intervals
        calibration = calibrated(axes[-2], drawn, y, likelihood)
        use = (_referred if classes else _most_sure)(axes[-1], drawn, y, likelihood)
        found = scores.evaluate(drawn, y, likelihood, posterior.antithetic)
    told = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
    about = f"{type(posterior).__name__}, S = {len(drawn)}, {len(y)} rows held out"
    figures.footnote(figure, f"{about}, seed {seed}")
    return figure, f"Report. {about}: {told}. {calibration} {use}"


def _training(axes: Axes, history: History) -> None:
    """Loss and data term by epoch; what lies between them is the prior's part."""
    each = len(history.steps) // len(history.epochs)
    parts = {
        "loss": [step.loss for step in history.steps],
        "data term": [step.data_term for step in history.steps],
    }
    for index, (name, values) in enumerate(parts.items()):
        means = torch.tensor(values[: each * len(history.epochs)]).view(-1, each).mean(1)
        axes.plot(range(1, len(means) + 1), means, label=name, **figures.look(index, marker=False))
    axes.set(title="Training", xlabel="epoch", ylabel="nats a row")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()


def draw_reliability(axes: Axes, draws: Tensor, y: Tensor, likelihood: Likelihood) -> str:
    """Draw how often classes are right, by how sure the model is of them, and how many are.

    Args:
        axes: where to draw.
        draws: logits ``[S, N, C]``.
        y: classes ``[N]``.
        likelihood: the categorical likelihood.

    Returns:
        By how much it is too sure, or too modest, in words.
    """
    curve = scores.reliability(draws, y, likelihood)
    confidence, accuracy = curve.confidence.cpu(), curve.accuracy.cpu()
    count = curve.count.cpu()
    share = count / count.sum()
    axes.plot([0, 1], [0, 1], color=figures.GREY, lw=1.2, ls="--", label="calibrated")
    axes.bar(
        confidence.tolist(), share.tolist(), 0.04, color=figures.SKY, label="share of the rows"
    )
    axes.plot(confidence, accuracy, label="share that is right", **figures.look(0) | {"lw": 1})
    axes.set(title="Calibration", xlabel="confidence", ylabel="share", xlim=(0, 1.03))
    axes.legend(loc="upper left")
    sure = float((confidence * share).sum() - (accuracy * share).sum())
    return f"It is {abs(sure):.1%} too {'sure' if sure > 0 else 'modest'} on average."


def _intervals(axes: Axes, draws: Tensor, y: Tensor, likelihood: Likelihood) -> str:
    place = scores.pit(draws, y, likelihood).flatten().cpu()
    place = place[~place.isnan()]  # of missing targets
    inside = torch.stack([((place - 0.5).abs() <= level / 2).double().mean() for level in LEVELS])
    axes.plot([0, 1], [0, 1], color=figures.GREY, lw=1.2, ls="--", label="calibrated")
    axes.plot(LEVELS, inside, label="found", **figures.look(0))
    axes.set(title="Calibration", xlabel="central interval", ylabel="share of targets inside")
    axes.legend(loc="upper left")
    return f"The interval of 90 % holds {inside[-2]:.1%} of the targets."


def _referred(axes: Axes, draws: Tensor, y: Tensor, likelihood: Likelihood) -> str:
    doubt = scores.predictive_entropy(draws, likelihood)
    wrong = (likelihood.mean(draws).mean(0).argmax(-1) != y).double()
    kept, error = _by_doubt(doubt, blanked(wrong, likelihood.observed(y)))
    axes.plot(kept, error, label="error", **figures.look(0, marker=False))
    axes.set(title="Is its doubt worth hearing?", xlabel="share kept, the surest first")
    axes.set(ylabel="share of them that is wrong", ylim=(0, None), xlim=(0, 1))
    half = error[len(error) // 2 - 1]
    return f"{error[-1]:.1%} of all rows are wrong, and {half:.1%} of the surer half."


def _most_sure(axes: Axes, draws: Tensor, y: Tensor, likelihood: Likelihood) -> str:
    parts = scores.forecasts.normal_parts(draws, likelihood)
    assert parts is not None
    means, scales = (part.reshape(len(draws), len(y), -1) for part in parts)
    spread = (means.var(0, correction=0) + scales.square().mean(0)).mean(-1)
    y = blanked(y, likelihood.observed(y)).reshape(len(y), -1)
    misses = (means.mean(0) - y).square().nanmean(-1)
    kept, error = _by_doubt(spread, misses)
    axes.plot(kept, error.sqrt(), label="error", **figures.look(0, marker=False))
    axes.set(title="Is its doubt worth hearing?", xlabel="share kept, the surest first")
    axes.set(ylabel="RMSE of them", ylim=(0, None), xlim=(0, 1))
    half = error.sqrt()[len(error) // 2 - 1]
    return f"The RMSE of all rows is {error[-1] ** 0.5:.4g}, that of the surer half {half:.4g}."


def _by_doubt(doubt: Tensor, loss: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of the rows, surest first, and the mean loss of each share.

    Losses are nan where the target is missing, and then they do not count.
    """
    doubt, loss = doubt[~loss.isnan()], loss[~loss.isnan()]
    ordered = loss[doubt.argsort(stable=True)].cpu()
    count = torch.arange(1, len(ordered) + 1)
    return count / len(ordered), ordered.cumsum(0) / count
