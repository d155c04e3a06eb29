"""The third workload of the paper: a Bayesian Swin transformer that forecasts air temperature.

It forecasts what damped persistence leaves, at 24, 48 and 72 hours: a mean and a log-scale for each
point, so that the spread of the forecast is that between the samples and that within them. Simple
forecasts stand beside it, each with the errors that it made in training as its spread.

Neighbouring points tell almost the same, and the likelihood counts each of them: that makes it far
too sure. A temperature above 1 takes this back, as if so many times fewer points were there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from spnb.maths import scores
from spnb.maths.likelihoods import HeteroscedasticNormal
from spnb.maths.models import BayesianModel
from spnb.maths.objectives import ELBO
from spnb.maths.posteriors import MeanField
from spnb.maths.priors import fan_in
from spnb.maths.swin import SIZES, Swin
from spnb.parallel.layout import Layout
from spnb.run.predict import predict
from spnb.run.training import fit
from spnb.teach import figures
from spnb.teach.datasets.air import STEP
from spnb.teach.weather import (
    AHEAD,
    FRAMES,
    LEADS,
    Damped,
    Part,
    Weather,
    baselines,
    weather,
)

LIKELIHOOD = HeteroscedasticNormal(dim=-3)
"""Of draws ``[S, N, 2 LEADS, H, W]``: means of all lead times, then log-scales."""
SWIN = "Bayesian Swin"
SHOWN = (2014, 11, 10)
"""Time of the forecast that is shown: cold air breaks out over the plains."""
SHOWN_LEAD = 1
"""Which of the lead times the figure shows."""


@dataclass(frozen=True)
class Settings:
    """All that a run depends on.

    Attributes:
        swin: arguments of `Swin`.
        every: learn from one forecast in so many; they are six hours apart.
        num_samples: S in training.
        test_samples: S in prediction.
        batch_size: B.
        epochs: passes over the training part.
        learning_rate: Adam's.
        warmup: share of the steps over which it rises.
        init_scale: initial standard deviation of the weights.
        temperature: T, the weight of the divergence from the prior, which tempers the likelihood
            (see `spnb.ELBO`).
        gain: width of the prior, in units of the usual initialisation.
        seed: of everything.
    """

    swin: dict[str, Any]
    every: int = 1
    num_samples: int = 2
    test_samples: int = 16
    batch_size: int = 16
    epochs: int = 15
    learning_rate: float = 2e-3
    warmup: float = 0.1
    init_scale: float = 0.01
    temperature: float = 30.0
    gain: float = 1.0
    seed: int = 0


SMALL = {"patch": 4, "window": 4, "dim": 48, "depths": (2, 2), "heads": (3, 6), "ratio": 2.0}
SETTINGS = {
    "ci": Settings(SMALL | {"dim": 12}, every=8, test_samples=4, epochs=2),
    "laptop": Settings(SMALL),
    # About 200 million parameters; what else is set here was not tried out.
    "node": Settings(
        SIZES["large"], num_samples=64, test_samples=64, epochs=30, learning_rate=2e-4
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Units:
    """From anomalies in kelvin to what the network sees and says, and back.

    Attributes:
        places: what tells places apart, ``[4, H, W]``.
        damped: the forecast that the network improves on.
        one: size of anomalies, in kelvin.
        error: size of that forecast's errors, in kelvin, ``[LEADS, H, W]``.
    """

    places: Tensor
    damped: Damped
    one: Tensor
    error: Tensor

    @classmethod
    def of(cls, data: Weather) -> Units:
        """The units of the training part."""
        damped = Damped(data.train)
        left = data.train.anomalies - damped(data.train)
        return cls(data.places, damped, data.train.frames.std(), _rms(left))

    def inputs(self, part: Part) -> Tensor:
        """The frames and the places, ``[N, FRAMES + 4, H, W]``."""
        places = self.places.expand(len(part), -1, -1, -1)
        return torch.cat([part.frames / self.one, places], 1)

    def targets(self, part: Part) -> Tensor:
        """What damped persistence leaves, ``[N, LEADS, H, W]``."""
        return (part.anomalies - self.damped(part)) / self.error

    def forecast(self, draws: Tensor, part: Part) -> Tensor:
        """Draws as those of anomalies in kelvin, in place, ``[S, N, 2 LEADS, H, W]``."""
        means, log_scales = draws.chunk(2, LIKELIHOOD.dim)
        means.mul_(self.error).add_(self.damped(part))
        log_scales.add_(self.error.log())
        return draws


def _rms(values: Tensor) -> Tensor:
    return values.square().mean(0).sqrt()


def network(settings: Settings, places: Tensor) -> Swin:
    """The Swin, always from the same initial weights, which change the forecast only a little."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        size = (places.shape[1], places.shape[2])
        net = Swin(size, FRAMES + len(places), 2 * len(LEADS), **settings.swin)
    with torch.no_grad():
        net.head.weight.mul_(0.1)
        net.head.bias.zero_()
    return net


