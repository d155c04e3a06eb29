"""The first workload of the paper: a Bayesian vision transformer on CIFAR-10.

Beside it the same network with plain weights, trained on the same batches, and once more for fewer
epochs, since a plain network that trains for too long becomes too sure. What all think of images of
something else shows who knows what it does not know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from spnb.maths import scores
from spnb.maths.augmentations import Chain, Crop, Flip
from spnb.maths.likelihoods import Categorical
from spnb.maths.models import BayesianModel
from spnb.maths.networks import ViT
from spnb.maths.objectives import ELBO
from spnb.maths.posteriors import MeanField
from spnb.maths.priors import fan_in
from spnb.parallel.layout import Layout
from spnb.run.predict import predict
from spnb.run.training import fit
from spnb.teach import datasets, figures
from spnb.teach.plain import predict_plain, train_plain

AUGMENT = Chain(Crop(4), Flip())


@dataclass(frozen=True)
class Settings:
    """All that a run depends on.

    Attributes:
        num_train: training images; None: all there are.
        patch: see `ViT`.
        dim: see `ViT`.
        depth: see `ViT`.
        heads: see `ViT`.
        hidden: see `ViT`.
        num_samples: S in training.
        test_samples: S in prediction.
        batch_size: B.
        epochs: passes over the training images.
        stopped: the same for the plain network that stops in time; 0: there is none.
        learning_rate: Adam's.
        warmup: share of the steps over which it rises.
        init_scale: initial standard deviation of the weights.
        temperature: T, the weight of the divergence from the prior, which tempers the likelihood
            (see `spnb.ELBO`).
        gain: width of the prior, in units of the usual initialisation.
        plain_decay: weight decay of the plain network, in place of a prior.
        seed: of everything.
    """

    num_train: int | None
    patch: int = 4
    dim: int = 96
    depth: int = 4
    heads: int = 3
    hidden: int = 384
    num_samples: int = 4
    test_samples: int = 32
    batch_size: int = 128
    epochs: int = 30
    stopped: int = 0
    learning_rate: float = 2e-3
    warmup: float = 0.1
    init_scale: float = 0.005
    temperature: float = 0.02
    gain: float = 3.0
    plain_decay: float = 0.05
    seed: int = 0


SETTINGS = {
    "ci": Settings(500, patch=8, dim=48, depth=2, hidden=96, test_samples=8, epochs=2),
    "laptop": Settings(
        10_000,
        dim=64,
        depth=3,
        heads=4,
        hidden=128,
        num_samples=2,
        epochs=80,
        stopped=50,
        temperature=0.05,
    ),
    # The paper's network, TinySimpleViT; what else is set here is this course's choice.
    "node": Settings(
        None, dim=192, depth=6, heads=3, hidden=768, num_samples=64, epochs=200, learning_rate=5e-4
    ),
}


def network(settings: Settings) -> ViT:
    """The vision transformer, always from the same initial weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return ViT(
            patch=settings.patch,
            dim=settings.dim,
            depth=settings.depth,
            heads=settings.heads,
            hidden=settings.hidden,
        )


