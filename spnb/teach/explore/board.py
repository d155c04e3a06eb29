"""The method comparison board: one problem, many methods, judged by one score after another.

It knows nothing of how a method came to its predictions. A method is its draws, `[S, ...]`, and
what they cost; a score is a function of the draws. So another method is another line:

    methods["ensemble"] = Judged(draws, {"training (s)": 12.0})
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ipywidgets import SelectionSlider
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from spnb.teach import figures
from spnb.teach.controls import buttons
from spnb.teach.explorable import Explorable


@dataclass(frozen=True)
class Judged:
    """A method as it is to be judged.

    Attributes:
        draws: what each weight sample predicts, ``[S, ...]``; a plain network has one.
        costs: what the method costs, by the label of an axis, such as ``"training (s)"``.
        shown: what the same samples say where they are to be drawn, ``[S, ...]``; None: `draws`.
    """

    draws: Tensor
    costs: Mapping[str, float] = field(default_factory=dict)
    shown: Tensor | None = None


@dataclass(frozen=True)
class Score:
    """A score, and what is good.

    Attributes:
        label: of the axis, with the unit.
        of: ``draws [S, ...] -> value``.
        best: ``"low"``, ``"high"``, or the value to be met, such as 0.9 of a 90 % band.
    """

    label: str
    of: Callable[[Tensor], float]
    best: str | float = "low"

    def winners(self, values: Mapping[str, float]) -> list[str]:
        """Which methods have the best value: several if they are even."""

        def far(value: float) -> float:
            if self.best == "low":
                return value
            return -value if self.best == "high" else abs(value - float(self.best))

        least = min(map(far, values.values()))
        return [name for name, value in values.items() if far(value) == least]

    @property
    def aim(self) -> str:
        """What is good, in words."""
        if isinstance(self.best, str):
            return f"{self.best}er is better"
        return f"{self.best:g} is right"


def comparison_board(
    methods: Mapping[str, Judged],
    scores: Mapping[str, Score],
    draw: Callable[[Axes, Tensor], None],
    samples: int = 32,
) -> Explorable:
    """The explorable: choose a method to see, a score for all of them, and the samples S.

    Args:
        methods: by name, in the order in which they are shown. Their costs become choices beside
            the scores.
        scores: by a short name.
        draw: ``(axes, shown [S, ...])``: draws what one method says.
        samples: S at the beginning, a power of two; a method that has fewer draws uses those.

    Raises:
        ValueError: there are no methods or no scores, or a method lacks a cost that others have or
            has another number of draws to show.
    """
    if not methods or not scores:
        raise ValueError(f"{len(methods)} methods and {len(scores)} scores: give one of each.")
    costs = list(dict.fromkeys(name for m in methods.values() for name in m.costs))
    for name, method in methods.items():
        if missing := set(costs) - set(method.costs):
            raise ValueError(f"'{name}' does not say what it costs: {', '.join(sorted(missing))}.")
        if method.shown is not None and len(method.shown) != len(method.draws):
            raise ValueError(
                f"'{name}' has {len(method.draws)} draws to be judged and {len(method.shown)} to "
                "be shown: give the same samples."
            )
    choices = {**scores, **{name: Score(name, lambda _: 0.0) for name in costs}}
    known: dict[tuple[str, str, int], float] = {}

    def value(method: str, score: str, samples: int) -> float:
        if score in costs:
            return methods[method].costs[score]
        asked = method, score, samples
        if asked not in known:
            found = float(scores[score].of(methods[method].draws[:samples]))
            if not math.isfinite(found):
                raise ValueError(f"{scores[score].label} of '{method}' is {found}, S = {samples}.")
            known[asked] = found
        return known[asked]

    def board(figure: Figure, method: str, score: str, samples: int) -> str:
        found = {name: value(name, score, samples) for name in methods}
        best = choices[score].winners(found)
        left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
        figure.subplots_adjust(left=0.08, right=0.965, top=0.9, bottom=0.15, wspace=0.42)
        chosen = methods[method]
        shown = (chosen.draws if chosen.shown is None else chosen.shown)[:samples]
        draw(left, shown)
        left.set_title(f"{method}, S = {len(shown)}")
        _draw_bars(right, found, method, best, choices[score])
        fewer = {name: len(m.draws) for name, m in methods.items() if len(m.draws) < samples}
        return describe(found, method, best, choices[score], samples, fewer)

    most = max(len(method.draws) for method in methods.values())
    powers = [2**n for n in range(most.bit_length())]
    return Explorable(
        "board",
        board,
        width=9.4,
        height=4.0,
        method=buttons(list(methods), description="show", width="auto"),
        score=buttons(list(choices), description="judge by", width="auto"),
        samples=SelectionSlider(
            options=powers, value=min(samples, powers[-1]), description="samples S",
            style={"description_width": "90px"},
        ),
    )  # fmt: skip


def describe(
    found: Mapping[str, float],
    shown: str,
    best: Sequence[str],
    score: Score,
    samples: int,
    fewer: Mapping[str, int],
) -> str:
    """All values in words, which wins, which is shown, and which methods have fewer draws."""
    told = ", ".join(f"{name} {_short(value)}" for name, value in found.items())
    text = f"{score.label} with S = {samples} ({score.aim}): {told}. "
    text += f"Best: {', '.join(best)}; shown: {shown}."
    if fewer:
        text += f" (Fewer draws: {', '.join(f'{name} {count}' for name, count in fewer.items())}.)"
    return text


def _draw_bars(
    axes: Axes, found: Mapping[str, float], shown: str, best: Sequence[str], score: Score
) -> None:
    """A bar for each method: the one shown is hatched, the best has a star."""
    values = [*found.values(), 0.0]
    for place, (name, value) in enumerate(found.items()):
        look: dict[str, Any] = {"hatch": "//", "ec": figures.BLACK} if name == shown else {}
        axes.barh(place, value, 0.66, color=figures.SKY, **look)
        words = f" {_short(value)}{' ★' if name in best else ''}"
        axes.text(max(value, 0.0), place, words, va="center", fontsize=10,
                  weight="bold" if name in best else "normal")  # fmt: skip
    if not isinstance(score.best, str):
        axes.axvline(score.best, color=figures.BLACK, ls="--", lw=1.2)
        values.append(score.best)
    low, high = min(values), max(values)
    axes.set_yticks(range(len(found)), list(found))
    axes.set_xlim(1.1 * low, high + 0.42 * (high - low or 1.0))
    axes.set(ylim=(len(found) - 0.4, -0.6), xlabel=score.label, title=f"★ best ({score.aim})")
    axes.grid(axis="y", visible=False)


def _short(value: float) -> str:
    return f"{value:.3g}"
