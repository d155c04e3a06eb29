"""The fan chart: a day's forecast as bands, with the parts of its spread and its rivals.

Nothing is predicted when a slider moves: the forecasts of all days and samples were made once.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import torch
from ipywidgets import Dropdown, IntSlider, SelectionSlider
from matplotlib.figure import Figure
from torch import Tensor

from spnb.maths import scores
from spnb.maths.likelihoods import HeteroscedasticNormal
from spnb.teach import figures
from spnb.teach.controls import buttons
from spnb.teach.day_ahead import DAY, DayAhead
from spnb.teach.explorable import Explorable

NOISE = HeteroscedasticNormal()
PARTS = ("all", "aleatoric", "epistemic")
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
QUIET = -12.0
"""Log-scale, in MW, of no noise at all."""


def part_of(forecast: Tensor, part: str) -> Tensor:
    """One part of a forecast's spread.

    Args:
        forecast: means and log-scales of S samples, ``[S, ..., 48]``.
        part: ``"all"``; ``"aleatoric"``: the noise alone, around the mean of all samples;
            ``"epistemic"``: the samples' means alone.

    Returns:
        A forecast of the same form.
    """
    means, log_scales = forecast.chunk(2, -1)
    if part == "aleatoric":
        means = means.mean(0, keepdim=True).expand_as(means)
    elif part == "epistemic":
        log_scales = torch.full_like(log_scales, QUIET)
    return torch.cat([means, log_scales], -1)


def fan_chart(data: DayAhead, forecasts: Mapping[str, Tensor], day: datetime) -> Explorable:
    """The explorable: choose a day, whose forecast, how many samples, and which part.

    Args:
        data: the record; its test days are shown.
        forecasts: of the test days in MW, ``[S, N, 48]`` by name; the first one is shown first.
        day: the day at the beginning, midnight UTC.

    Raises:
        ValueError: a forecast has another number of days, or the day is none of them.
    """
    test = data.test
    for name, forecast in forecasts.items():
        if forecast.shape[1:] != (len(test), 2 * DAY):
            raise ValueError(
                f"'{name}' has shape {tuple(forecast.shape)}; [S, {len(test)}, {2 * DAY}] is "
                "wanted: one forecast for each test day."
            )
    days = [data.load.when(int(at)) for at in test.at]
    if day not in days:
        raise ValueError(f"{day} is none of the {len(days)} test days.")
    actual, operator = data.actual(test), data.operator(test)
    most = max(len(forecast) for forecast in forecasts.values())

    def draw(figure: Figure, day: int, forecast: str, part: str, samples: int) -> str:
        chosen = forecasts[forecast][:samples, day]  # [S, 48]
        fan = scores.quantiles(part_of(chosen, part), NOISE, LEVELS) / 1000
        truth, expected = actual[day] / 1000, operator[day] / 1000
        low, q25, median, q75, high = fan
        axes = figure.subplots()
        figure.subplots_adjust(left=0.08, right=0.985, top=0.9, bottom=0.14)
        hours = range(DAY)
        for lower, upper, share, strength in ((low, high, "90 %", 0.2), (q25, q75, "50 %", 0.4)):
            figures.band(axes, hours, lower, upper, colour=figures.BLUE, strength=strength,
                         label=f"{share} of the forecast")  # fmt: skip
        axes.plot(hours, median, color=figures.BLUE, lw=1.4, label="its median")
        look = figures.look(1)
        axes.plot(hours, expected, **look | {"ms": 3.5}, label="grid operator")
        axes.plot(hours, truth, color=figures.BLACK, marker=".", lw=1.4, label="actual load")
        when = days[day]
        axes.set(xlabel="hour (UTC)", ylabel="load (GW)", xlim=(-0.3, DAY - 0.7))
        axes.set_title(f"{forecast}, {when:%A %d %B %Y}")
        axes.set_xticks(range(0, DAY, 3))
        axes.legend(loc="upper left", ncols=2)
        bottom, top = axes.get_ylim()
        axes.set_ylim(bottom, top + 0.28 * (top - bottom))
        inside = int(((truth >= low) & (truth <= high)).sum())
        width, error = (high - low).mean(), (median - truth).abs().mean()
        taken = min(samples, len(forecasts[forecast]))
        return (
            f"{when:%A %d %B %Y}, {forecast}, {taken} "
            f"{'sample' if taken == 1 else 'samples'}, spread: {part}. The 90 % band is "
            f"{width:.1f} GW wide and holds {inside} of 24 hours; the median misses the load by "
            f"{error:.1f} GW on average, the operator by {(expected - truth).abs().mean():.1f} GW."
        )

    style = {"description_width": "70px"}
    powers = [2**n for n in range(most.bit_length())]
    return Explorable(
        "fan",
        draw,
        width=8.4,
        height=3.9,
        day=IntSlider(days.index(day), 0, len(days) - 1, description="day", style=style),
        forecast=Dropdown(options=list(forecasts), description="forecast", style=style),
        part=buttons(PARTS, description="spread"),
        samples=SelectionSlider(
            options=powers, value=powers[-1], description="samples S", style=style
        ),
    )
