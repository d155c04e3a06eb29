"""The weather map: a forecast over the lead times, what came, its error, and its spread.

Nothing is predicted when a slider moves: all maps are computed once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ipywidgets import Dropdown, IntSlider, SelectionSlider
from matplotlib.figure import Figure
from torch import Tensor

from spnb.teach.datasets.air import STEP
from spnb.teach.explorable import Explorable
from spnb.teach.weather import LEADS, Weather

SHOWN = {
    "forecast": "Forecast",
    "truth": "What came",
    "error": "Forecast less truth",
    "spread": "Spread of the forecast",
    "spread of samples": "Spread between the samples",
}
"""What can be shown, and its title."""

SIGNED = ("forecast", "truth", "error")

LINES = (-12, -8, -4, 4, 8, 12)
"""Where maps with a sign have lines, in kelvin."""


def weather_map(data: Weather, means: Mapping[str, Tensor], spreads: Mapping[str, Tensor],
                of_samples: Tensor) -> Explorable:  # fmt: skip
    """The explorable: choose forecast, lead time, day, and what to show beside the forecast.

    Args:
        data: the record; forecasts of its test part are shown.
        means: anomalies in kelvin, ``[N, LEADS, H, W]`` by name; the first one is shown first.
        spreads: standard deviations in kelvin by the same names, likewise or ``[LEADS, H, W]``.
        of_samples: that between the weight samples of the first forecast, ``[N, LEADS, H, W]``.

    Raises:
        ValueError: a field has another shape, or a forecast has no spread.
    """
    truth = data.test.anomalies
    if set(means) != set(spreads):
        raise ValueError(f"means of {sorted(means)} and spreads of {sorted(spreads)} must agree.")
    for name, maps in {**means, "the spread of samples": of_samples}.items():
        if maps.shape != truth.shape:
            raise ValueError(
                f"'{name}' has shape {tuple(maps.shape)}; {tuple(truth.shape)} is wanted: a map "
                "for each test forecast and lead time."
            )
    first = next(iter(means))
    north = data.fields.latitude.numpy()
    east = (data.fields.longitude - 360).numpy()
    reach = 4 * float(truth.std())
    widest = max(float(spread.max()) for spread in spreads.values())

    def field(forecast: str, number: int, lead: int, what: str) -> Tensor | None:
        place = LEADS.index(lead)
        if what == "truth":
            return truth[number, place]
        if what == "error":
            return means[forecast][number, place] - truth[number, place]
        if what == "spread":
            return spreads[forecast].expand_as(truth)[number, place]
        if what == "spread of samples":
            return of_samples[number, place] if forecast == first else None
        return means[forecast][number, place]

    def draw(figure: Figure, forecast: str, lead: int, day: int, beside: str) -> str:
        when = data.fields.start + int(data.test.times[day]) * STEP
        panels: Any = figure.subplots(1, 2, sharey=True)
        figure.subplots_adjust(left=0.08, right=0.985, top=0.92, bottom=0.14, wspace=0.06)
        for axes, what in zip(panels, ("forecast", beside), strict=True):
            shown = field(forecast, day, lead, what)
            title = f"{forecast}, {lead} h" if what == "forecast" else SHOWN[what]
            axes.set(title=title, xlabel="longitude (°E)")
            axes.grid(visible=False)
            if shown is None:
                axes.text(0.5, 0.5, f"{forecast} has no weight samples", ha="center",
                          transform=axes.transAxes)  # fmt: skip
                axes.set(xlim=(east[0], east[-1]))
                continue
            how = (
                {"cmap": "RdBu_r", "vmin": -reach, "vmax": reach}
                if what in SIGNED
                else {"cmap": "viridis", "vmin": 0, "vmax": widest}
            )
            picture = axes.imshow(
                shown.numpy(), extent=(east[0], east[-1], north[-1], north[0]), aspect="auto", **how
            )
            if what in SIGNED:  # without colours: what is below zero is dashed
                axes.contour(east, north, shown.numpy(), LINES, colors="black", linewidths=0.7)
            bar = figure.colorbar(picture, ax=axes, location="bottom", pad=0.2, aspect=40)
            signed = "departure from the usual (K); below it dashed"
            bar.set_label(signed if what in SIGNED else "spread (K)")
        panels[0].set_ylabel("latitude (°N)")
        error = means[forecast][day, LEADS.index(lead)] - truth[day, LEADS.index(lead)]
        rmse = (error.square() * data.area).mean().sqrt()
        spread = spreads[forecast].expand_as(truth)[day, LEADS.index(lead)]
        said = (spread.square() * data.area).mean().sqrt()
        text = (
            f"{forecast} of {when:%d %b %Y, %H:%M} UTC for {lead} hours later: it misses by "
            f"{rmse:.2f} K (RMSE over the map), most at {largest(error)}; it expected to miss by "
            f"{said:.2f} K, most at {largest(spread)}."
        )
        if beside == "spread of samples" and forecast == first:
            between = of_samples[day, LEADS.index(lead)]
            mean = (between.square() * data.area).mean().sqrt()
            text += f" The samples differ by {mean:.2f} K, most at {largest(between)}."
        return text

    def largest(shown: Tensor) -> str:
        """Where a map is farthest from zero, and how far."""
        at = int(shown.abs().argmax())
        row, column = divmod(at, shown.shape[1])
        value = float(shown.flatten()[at])
        return f"{north[row]:.0f}° N, {-east[column]:.0f}° W ({value:+.1f} K)"

    style = {"description_width": "100px"}
    return Explorable(
        "weather",
        draw,
        width=9.0,
        height=4.0,
        forecast=Dropdown(options=list(means), description="forecast", style=style),
        lead=SelectionSlider(options=LEADS, description="hours ahead", style=style),
        day=IntSlider(0, 0, len(truth) - 1, description="forecast no.", style=style),
        beside=Dropdown(
            options=[(title, what) for what, title in SHOWN.items() if what != "forecast"],
            description="beside it", style=style,
        ),
    )  # fmt: skip


def spread_of(draws: Tensor, likelihood: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, whole spread, and spread between the samples of draws ``[S, N, ...]``.

    Returns:
        Three tensors ``[N, LEADS, H, W]``.
    """
    shown = likelihood(draws)
    between = shown.mean.var(0, correction=0)
    return (
        shown.mean.mean(0),
        (between + shown.variance.mean(0)).sqrt(),
        torch.sqrt(between),
    )
