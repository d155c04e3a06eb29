"""The posterior explorer: what prior, noise, method and the number of samples do to a prediction.

A family of models, one for each prior scale and noise, on one record with a gap: its samples as
curves, their spread (epistemic) and the noise on top of it (aleatoric) as bands.
"""

from __future__ import annotations

import time as clock
from collections.abc import Sequence
from typing import Any

import torch
from ipywidgets import SelectionSlider
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from spnb.teach import figures
from spnb.teach.controls import buttons
from spnb.teach.datasets import Series
from spnb.teach.explorable import Explorable
from spnb.teach.explore.fits import METHODS, Fits

COVER_90 = 1.645  # standard deviations to either side that hold 90 % of a normal
PPM_RANGE = (313.0, 329.0)
WIDE_RANGE = (300.0, 340.0)  # for the prior


def draw_record(axes: Axes, train: Series, test: Series | None = None) -> None:
    """Draw the measured weeks, the long gaps hatched, and the held-out weeks if they are to show.

    Args:
        axes: where to draw; labels and limits are set.
        train: the record to learn from.
        test: the stretch that is held out.
    """
    axes.plot(train.time, train.values, ".", color=figures.BLACK, ms=4, label="measured weeks")
    if test is not None:
        held: dict[str, Any] = {
            "color": figures.VERMILLION,
            "mfc": "white",
            "ms": 3.5,
            "label": "held out",
        }
        axes.plot(test.time, test.values, "s", **held)
    label = "nothing measured"
    for first, last in train.gaps():
        if last - first > 0.1:
            hatch: dict[str, Any] = {
                "facecolor": "none",
                "edgecolor": "#B0B0B0",
                "hatch": "//",
                "lw": 0,
            }
            axes.axvspan(first, last, zorder=0, label=label, **hatch)
            label = "_"  # one entry in the legend
    axes.set(xlabel="year", ylabel="CO$_2$ in ppm", ylim=PPM_RANGE)


def draw_prediction(
    axes: Axes,
    train: Series,
    test: Series | None,
    time: Tensor,
    functions: Tensor,
    noise: float,
    lines: int = 0,
) -> None:
    """Draw data, gap, the mean of the samples, and the two kinds of uncertainty as 90 % bands.

    Args:
        axes: where to draw.
        train: the record that was learned from.
        test: the stretch that was held out, if it is to be shown.
        time: decimal years ``[T]``.
        functions: what each sample says, in ppm ``[S, T]``.
        noise: standard deviation of the measurements around a sample, in ppm.
        lines: how many samples to draw as lines of their own.
    """
    mean = functions.mean(0)
    spread = functions.std(0) if len(functions) > 1 else torch.zeros_like(mean)
    total = (spread.square() + noise**2).sqrt()
    figures.band(
        axes,
        time,
        mean - COVER_90 * total,
        mean + COVER_90 * total,
        colour=figures.SKY,
        label="epistemic + aleatoric, 90 %",
        strength=0.3,
    )
    figures.band(
        axes,
        time,
        mean - COVER_90 * spread,
        mean + COVER_90 * spread,
        colour=figures.BLUE,
        label="epistemic alone, 90 %",
        strength=0.4,
    )
    for row in functions[:lines]:
        axes.plot(time, row, color=figures.BLACK, lw=0.6, alpha=0.6, ls="-")
    axes.plot(time, mean, color=figures.BLUE, lw=1.8, ls="-", label="mean of the samples")
    draw_record(axes, train, test)


def share_inside(functions: Tensor, noise: float, values: Tensor) -> float:
    """Share of some measurements that the 90 % band of a prediction holds.

    Args:
        functions: what each sample says, in ppm ``[S, T]``.
        noise: standard deviation of the measurements around a sample, in ppm.
        values: the measurements ``[T]``.
    """
    total = (functions.var(0) + noise**2).sqrt()
    inside = (values - functions.mean(0)).abs() < COVER_90 * total
    return inside.double().mean().item()


def longest_gap(record: Series) -> Tensor:
    """The weeks of a record's longest gap, in decimal years."""
    first, last = max(record.gaps(), key=lambda gap: gap[1] - gap[0])
    return record.missing[(record.missing >= first) & (record.missing <= last)]


def posterior_explorer(
    fits: Fits,
    prior_scales: Sequence[float] = (1.0, 2.0, 4.0),
    noises: Sequence[float] = (0.25, 0.5, 1.0),
    prior_scale: float = 2.0,
    noise: float = 0.5,
) -> Explorable:
    """The explorable: method, prior scale, noise and number of samples.

    Args:
        fits: where the draws come from.
        prior_scales: choices for the scale of the prior.
        noises: choices for the noise, in ppm.
        prior_scale: the first choice.
        noise: the first choice, in ppm.
    """
    train, test = fits.train, fits.test
    time = torch.linspace(train.time[0].item() - 0.1, test.time[-1].item() + 0.05, 160)
    time = time.double()
    seconds = {"mean field": 5.0, "NUTS": 10.0}

    def draw(figure: Figure, method: str, prior_scale: float, noise: float, samples: int) -> str:
        start = clock.perf_counter()
        known = fits.is_kept(method, prior_scale, noise)

        def said(at: Tensor) -> Tensor:
            return fits.functions(method, prior_scale, noise, at)[:samples]

        functions, ahead = said(time), said(test.time)
        if not known:
            seconds[method] = clock.perf_counter() - start
        axes = figure.subplots()
        draw_prediction(axes, train, test, time, functions, noise, lines=8)
        if method == "prior":
            axes.set_ylim(WIDE_RANGE)
        axes.set_title(f"{method}, S = {len(functions)}, seed {fits.seed}")
        axes.legend(loc="upper left", ncols=2)
        setting = f"{method}, prior scale {prior_scale:g}, noise {noise:g} ppm"
        if len(functions) == 1:
            return f"{setting}: one sample is one curve; a spread needs at least two."
        spread = [v.std(0).mean() for v in (said(train.time), said(longest_gap(train)), ahead)]
        inside = share_inside(ahead, noise, test.values)
        return (
            f"{setting}, {len(functions)} samples: epistemic standard deviation "
            f"{spread[0]:.2f} ppm where there are data, {spread[1]:.2f} ppm in the long gap, "
            f"{spread[2]:.2f} ppm ahead; the 90 % band holds {inside:.0%} of the "
            f"{len(test)} held-out weeks."
        )

    def notice(method: str, prior_scale: float, noise: float, samples: int) -> str | None:
        if method == "prior" or fits.is_kept(method, prior_scale, noise):
            return None
        return f"Fitting this setting for the first time, about {seconds[method]:.0f} seconds ..."

    style = {"description_width": "90px"}
    return Explorable(
        "posterior",
        draw,
        width=8.0,
        height=4.0,
        continuous_update=False,
        notice=notice,
        method=buttons(METHODS, "mean field", "method"),
        prior_scale=SelectionSlider(
            options=[(f"{v:g}", v) for v in prior_scales],
            value=prior_scale,
            description="prior scale",
            style=style,
        ),
        noise=SelectionSlider(
            options=[(f"{v:g} ppm", v) for v in noises],
            value=noise,
            description="noise",
            style=style,
        ),
        samples=SelectionSlider(
            options=[s for s in (1, 2, 4, 8, 16, 32, 64, 128, 256) if s <= fits.num_samples],
            value=min(32, fits.num_samples),
            description="samples S",
            style=style,
        ),
    )
