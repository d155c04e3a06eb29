"""The digit explorer: what a trained Bayesian net is sure of, and what it is not.

Handwritten digits, turned by an angle, and what each stored draw of the weights makes of them.
Nothing is computed when a slider moves: all draws were made once, and are only looked up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from ipywidgets import IntSlider, SelectionSlider
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from spnb.teach import figures
from spnb.teach.explorable import Explorable


def rotate(images: Tensor, degrees: float) -> Tensor:
    """Turn images anticlockwise about their centre, with bilinear interpolation.

    Args:
        images: ``[N, H, W]``.
        degrees: the angle.

    Returns:
        ``[N, H, W]``; what comes in from outside is 0.
    """
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # grid_sample asks where each new pixel comes from, and its second axis points down.
    turn = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0]]).to(images)
    batch = images.unsqueeze(1)
    grid = affine_grid(turn.expand(len(images), 2, 3), list(batch.shape), align_corners=False)
    return grid_sample(batch, grid, align_corners=False).squeeze(1)


def entropies(probabilities: Tensor) -> tuple[float, float]:
    """Entropy of the mean over the draws, and the part of it that is spread between draws.

    Args:
        probabilities: ``[S, C]``.

    Returns:
        Total and epistemic entropy, in nats; their difference is the aleatoric part.
    """

    def entropy(p: Tensor) -> Tensor:
        return torch.special.entr(p).sum(-1)

    total = entropy(probabilities.mean(0))
    return total.item(), max(0.0, (total - entropy(probabilities).mean()).item())


def digit_explorer(
    images: Tensor, labels: Tensor, angles: Sequence[float], probabilities: Tensor
) -> Explorable:
    """The explorable: choose a digit, turn it, see every draw's opinion.

    Args:
        images: the turned images ``[A, N, H, W]``.
        labels: true classes ``[N]``.
        angles: the angles in degrees, ``A`` of them.
        probabilities: class probabilities of the stored draws, ``[S, A, N, C]``.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    if probabilities.shape[1:3] != images.shape[:2] or len(angles) != len(images):
        raise ValueError(
            f"images {tuple(images.shape)} [A, N, H, W], {len(angles)} angles and probabilities "
            f"{tuple(probabilities.shape)} [S, A, N, C] do not fit each other."
        )
    degrees = [round(angle) for angle in angles]

    def draw(figure: Figure, digit: int, angle: int) -> str:
        turned = degrees.index(angle)
        draws, truth = probabilities[:, turned, digit], int(labels[digit])
        mean = draws.mean(0)
        best = int(mean.argmax())
        left, right = figure.subplots(1, 2, width_ratios=(1, 2.4))
        figure.subplots_adjust(left=0.03, wspace=0.28)
        left.imshow(images[turned, digit].numpy(), cmap="gray_r", vmin=0, vmax=1)
        left.set(xticks=[], yticks=[])
        left.grid(False)
        left.spines[:].set_visible(False)
        left.set_title(f"a {truth}, turned by {angle}°")
        _draw_opinions(right, draws, truth)
        total, epistemic = entropies(draws)
        low, high = draws[:, best].min().item(), draws[:, best].max().item()
        verdict = "right" if best == truth else "wrong"
        return (
            f"This {truth}, turned by {angle}°, is taken for a {best} ({verdict}) with mean "
            f"probability {mean[best]:.2f}. Single draws say anything from {low:.2f} to "
            f"{high:.2f}. Entropy {total:.2f} nats, of which {epistemic:.2f} are disagreement "
            "between the draws (epistemic)."
        )

    return Explorable(
        "digits",
        draw,
        height=3.5,
        digit=IntSlider(0, min=0, max=images.shape[1] - 1, description="digit no."),
        angle=SelectionSlider(options=degrees, value=degrees[0], description="angle in °"),
    )


def _draw_opinions(axes: Axes, draws: Tensor, truth: int) -> None:
    """Bars of the mean, a dot for each draw, a frame around the true class."""
    num_draws, classes = draws.shape
    places = torch.arange(classes).numpy()
    mean = draws.mean(0).numpy()
    bars = axes.bar(places, mean, color=figures.SKY, width=0.8, label="mean")
    bars[truth].set(edgecolor="black", linewidth=2, hatch="//")
    shift = torch.linspace(-0.28, 0.28, num_draws) if num_draws > 1 else torch.zeros(1)
    axes.plot(
        (places + shift.unsqueeze(1).numpy()).ravel(),
        draws.numpy().ravel(),
        linestyle="none",
        marker="o",
        markersize=2.5,
        color=figures.VERMILLION,
        alpha=0.7,
        label="one draw of the weights",
    )
    axes.bar([0], [0], facecolor="white", edgecolor="black", hatch="//", label="true class")
    axes.set(xticks=places, ylim=(0, 1.22), xlabel="class", ylabel="probability")
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.legend(loc="upper right", ncols=3, columnspacing=1.0, handletextpad=0.4)
    axes.set_title(f"What {num_draws} draws say")
    axes.grid(axis="x", visible=False)
