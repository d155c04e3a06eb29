"""The sample budget: what a prediction gains as S grows, and how uncertain it still is.

Nothing is drawn when a slider moves. All draws were made once; S of them are a *group*, and the
stored draws form many disjoint groups of S. Each group is the model average that somebody with a
budget of S would have had, so the spread of a score over the groups is its Monte Carlo error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from ipywidgets import SelectionSlider
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from torch import Tensor

from spnb.maths.scores import CALIBRATION_BINS
from spnb.teach import figures
from spnb.teach.controls import buttons
from spnb.teach.explorable import Explorable

MIN_GROUPS = 4  #: a spread over fewer groups would say little
TINY = 1e-30


def group_means(probabilities: Tensor, size: int) -> Tensor:
    """Model averages of disjoint groups of neighbouring draws.

    Args:
        probabilities: of the stored draws, ``[K, N, C]``.
        size: S, draws in a group; draws that fill no group are left out.

    Returns:
        ``[K // S, N, C]``.
    """
    whole = probabilities[: len(probabilities) // size * size]
    return whole.unflatten(0, (-1, size)).mean(1)


def nll(means: Tensor, targets: Tensor) -> Tensor:
    """Mean negative log-likelihood of the classes ``[N]`` under each group, ``[G]`` in nats."""
    chosen = means.gather(-1, targets.expand(len(means), -1).unsqueeze(-1)).squeeze(-1)
    return -chosen.clamp_min(TINY).log().mean(-1)


def calibration_error(means: Tensor, targets: Tensor, bins: int = CALIBRATION_BINS) -> Tensor:
    """Expected calibration error of each group, ``[G]`` (arXiv 1706.04599, eq. 3).

    Args:
        means: class probabilities of each group, ``[G, N, C]``.
        targets: classes ``[N]``.
        bins: number of equally wide bins of the confidence.
    """
    confidence, answer = means.max(-1)
    surplus = (answer == targets).to(means.dtype) - confidence
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1
    sums = means.new_zeros(len(means), bins).scatter_add_(1, place, surplus)
    return sums.abs().sum(1) / len(targets)


def entropy(means: Tensor) -> Tensor:
    """Entropy of each image's prediction in nats, ``[G, N]``."""
    return torch.special.entr(means).sum(-1)


def auroc(inside: Tensor, outside: Tensor) -> Tensor:
    """How often an image from outside has the larger value of the two, ``[G]``; a tie is a half.

    Args:
        inside: a value for each image from inside, ``[G, N]``.
        outside: likewise from outside, ``[G, M]``.
    """
    inside = inside.sort(1).values
    below, up_to = (
        torch.searchsorted(inside, outside.contiguous(), right=r) for r in (False, True)
    )
    return (below + up_to).double().mean(1) / (2 * inside.shape[1])


@dataclass(frozen=True)
class Curve:
    """A score at each number of samples, in each group.

    Attributes:
        name: what is scored.
        groups: scores ``[G]`` by S.
        whole: the score of all stored draws together.
    """

    name: str
    groups: dict[int, Tensor]
    whole: float

    @cached_property
    def means(self) -> Tensor:
        """Mean over the groups, for each S, ``[number of S]``."""
        return torch.stack([values.mean() for values in self.groups.values()])

    @cached_property
    def errors(self) -> Tensor:
        """Monte Carlo error for each S, likewise: standard deviation over the groups."""
        return torch.stack([values.std() for values in self.groups.values()])


#: what can be shown, and the label of its axis
SCORES = {
    "NLL": "NLL in nats",
    "calibration error": "expected calibration error",
    "entropy": "mean entropy in nats",
    "AUROC": "AUROC of the entropy",
}


def curves(
    probabilities: Tensor, targets: Tensor, outside: Mapping[str, Tensor], sizes: Sequence[int]
) -> dict[tuple[str, str], list[Curve]]:
    """Every curve that the explorable can show, by score and out-of-distribution set.

    Args:
        probabilities: as for `sample_budget`.
        targets: likewise.
        outside: likewise.
        sizes: every S to look at.
    """
    draws = len(probabilities)

    def averages(of: Tensor) -> dict[int, Tensor]:
        return {size: group_means(of, size) for size in (*sizes, draws)}

    def curve(scores: dict[int, Tensor], name: str = "test images") -> Curve:
        return Curve(name, {size: scores[size] for size in sizes}, scores[draws].item())

    means = averages(probabilities)
    doubt = {size: entropy(each) for size, each in means.items()}
    likelihood = curve({size: nll(each, targets) for size, each in means.items()})
    calibration = curve({s: calibration_error(each, targets) for s, each in means.items()})
    inner = curve({size: each.mean(1) for size, each in doubt.items()})
    found: dict[tuple[str, str], list[Curve]] = {}
    for name, of in outside.items():
        strange = {size: entropy(each) for size, each in averages(of).items()}
        outer = curve({size: each.mean(1) for size, each in strange.items()}, name)
        ranks = {size: auroc(doubt[size], each) for size, each in strange.items()}
        told_apart = curve(ranks, f"{name}, against test images")
        shown = ([likelihood], [calibration], [inner, outer], [told_apart])
        found |= {(score, name): each for score, each in zip(SCORES, shown, strict=True)}
    return found


def sample_budget(
    probabilities: Tensor, targets: Tensor, outside: Mapping[str, Tensor], samples: int = 8
) -> Explorable:
    """The explorable: choose a score and a budget S; see the score and its Monte Carlo error.

    Args:
        probabilities: class probabilities of K stored draws on test images, ``[K, N, C]``.
        targets: classes of the test images, ``[N]``.
        outside: class probabilities of the same draws on sets of out-of-distribution images,
            ``{name: [K, M, C]}``.
        samples: S at the beginning, a power of two up to K / 4.

    Raises:
        ValueError: shapes do not fit, or there are too few draws.
    """
    draws = len(probabilities)
    if draws < 2 * MIN_GROUPS:
        raise ValueError(f"{draws} stored draws are too few: give at least {2 * MIN_GROUPS}.")
    if probabilities.shape[1:2] != targets.shape or any(len(p) != draws for p in outside.values()):
        raise ValueError(
            f"probabilities {tuple(probabilities.shape)} [K, N, C], targets {tuple(targets.shape)} "
            f"[N] and outside {[tuple(p.shape) for p in outside.values()]} [K, M, C] do not fit."
        )
    sizes = [2**i for i in range(draws.bit_length()) if 2**i * MIN_GROUPS <= draws]
    table = curves(probabilities, targets, outside, sizes)

    def draw(figure: Figure, score: str, outside: str, samples: int) -> str:
        shown = table[score, outside]
        left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
        figure.subplots_adjust(left=0.09, right=0.985, wspace=0.3, top=0.89, bottom=0.15)
        for index, each in enumerate(shown):
            _draw_score(left, each, samples, figures.look(index))
            _draw_error(right, each, samples, figures.look(index))
        left.plot([], [], **LINE_OF_ALL, color=figures.GREY, label=f"all {draws} draws")
        left.plot([], [], **ONE_GROUP, label="one group of S")
        left.set(ylabel=SCORES[score], title=f"{score}, S = {samples}")
        left.locator_params("y", nbins=6)
        left.legend()
        right.set(ylabel="its Monte Carlo error", title="How uncertain it is", yscale="log")
        right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        right.yaxis.set_major_formatter("{x:.2g}")
        right.minorticks_off()
        right.text(0.98, 0.95, "dashed: 1/√S", ha="right", va="top", transform=right.transAxes)
        for axes in (left, right):
            axes.set(xlabel="samples S", xticks=range(len(sizes)), xticklabels=sizes)
        return describe(score, shown, samples, draws)

    style = {"description_width": "120px"}
    return Explorable(
        "budget",
        draw,
        width=8.4,
        height=3.7,
        score=buttons(list(SCORES), description="score", width="150px"),
        outside=buttons(
            list(outside), description="out of distribution", width="150px", described="120px"
        ),
        samples=SelectionSlider(options=sizes, value=samples, description="samples S", style=style),
    )


def describe(score: str, shown: Sequence[Curve], samples: int, draws: int) -> str:
    """What there is to read off: the score, its error, and the score of all draws."""
    told = "; ".join(
        f"{each.name} {each.groups[samples].mean():.3f} ± {each.groups[samples].std():.3f} "
        f"(all {draws} draws: {each.whole:.3f})"
        for each in shown
    )
    unit = "1 sample" if samples == 1 else f"{samples} samples"
    text = (
        f"{SCORES[score]} with {unit}, ± its Monte Carlo error, the spread over "
        f"{len(shown[0].groups[samples])} groups: {told}."
    )
    alone = score in ("NLL", "calibration error")
    return text + (" (Other images play no part here.)" if alone else "")


LINE_OF_ALL: dict[str, Any] = {"lw": 1, "linestyle": ":"}
ONE_GROUP: dict[str, Any] = {"linestyle": "none", "marker": "_", "ms": 11, "color": figures.BLACK}


def _draw_score(axes: Axes, each: Curve, samples: int, look: dict[str, Any]) -> None:
    """The score against log2 S with a band of one Monte Carlo error; up to 64 groups at one S."""
    place, middle, error = range(len(each.groups)), each.means, each.errors
    axes.fill_between(place, middle - error, middle + error, color=look["color"], alpha=0.2, lw=0)
    axes.plot(place, middle, **look, label=each.name)
    axes.axhline(each.whole, color=look["color"], **LINE_OF_ALL)
    values, chosen = each.groups[samples][:64], list(each.groups).index(samples)
    axes.plot([chosen] * len(values), values, **ONE_GROUP, alpha=0.35)


def _draw_error(axes: Axes, each: Curve, samples: int, look: dict[str, Any]) -> None:
    """The Monte Carlo error against log2 S, and the slope of 1/√S through its middle."""
    sizes, errors = torch.tensor(list(each.groups)), each.errors.clamp_min(TINY)
    place, chosen = range(len(sizes)), list(each.groups).index(samples)
    axes.plot(place, errors, **look | {"linestyle": "none"})
    through = (errors * sizes.sqrt()).log().mean().exp()
    axes.plot(place, through / sizes.sqrt(), color=look["color"], lw=1, linestyle="--")
    axes.plot(chosen, errors[chosen], marker="o", ms=13, mfc="none", mec=figures.BLACK, mew=1.5)
