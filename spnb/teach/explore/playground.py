"""The playground: put points anywhere, drag them about, and watch a posterior follow.

The model has a closed form (`spnb.teach.features`), so the exact posterior, its mean-field
approximation and the prior are all there within milliseconds, whatever the points are. Points are
added and moved by the pointer or, as well, by sliders and buttons.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from ipywidgets import Button, FloatSlider, IntSlider, SelectionSlider
from matplotlib.figure import Figure

from spnb.teach import figures
from spnb.teach.controls import buttons
from spnb.teach.features import METHODS, Features, Method, draw_weights
from spnb.teach.touchable import Touchable

SIDE = 3.0
"""Points lie between minus and plus this, in both directions."""
NEAR = 0.3
"""A press this near to a point takes it instead of adding one."""
COVER_90 = 1.645
LINES = 8
POINTS = ((-2.2, -0.9), (-1.9, -0.4), (-1.4, 0.5), (1.2, 0.8), (1.6, 0.2), (2.1, -0.6))
AT_MOST = 40


class Playground(Touchable):
    """The explorable.

    Args:
        points: the points at the beginning, ``(x, y)`` between -3 and 3.
        samples: S at the beginning, a power of two up to 256.
        seed: of the features and of the draws.

    Attributes:
        points: the points as they are, in the order in which they were added.
    """

    def __init__(
        self, points: Sequence[tuple[float, float]] = POINTS, samples: int = 64, seed: int = 0
    ) -> None:
        self.points = [(float(x), float(y)) for x, y in points]
        self._features, self._seed = Features.drawn(seed=seed), seed
        self._grid = torch.linspace(-SIDE, SIDE, 121, dtype=torch.float64)
        self._bends = self._features(self._grid)
        self._add = Button(description="Add a point", tooltip="In the middle of the widest gap")
        self._remove = Button(description="Remove it", tooltip="The chosen point")
        for name, button in (("add", self._add), ("remove", self._remove)):
            button.add_class(f"spnb-playground-{name}")
        style = {"description_width": "80px"}
        last = self._shown = max(0, len(self.points) - 1)
        here = self.points[-1] if self.points else (0.0, 0.0)
        place = {"min": -SIDE, "max": SIDE, "step": 0.1, "style": style}
        super().__init__(
            "playground",
            self._draw,
            on_press=self._press,
            on_drag=self._drag,
            buttons=(self._add, self._remove),
            width=8.0,
            height=3.9,
            method=buttons(METHODS, "exact", "method"),
            prior_scale=SelectionSlider(
                options=[0.5, 1.0, 2.0, 4.0], value=2.0, description="prior scale", style=style
            ),
            noise=SelectionSlider(
                options=[0.05, 0.1, 0.2, 0.4, 0.8], value=0.2, description="noise", style=style
            ),
            samples=SelectionSlider(
                options=[2**n for n in range(9)], value=samples, description="samples S",
                style=style,
            ),
            point=IntSlider(last, min=0, max=last, description="point", style=style),
            x=FloatSlider(here[0], description="its x", **place),
            y=FloatSlider(here[1], description="its y", **place),
        )  # fmt: skip
        self._add.on_click(lambda _: self.act(self._add_in_gap))
        self._remove.on_click(lambda _: self.act(self._remove_chosen))

    @property
    def chosen(self) -> int:
        """Number of the point that the sliders move."""
        return int(self.controls["point"].value)

    def _choose(self, number: int) -> None:
        """Have the sliders show a point, without drawing."""
        x, y = self.points[number] if self.points else (0.0, 0.0)
        with self.quiet():
            self.controls["point"].max = max(0, len(self.points) - 1)
            for name, value in (("point", number), ("x", x), ("y", y)):
                self.controls[name].value = value

    def _press(self, x: float, y: float) -> None:
        near = [(px - x) ** 2 + (py - y) ** 2 for px, py in self.points]
        if near and min(near) < NEAR**2:
            self._choose(near.index(min(near)))
        else:
            self._append(x, y)

    def _append(self, x: float, y: float) -> None:
        if len(self.points) == AT_MOST:
            raise ValueError(f"{AT_MOST} points are enough: remove one first.")
        self.points.append(_inside(x, y))
        self._choose(len(self.points) - 1)

    def _drag(self, x: float, y: float) -> None:
        self.points[self.chosen] = _inside(x, y)
        self._choose(self.chosen)

    def _add_in_gap(self) -> None:
        self._append(self._widest(), 0.0)

    def _remove_chosen(self) -> None:
        if not self.points:
            raise ValueError("There is no point left to remove.")
        self.points.pop(self.chosen)
        self._choose(max(0, min(self.chosen, len(self.points) - 1)))

    def _draw(
        self,
        figure: Figure,
        method: Method,
        prior_scale: float,
        noise: float,
        samples: int,
        point: int,
        x: float,
        y: float,
    ) -> str:
        if self.points and point != self._shown:
            self._choose(point)  # the sliders now show that one
        elif self.points:
            self.points[point] = (x, y)
        self._shown = point
        xs, ys = (
            (torch.tensor(list(v)).double() for v in zip(*self.points, strict=True))
            if (self.points)
            else (torch.empty(0), torch.empty(0))
        )
        weights = draw_weights(
            self._features, xs, ys, method=method, prior_scale=prior_scale, noise=noise,
            num_samples=samples, seed=self._seed,
        )  # fmt: skip
        functions = weights @ self._bends.T
        mean = functions.mean(0)
        spread = functions.std(0) if samples > 1 else torch.zeros_like(mean)
        total = (spread.square() + noise**2).sqrt()
        axes = figure.subplots()
        figure.subplots_adjust(left=0.07, right=0.985, top=0.86, bottom=0.13)
        for width, colour, strength, label in (
            (total, figures.SKY, 0.3, "epistemic + aleatoric, 90 %"),
            (spread, figures.BLUE, 0.4, "epistemic, 90 %"),
        ):
            low, high = mean - COVER_90 * width, mean + COVER_90 * width
            figures.band(axes, self._grid, low, high, colour=colour, label=label, strength=strength)
        for row in functions[:LINES]:
            axes.plot(self._grid, row, color=figures.BLACK, lw=0.6, alpha=0.6, ls="-")
        axes.plot(self._grid, mean, color=figures.BLUE, lw=1.8, ls="-", label="mean")
        axes.plot(xs, ys, "o", color=figures.BLACK, ms=7, label="points")
        if self.points:
            axes.plot(*self.points[self.chosen], "o", ms=13, mfc="none", mec=figures.VERMILLION,
                      mew=2, label="chosen")  # fmt: skip
        axes.set(xlim=(-SIDE, SIDE), ylim=(-SIDE, SIDE), xlabel="x", ylabel="y")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=5)
        gap = self._bends[int((self._grid - self._widest()).abs().argmin())]
        there = (weights @ gap).std().item() if samples > 1 else 0.0
        number = f"{len(self.points)} point{'s'[: len(self.points) != 1]}"
        text = f"{number}, {method}, prior scale {prior_scale:g}, noise {noise:g}, S = {samples}: "
        if samples == 1:
            return text + "one sample is one curve; a spread needs at least two."
        if self.points:
            known = (weights @ self._features(xs).T).std(0).mean()
            text += f"epistemic standard deviation {known:.2f} at the points and "
        return (
            f"{text}{there:.2f} in the middle of the widest gap, at {self._widest():.1f}; "
            f"aleatoric {noise:g} everywhere."
        )

    def _widest(self) -> float:
        """The middle of the widest gap between points, or between a point and the edge."""
        edges = sorted([-SIDE, SIDE, *(x for x, _ in self.points)])
        low, high = max(zip(edges, edges[1:], strict=False), key=lambda gap: gap[1] - gap[0])
        return (low + high) / 2


def _inside(x: float, y: float) -> tuple[float, float]:
    """A point within the board, to a tenth, as the sliders have it."""
    return tuple(round(min(SIDE, max(-SIDE, v)), 1) for v in (x, y))  # type: ignore[return-value]
