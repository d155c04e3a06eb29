"""Does a view of its own for each sample teach faster? The paper's claim, as an experiment.

Sampling parallelism gives every rank the same rows. The paper lets each rank augment them by
itself, so that the samples see different views of an image, and reports fewer epochs to a target
accuracy. (For plain networks: Hoffer et al., *Augment your batch*, arXiv 1901.09335.) Here both
ways are trained with the same budget: as many steps, samples and rows, from the same initial
weights, with the same noise; only `views` differs. Each seed is one pair of runs, so that the
difference of a pair is free of what the seed does to both.

The targets are parts of the best accuracy that the shared views reach on average. That rule was
fixed beforehand and does not look at the difference. But accuracy is that on test images after each
epoch, so where the targets lie is read from the same curves that are judged by them.

What is missing: a control with plain networks that see as many views of a row in a step, by a batch
that holds the row several times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from matplotlib.figure import Figure
from scipy.stats import t as student_t
from torch import Tensor

from spnb.maths.augmentations import Chain, Crop, Erase, Flip
from spnb.maths.models import BayesianModel
from spnb.maths.objectives import ELBO
from spnb.maths.posteriors import MeanField
from spnb.maths.priors import fan_in
from spnb.parallel.layout import Layout
from spnb.run.training import fit
from spnb.teach import datasets, figures
from spnb.teach.recipes import images

AUGMENT = Chain(Crop(4), Flip(), Erase(probability=0.5))
Views = Literal["shared", "per_sample"]
WAYS: tuple[Views, Views] = ("shared", "per_sample")
NAMES = {"shared": "one view for all samples", "per_sample": "a view for each sample"}
TARGETS = (0.8, 0.9, 0.95)
"""Parts of the best accuracy of the shared views."""
SCORED = ("accuracy", "nll", "ece")


@dataclass(frozen=True)
class Settings:
    """All that a run depends on.

    Attributes:
        network: the network and its training, as in the first recipe; its rate stays constant after
            the warm-up, so that an epoch does not depend on how many are to follow.
        held_out: images to score on after each epoch: the first ones of the test images.
        repeats: number of seeds, each a pair of runs.
        seed: the first of them.
    """

    network: images.Settings
    held_out: int
    repeats: int
    seed: int = 0


SMALL = images.Settings(
    5_000,
    patch=8,
    dim=64,
    depth=3,
    heads=4,
    hidden=128,
    num_samples=4,
    epochs=40,
    learning_rate=1e-3,
)
SETTINGS = {
    "ci": Settings(replace(SMALL, num_train=200, dim=32, depth=1, epochs=2), 100, repeats=2),
    "laptop": Settings(SMALL, 2_000, repeats=5),
    "node": Settings(replace(images.SETTINGS["node"], epochs=100), 10_000, repeats=5),
}


def run(
    settings: Settings, layout: Layout | None = None, data: datasets.Images | None = None
) -> dict[str, Any]:
    """Train all pairs; called on every rank.

    Args:
        settings: all that the runs depend on.
        layout: how the ranks share the work.
        data: other images of 32 by 32 pixels in ten classes, instead of CIFAR-10.
    """
    if data is None:
        data = datasets.cifar10(num_train=settings.network.num_train)
    scaling = datasets.Scaling.of(data.train_x, over=(0, 2, 3))
    train = scaling.apply(data.train_x), data.train_y
    held_out = scaling.apply(data.test_x[: settings.held_out]), data.test_y[: settings.held_out]
    curves: dict[str, dict[str, list[list[float]]]] = {
        way: {name: [] for name in SCORED} for way in WAYS
    }
    seconds = 0.0
    for seed in range(settings.seed, settings.seed + settings.repeats):
        for way in WAYS:
            found, took = learn(replace(settings.network, seed=seed), train, held_out, way, layout)
            seconds += took
            for name in SCORED:
                curves[way][name].append([scores[name] for scores in found])
    accuracy = {way: curves[way]["accuracy"] for way in WAYS}
    return {
        "scores": {
            NAMES[way]: {name: _mean([run[-1] for run in curves[way][name]]) for name in SCORED}
            for way in WAYS
        },
        "accuracy": accuracy,
        "targets": compare(accuracy["shared"], accuracy["per_sample"]),
        "seconds": seconds,
        "data": data.sentence,
    }


def learn(
    settings: images.Settings,
    train: tuple[Tensor, Tensor],
    held_out: tuple[Tensor, Tensor],
    views: Views,
    layout: Layout | None = None,
) -> tuple[list[dict[str, float]], float]:
    """One run: scores after each epoch, and the seconds of all its steps."""
    model = BayesianModel(
        images.network(settings), prior=fan_in(gain=settings.gain), likelihood="categorical"
    )
    history = fit(
        MeanField(model, init_scale=settings.init_scale),
        train,
        objective=ELBO(temperature=settings.temperature),
        layout=layout,
        num_samples=settings.num_samples,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup,
        seed=settings.seed,
        augment=AUGMENT,
        views=views,
        validation=held_out,
    ).history
    return [e.scores for e in history.epochs], sum(e.seconds for e in history.epochs)


def compare(shared: list[list[float]], own: list[list[float]]) -> list[dict[str, Any]]:
    """Epochs to each target in both ways, and their paired difference.

    Args:
        shared: accuracy after each epoch, one list a seed, with shared views.
        own: the same with a view for each sample.

    Returns:
        For each target: ``accuracy``; the epochs of each seed, None where it is not reached;
        ``difference``, the mean of shared less own over the seeds that reach it in both ways, and
        ``interval``, its 95 % confidence interval by Student's t (None for fewer than two).
    """
    best = max(_mean(values) for values in zip(*shared, strict=True))
    found = []
    for part in TARGETS:
        epochs = {
            way: [epochs_to(part * best, curve) for curve in curves]
            for way, curves in (("shared", shared), ("per_sample", own))
        }
        pairs = zip(epochs["shared"], epochs["per_sample"], strict=True)
        gains = [a - b for a, b in pairs if a is not None and b is not None]
        found.append(
            {"accuracy": part * best, **epochs, "pairs": len(gains), **interval(gains)}
        )  # fmt: skip
    return found


def epochs_to(target: float, accuracy: Sequence[float]) -> float | None:
    """Epochs until an accuracy is first reached, between two epochs by a straight line.

    Args:
        target: the accuracy.
        accuracy: after each epoch; before the first it counts as zero.
    """
    before = 0.0
    for epoch, value in enumerate(accuracy):
        if value >= target:
            return epoch + (target - before) / (value - before)
        before = value
    return None


def interval(values: Sequence[float], level: float = 0.95) -> dict[str, Any]:
    """Mean of some values, and its confidence interval by Student's t."""
    if len(values) < 2:
        return {"difference": values[0] if values else None, "interval": None}
    mean, n = _mean(values), len(values)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    half = float(student_t.ppf((1 + level) / 2, n - 1)) * deviation / math.sqrt(n)
    return {"difference": mean, "interval": [mean - half, mean + half]}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def describe(result: dict[str, Any]) -> str:
    """Epochs to each target, and what the last epoch has reached."""
    lines = [result["data"], f"{len(result['accuracy']['shared'])} seeds; epochs to an accuracy of"]
    for target in result["targets"]:
        means = [
            f"{NAMES[way]} {_mean(known):.1f}"
            for way in WAYS
            if (known := [e for e in target[way] if e is not None])
        ]
        lines.append(f"{target['accuracy']:6.1%}: {', '.join(means)}; {gain(target)}")
    for who, found in result["scores"].items():
        lines.append(
            f"{who:<26}" + "  ".join(f"{name} {value:.3f}" for name, value in found.items())
        )
    return "\n".join(lines)


