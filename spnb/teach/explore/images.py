"""The image explorer: make a photograph worse, and watch the class probabilities spread.

A few samples of the weights are drawn once. Each move of a slider evaluates them on one image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from ipywidgets import Dropdown, FloatSlider, IntSlider
from matplotlib.figure import Figure
from torch import Tensor

from spnb.teach import figures
from spnb.teach.corruptions import CORRUPTIONS, corrupt
from spnb.teach.explorable import Explorable


def image_explorer(
    images: Tensor,
    labels: Tensor,
    names: Sequence[str],
    predict: Callable[[Tensor], Tensor],
) -> Explorable:
    """The explorable: choose an image, a corruption and its strength.

    Args:
        images: photographs in [0, 1], ``[N, C, H, W]``.
        labels: their classes ``[N]``.
        names: of the classes.
        predict: images ``[M, C, H, W]`` in [0, 1] to class probabilities of each sample,
            ``[S, M, classes]``.

    Raises:
        ValueError: there are not as many labels as images, or a label without a name.
    """
    if len(images) != len(labels) or not len(images):
        raise ValueError(f"{len(images)} images and {len(labels)} labels: give one for each.")
    if int(labels.max()) >= len(names):
        raise ValueError(f"Label {int(labels.max())} has no name: there are {len(names)} names.")

    def draw(figure: Figure, image: int, corruption: str, strength: float) -> str:
        shown = corrupt(images[image : image + 1], corruption, strength)
        with torch.no_grad():
            probabilities = predict(shown)[:, 0].double()  # [S, classes]
        mean = probabilities.mean(0)
        left, right = figure.subplots(1, 2, width_ratios=(1, 2.1))
        figure.subplots_adjust(left=0.02, right=0.98, top=0.9, bottom=0.16, wspace=0.32)
        left.imshow(shown[0].movedim(0, -1).clamp(0, 1).numpy(), interpolation="nearest")
        left.set(xticks=[], yticks=[], title=f"{names[int(labels[image])]}")
        left.grid(visible=False)
        order = range(len(names))
        right.barh(order, mean.tolist(), color=figures.SKY, label="mean of the samples")
        right.plot(
            probabilities.T, [[place] * len(probabilities) for place in order], "|", ms=11,
            color=figures.BLACK, alpha=0.5, label=[f"{len(probabilities)} samples"] +
            [""] * (len(probabilities) - 1),
        )  # fmt: skip
        right.set_yticks(order, names)
        right.yaxis.set_inverted(True)
        right.set(xlim=(0, 1), xlabel="probability", title="What the samples say")
        handles, texts = right.get_legend_handles_labels()
        right.legend(handles[:2], texts[:2], loc="lower right")
        total, between = doubts(probabilities)
        best = int(mean.argmax())
        votes = int((probabilities.argmax(1) == best).sum())
        return (
            f"A photograph of class {names[int(labels[image])]}, {corruption} {strength:.2f}. The "
            f"model says {names[best]} with {mean[best]:.0%}; {votes} of {len(probabilities)} "
            f"samples have it first. Uncertainty {total:.2f} nats, of which {between:.2f} because "
            "the samples disagree."
        )

    style = {"description_width": "70px"}
    return Explorable(
        "images",
        draw,
        width=8.4,
        height=3.6,
        image=IntSlider(0, 0, len(images) - 1, description="image", style=style),
        corruption=Dropdown(options=list(CORRUPTIONS), description="corruption", style=style),
        strength=FloatSlider(0.0, min=0.0, max=1.0, step=0.05, description="strength", style=style),
    )


def doubts(probabilities: Tensor) -> tuple[float, float]:
    """Entropy of the mean prediction, and the mutual information in it, in nats.

    Args:
        probabilities: of one image, ``[S, classes]``.
    """
    total = torch.special.entr(probabilities.mean(0)).sum()
    within = torch.special.entr(probabilities).sum(-1).mean()
    return total.item(), max(0.0, (total - within).item())