def run(settings: Settings, layout: Layout | None = None) -> dict[str, Any]:
    """Train both networks and score them; called on every rank."""
    images = datasets.cifar10(num_train=settings.num_train)
    scaling = datasets.Scaling.of(images.train_x, over=(0, 2, 3))
    train = scaling.apply(images.train_x), images.train_y
    test_x, test_y = scaling.apply(images.test_x), images.test_y
    unknown, what = datasets.strangers()
    strange_x = scaling.apply(unknown[: len(test_x)])
    options: dict[str, Any] = {
        "batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "schedule": "cosine",
        "warmup_steps": settings.warmup,
        "augment": AUGMENT,
        "seed": settings.seed,
    }
    net = network(settings)
    model = BayesianModel(net, prior=fan_in(gain=settings.gain), likelihood="categorical")
    posterior = MeanField(model, init_scale=settings.init_scale)
    objective = ELBO(temperature=settings.temperature)
    fitted = fit(
        posterior, train, objective=objective, layout=layout, num_samples=settings.num_samples,
        epochs=settings.epochs, **options,
    )  # fmt: skip
    draws, strange = (
        predict(fitted.posterior, x, num_samples=settings.test_samples, layout=layout)
        for x in (test_x, strange_x)
    )
    found = {"Bayesian": _scores(draws, strange, test_y)}
    lengths = {"plain": settings.epochs}
    if settings.stopped:
        lengths[f"plain, {settings.stopped} epochs"] = settings.stopped
    for name, epochs in lengths.items():
        plain = train_plain(
            net, Categorical(), train, weight_decay=settings.plain_decay, epochs=epochs, **options
        )
        draws, strange = predict_plain(plain, test_x), predict_plain(plain, strange_x)
        found[name] = _scores(draws, strange, test_y)
    return {
        "scores": {who: each[0] for who, each in found.items()},
        "reliability": {who: each[1] for who, each in found.items()},
        "loss": [epoch.loss for epoch in fitted.history.epochs],
        "data": images.sentence,
        "strangers": what,
    }


def _scores(
    draws: Tensor | None, strange: Tensor | None, targets: Tensor
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Scores, and the points of the reliability diagram."""
    assert draws is not None and strange is not None
    draws, strange, likelihood = draws.cpu(), strange.cpu(), Categorical()
    found = scores.classification(draws, targets, likelihood)
    for name, unsure in (
        ("auroc_entropy", scores.predictive_entropy),
        ("auroc_mutual_information", scores.mutual_information),
    ):
        if len(draws) > 1 or unsure is scores.predictive_entropy:
            known, unknown = (unsure(d, likelihood) for d in (draws, strange))
            found[name] = scores.auroc(known, unknown)
    curve = scores.reliability(draws, targets, likelihood)
    return found, {name: getattr(curve, name).tolist() for name in ("confidence", "accuracy")}


def describe(result: dict[str, Any]) -> str:
    """The scores, one line a network."""
    lines = [f"{result['data']} Strangers: {result['strangers']}"]
    width = max(map(len, result["scores"]))
    for who, found in result["scores"].items():
        lines.append(
            f"{who:<{width}}  " + "  ".join(f"{name} {v:.3f}" for name, v in found.items())
        )
    return "\n".join(lines)


def draw(result: dict[str, Any]) -> Figure:
    """Loss, reliability diagram, and scores side by side."""
    figure, (left, middle, right) = figures.new(12.0, 3.6, columns=3)
    left.plot(range(1, len(result["loss"]) + 1), result["loss"], **figures.look(0))
    left.set(title="Training", xlabel="epoch", ylabel="loss (nats)")
    middle.plot([0, 1], [0, 1], color=figures.GREY, lw=1, label="calibrated")
    for index, (who, curve) in enumerate(result["reliability"].items()):
        middle.plot(curve["confidence"], curve["accuracy"], label=who, **figures.look(index))
    middle.set(title="Reliability", xlabel="confidence", ylabel="share that is right")
    middle.legend()
    names = ("accuracy", "nll", "brier", "ece", "auroc_entropy")
    share = 0.84 / len(result["scores"])
    for index, (who, found) in enumerate(result["scores"].items()):
        places = [n + share * (index - (len(result["scores"]) - 1) / 2) for n in range(len(names))]
        values = [found[name] for name in names]
        bars = right.bar(
            places, values, 0.95 * share, label=who, color=figures.COLOURS[index],
            hatch=("", "//", "..")[index], ec="white",
        )  # fmt: skip
        right.bar_label(bars, fmt="%.2f", fontsize=7)
    labels = ("accuracy ↑", "NLL ↓", "Brier ↓", "ECE ↓", "AUROC ↑")
    right.set_xticks(range(len(names)), labels)
    right.set(title="On test images, and strangers")
    right.grid(axis="x", visible=False)
    right.legend()
    return figure