def gain(target: dict[str, Any]) -> str:
    """The difference of one target in words."""
    if target["interval"] is None:
        return f"reached in both ways by {target['pairs']} seeds: too few to compare"
    low, high = target["interval"]
    return (
        f"a view for each sample saves {target['difference']:.2f} epochs "
        f"(95 % interval {low:.2f} to {high:.2f}, {target['pairs']} pairs)"
    )


def draw(result: dict[str, Any]) -> Figure:
    """Accuracy after each epoch of all runs, and the epochs saved at each target."""
    figure, (left, right) = figures.new(10.5, 4.0, columns=2)
    for index, way in enumerate(WAYS):
        runs = result["accuracy"][way]
        epochs = range(1, len(runs[0]) + 1)
        look = figures.look(index, marker=False)
        for values in runs:
            left.plot(epochs, values, color=look["color"], alpha=0.25, lw=0.8)
        mean = [_mean(values) for values in zip(*runs, strict=True)]
        left.plot(epochs, mean, **look | {"lw": 2}, label=f"{NAMES[way]}, mean")
    for target in result["targets"]:
        left.axhline(target["accuracy"], color=figures.GREY, lw=0.8, ls=":")
    left.set(xlabel="epoch", ylabel="accuracy on held-out images", title="All runs")
    left.legend(loc="lower right")
    right.axhline(0, color=figures.GREY, lw=1)
    labels = [f"{target['accuracy']:.1%}" for target in result["targets"]]
    for place, target in enumerate(result["targets"]):
        gains = [
            a - b
            for a, b in zip(target["shared"], target["per_sample"], strict=True)
            if a is not None and b is not None
        ]
        right.plot([place - 0.15] * len(gains), gains, "o", color=figures.GREY, ms=4, alpha=0.7)
        if target["interval"] is not None:
            low, high = target["interval"]
            middle = target["difference"]
            right.errorbar(
                place, middle, [[middle - low], [high - middle]], fmt="D", color=figures.BLUE,
                capsize=5,
            )  # fmt: skip
    right.set_xticks(range(len(labels)), labels)
    right.set(
        xlim=(-0.6, len(labels) - 0.4), xlabel="target accuracy", ylabel="epochs saved",
        title="By a view for each sample",
    )  # fmt: skip
    right.text(
        0.02, 0.98, "grey: pairs of runs; blue: mean, 95 % interval", transform=right.transAxes,
        va="top", fontsize=9, bbox={"facecolor": "white", "lw": 0, "alpha": 0.8},
    )  # fmt: skip
    return figure