def run(settings: Settings, layout: Layout | None = None) -> dict[str, Any]:
    """Train the Swin, and score it and the simple forecasts; called on every rank."""
    data = weather(settings.every)
    units = Units.of(data)
    net = network(settings, data.places)
    model = BayesianModel(net, prior=fan_in(gain=settings.gain), likelihood=LIKELIHOOD)
    fitted = fit(
        MeanField(model, init_scale=settings.init_scale),
        (units.inputs(data.train), units.targets(data.train)),
        objective=ELBO(temperature=settings.temperature),
        layout=layout,
        num_samples=settings.num_samples,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        schedule="cosine",
        warmup_steps=settings.warmup,
        seed=settings.seed,
    )
    found = {}
    for name, forecast in baselines(data).items():
        errors = _rms(data.train.anomalies - forecast(data.train))
        spread = errors.log().expand_as(data.test.anomalies)
        dressed = torch.cat([forecast(data.test), spread], LIKELIHOOD.dim).unsqueeze(0)
        found[name] = _scores(dressed, data.test, data.area)
    draws = predict(
        fitted.posterior, units.inputs(data.test), num_samples=settings.test_samples, layout=layout
    )
    assert draws is not None
    draws = units.forecast(draws.cpu(), data.test)
    found[SWIN] = _scores(draws, data.test, data.area)
    return {
        "scores": found,
        "leads": list(LEADS),
        "maps": _maps(draws, data),
        "loss": [epoch.loss for epoch in fitted.history.epochs],
        "parameters": sum(p.numel() for p in net.parameters()),
        "data": data.fields.sentence,
    }


def _scores(draws: Tensor, part: Part, area: Tensor) -> dict[str, list[float]]:
    """Scores of draws of anomalies in kelvin, a list over the lead times each."""
    truth, usual = part.anomalies, torch.zeros(())
    daily = slice(None, None, AHEAD[0])  # hours later there is little news
    crps = scores.crps(draws[:, daily], truth[daily], LIKELIHOOD)
    found = {
        "rmse": scores.weighted_rmse(draws, truth, LIKELIHOOD, area),
        # A forecast of no anomalies correlates with nothing.
        "acc": scores.anomaly_correlation(draws, truth, LIKELIHOOD, area, usual).nan_to_num(0.0),
        "crps": (crps * area).mean((0, 2, 3)),
        "spread_skill": scores.spread_skill(draws, truth, LIKELIHOOD, area),
    }
    if len(draws) > 1:
        found["of_samples"] = scores.spread_skill(draws, truth, LIKELIHOOD, area, noise=False)
    return {name: values.tolist() for name, values in found.items()}


def _maps(draws: Tensor, data: Weather) -> dict[str, Any]:
    """One forecast for all lead times, rounded: anomalies and spread in kelvin, ``[LEADS, H, W]``.

    Args:
        draws: of anomalies in kelvin, ``[S, N, 2 LEADS, H, W]``.
        data: the forecasts.
    """
    number = int((data.test.times - data.fields.index(*SHOWN)).abs().argmin())
    when = data.fields.start + int(data.test.times[number]) * STEP
    shown = LIKELIHOOD(draws[:, number])
    variance = shown.mean.var(0, correction=0) + shown.variance.mean(0)
    fields = {
        "truth": data.test.anomalies[number],
        "mean": shown.mean.mean(0),
        "spread": variance.sqrt(),
    }
    return {
        "time": f"{when:%d %b %Y}",
        "latitude": data.fields.latitude.tolist(),
        "longitude": data.fields.longitude.tolist(),
        **{name: field.double().round(decimals=1).tolist() for name, field in fields.items()},
    }


def describe(result: dict[str, Any]) -> str:
    """The scores, one line a forecast."""
    leads = " / ".join(map(str, result["leads"]))
    lines = [
        result["data"],
        f"{result['parameters']:,} weights. Scores on the test months, at {leads} hours:",
        f"{'':<20}{'RMSE (K)':<20}{'CRPS (K)':<20}{'correlation':<20}spread / error",
    ]
    for who, found in result["scores"].items():
        cells = [
            " / ".join(f"{value:.2f}" for value in found[name])
            for name in ("rmse", "crps", "acc", "spread_skill")
        ]
        lines.append(f"{who:<20}" + "".join(f"{cell:<20}" for cell in cells).rstrip())
    return "\n".join(lines)


def draw(result: dict[str, Any]) -> Figure:
    """Errors and spread by lead time, and one forecast as maps."""
    figure, (scored, maps) = figures.new(12.0, 6.4, rows=2, columns=3)
    found = result["scores"]
    for index, who in enumerate(sorted(found, key=lambda who: who != SWIN)):
        look = figures.look(index) | ({"lw": 3.0} if who == SWIN else {})
        for axes, name in zip(scored, ("rmse", "crps", "spread_skill"), strict=True):
            axes.plot(result["leads"], found[who][name], label=who, **look)
            axes.set(xlabel="lead time (hours)", xticks=result["leads"])
    scored[0].set(title="Error of the mean", ylabel="RMSE (K)")
    scored[1].set(title="Error of the distribution", ylabel="CRPS (K)")
    scored[2].set(title="Calibration", ylabel="spread / error")
    scored[2].axhline(1.0, color=figures.GREY, lw=1, zorder=0)
    handles, labels = scored[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    shown, lead = result["maps"], result["leads"][SHOWN_LEAD]
    truth, mean, spread = (shown[name][SHOWN_LEAD] for name in ("truth", "mean", "spread"))
    largest = max(abs(value) for field in (truth, mean) for row in field for value in row)
    signed = {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}
    _map(maps[0], shown, mean, f"Forecast of {shown['time']}, {lead} h", **signed)
    _map(maps[1], shown, spread, "Its spread", vmin=0)
    _map(maps[2], shown, truth, "What came", **signed)
    return figure


def _map(
    axes: Axes, shown: dict[str, Any], field: list[list[float]], title: str, **how: Any
) -> None:
    """A field of anomalies on its grid."""
    east = [value - 360 for value in shown["longitude"]]
    picture = axes.pcolormesh(
        east, shown["latitude"], field, shading="nearest", rasterized=True, **how
    )
    axes.figure.colorbar(picture, ax=axes, location="bottom", shrink=0.8, label="K", aspect=30)
    axes.set(title=title, ylabel="latitude (°N)", aspect=1.2, xlabel="longitude (°E)")
    axes.grid(visible=False)
