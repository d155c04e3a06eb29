"""Every explorable, made in seconds from small stored posteriors: for a page that shows them all.

    python -m tests.browser.explorables

trains the posteriors anew and stores them beside this file, a few kilobytes each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

import spnb
from spnb.maths.networks import mlp
from spnb.run.footprint import footprint
from spnb.teach import datasets
from spnb.teach.datasets.stand_ins import made_up_fields, made_up_load
from spnb.teach.day_ahead import DayAhead, day_ahead
from spnb.teach.explorable import Explorable
from spnb.teach.explore.accidents import accident_lab
from spnb.teach.explore.bias import bias_explorer
from spnb.teach.explore.board import Judged, Score, comparison_board
from spnb.teach.explore.budget import sample_budget
from spnb.teach.explore.digits import digit_explorer, rotate
from spnb.teach.explore.failure_lab import failure_lab
from spnb.teach.explore.fan import fan_chart
from spnb.teach.explore.fits import Fits
from spnb.teach.explore.images import image_explorer
from spnb.teach.explore.lamp import equivalence_lamp
from spnb.teach.explore.memory_budget import memory_budget
from spnb.teach.explore.planner import layout_planner
from spnb.teach.explore.playground import Playground
from spnb.teach.explore.posterior import draw_prediction, posterior_explorer
from spnb.teach.explore.race import race_board
from spnb.teach.explore.tiles import tile_board
from spnb.teach.explore.timeline import timeline_explorer
from spnb.teach.explore.troubles import trouble_explorer
from spnb.teach.explore.weather_map import spread_of, weather_map
from spnb.teach.symptoms import Symptoms, symptoms
from spnb.teach.weather import LEADS, Weather, weather

STORED = Path(__file__).parent / "stored"
SEED, DRAWS = 0, 64
NOISE, PRIOR_SCALE = 0.5, 2.0
"""Of the curve through the carbon dioxide record, in ppm, and of its prior."""
TWO = spnb.Layout(sample=2)

Data = tuple[Tensor, Tensor]


# -- models and their data -------------------------------------------------------------------------


def digits_model() -> spnb.BayesianModel:
    """A small classifier of digits of 8 × 8 pixels."""
    return spnb.BayesianModel(mlp((64, 16, 10), nn.Tanh), spnb.priors.fan_in(), "categorical")


def photographs_model() -> spnb.BayesianModel:
    """A classifier that looks at averages over 4 × 4 pixels of three colours."""
    net = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(3 * 64, 10))
    return spnb.BayesianModel(net, spnb.priors.fan_in(), "categorical")


def curve_model(prior_scale: float, noise: float) -> spnb.BayesianModel:
    """A curve through the record; noise in ppm."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
    scaled = noise / record()[0].values.std().item()
    return spnb.BayesianModel(net, spnb.priors.fan_in(prior_scale), spnb.likelihoods.Normal(scaled))


def load_model() -> spnb.BayesianModel:
    """Means and log-scales of a day's hours from the week before."""
    inputs = load_data().train.x.shape[1]
    return spnb.BayesianModel(mlp((inputs, 8, 48)), spnb.priors.fan_in(), "heteroscedastic")


def weather_model() -> spnb.BayesianModel:
    """Maps ahead from three maps, point by point."""
    net = nn.Conv2d(3, len(LEADS), 1)
    return spnb.BayesianModel(net, spnb.priors.fan_in(), spnb.likelihoods.Normal(1.0))


@cache
def record() -> tuple[datasets.Series, datasets.Series]:
    """Some years of the carbon dioxide record with a gap, and the half year after."""
    whole = datasets.co2()
    return whole.between(1963.0, 1967.0), whole.between(1967.0, 1967.5)


@cache
def load_data() -> DayAhead:
    """A made-up record of an electricity load."""
    return day_ahead(made_up_load(), every=24)


@cache
def weather_data() -> Weather:
    """Made-up fields of air temperature."""
    return weather(every=24, fields=made_up_fields())


@cache
def photographs() -> Data:
    """Digits as photographs ``[N, 3, 32, 32]``."""
    small = datasets.digits(flat=False)
    large = interpolate(small.test_x[:200], scale_factor=4).expand(-1, 3, -1, -1)
    return large.contiguous(), small.test_y[:200]


# -- posteriors ------------------------------------------------------------------------------------


def train(model: spnb.BayesianModel, data: Data, epochs: int, rate: float) -> spnb.Posterior:
    """A mean-field posterior after some passes over the data."""
    start = spnb.MeanField(model, init_scale=0.05)
    return spnb.fit(
        start, data, num_samples=4, batch_size=64, epochs=epochs, learning_rate=rate, seed=SEED
    ).posterior


def store() -> None:
    """Train all posteriors and write them."""
    torch.manual_seed(SEED)
    images, weather_part = datasets.digits(), weather_data().train
    curves = Fits(curve_model, *record())
    model = curve_model(PRIOR_SCALE, NOISE)
    for name, posterior in {
        "digits": train(digits_model(), images.train, 20, 0.01),
        "photographs": train(photographs_model(), photographs(), 30, 0.02),
        "curve": train(model, curves.data, 300, 0.02),
        "load": train(load_model(), load_data().train.pair, 20, 0.005),
        "weather": train(weather_model(), (weather_part.frames, weather_part.anomalies), 3, 0.02),
    }.items():
        spnb.save(posterior, STORED / f"{name}.safetensors")
    chains = spnb.nuts(model, curves.data, num_chains=2, num_samples=DRAWS // 2, warmup=100)
    spnb.save(chains.posterior, STORED / "curve-nuts.safetensors")


def stored(name: str, model: spnb.BayesianModel) -> spnb.Posterior:
    """A posterior of a model, as it was stored."""
    return spnb.load(STORED / f"{name}.safetensors", model)


def draws(name: str, model: spnb.BayesianModel, x: Tensor, number: int = DRAWS) -> Tensor:
    """Predictions of a stored posterior, ``[S, N, ...]``."""
    return spnb.predict(stored(name, model), x, num_samples=number, seed=SEED)


# -- explorables that need no workers --------------------------------------------------------------


def digits() -> Explorable:
    """Turned digits."""
    images, angles = datasets.digits(), list(range(0, 181, 30))
    upright = images.test_x[:12].view(-1, 8, 8)
    turned = torch.stack([rotate(upright, angle) for angle in angles])
    found = draws("digits", digits_model(), turned.flatten(2).flatten(0, 1)).softmax(-1)
    return digit_explorer(
        turned, images.test_y[:12], angles, found.view(DRAWS, len(angles), len(upright), 10)
    )


def posterior() -> Explorable:
    """The curve through the record; other settings are fitted in a blink."""
    fits = Fits(curve_model, *record(), num_samples=DRAWS, steps=5, warmup=3, depth=2)
    for method, name in {"mean field": "curve", "NUTS": "curve-nuts"}.items():
        kept = stored(name, curve_model(PRIOR_SCALE, NOISE))
        weights = kept.draw(range(DRAWS), spnb.Key(SEED))
        fits.keep(method, PRIOR_SCALE, NOISE, weights)
    return posterior_explorer(fits, prior_scale=PRIOR_SCALE, noise=NOISE)


def budget() -> Explorable:
    """What samples buy on digits, upright and turned."""
    images = datasets.digits()
    upright = images.test_x[:150]
    turned = rotate(upright.view(-1, 8, 8), 90).flatten(1)
    known, strange = (draws("digits", digits_model(), x).softmax(-1) for x in (upright, turned))
    return sample_budget(known, images.test_y[:150], {"turned by 90°": strange})


def tiles() -> Explorable:
    """A board of tiles."""
    return tile_board(samples=8, rows=16, sample_ranks=2, data_ranks=1)


def planner() -> Explorable:
    """A plan for a data centre."""
    found = spnb.plan(
        stored("digits", digits_model()),
        datasets.digits().train,
        num_samples=8,
        batch_size=64,
        machine=spnb.machines.H100,
        world_size=8,
    )
    return layout_planner({"H100": found}, ranks=8, samples=8, rows=64)


def bias() -> Explorable:
    """What plain averaging gets wrong."""
    images = datasets.digits()
    return bias_explorer(
        stored("digits", digits_model()),
        (images.test_x[:64], images.test_y[:64]),
        draws=32,
        seed=SEED,
    )


def images() -> Explorable:
    """Corrupted photographs."""
    shown, labels = photographs()
    model = photographs_model()

    def predict(x: Tensor) -> Tensor:
        return draws("photographs", model, x, 16).softmax(-1)

    return image_explorer(shown, labels, [f"digit {n}" for n in range(10)], predict)


def fan() -> Explorable:
    """A day of a made-up load."""
    data = load_data()
    forecast = data.forecast(data.test, draws("load", load_model(), data.test.x, 32))
    plain = data.forecast(data.test, draws("load", load_model(), data.test.x, 1))
    return fan_chart(
        data, {"Bayesian": forecast, "one sample": plain}, day=datetime(2024, 5, 1, tzinfo=UTC)
    )


def maps() -> Explorable:
    """Forecasts of made-up weather."""
    data, model = weather_data(), weather_model()
    found = draws("weather", model, data.test.frames, 8)
    mean, spread, of_samples = spread_of(found, model.likelihood)
    zero = torch.zeros_like(mean)
    return weather_map(
        data,
        {"point by point": mean, "climatology": zero},
        {"point by point": spread, "climatology": zero + 3.0},
        of_samples,
    )


def memory() -> Explorable:
    """Footprints of two networks, on torch's meta device."""
    found = {}
    for name, width in {"small": 64, "large": 4096}.items():
        with torch.device("meta"):
            net = mlp((64, width, width, 10))
        model = spnb.BayesianModel(net)
        x, y = torch.empty(16, 64, device="meta"), torch.empty(16, dtype=torch.long, device="meta")
        found[name] = footprint(spnb.MeanField(model), x, y)
    return memory_budget(found, ranks=8, samples=16, rows=16)


def board() -> Explorable:
    """Mean field against NUTS on the curve."""
    fits = Fits(curve_model, *record(), num_samples=DRAWS)
    train_, test = record()
    time = torch.cat([torch.linspace(1963.0, 1967.0, 60).double(), test.time])
    model = curve_model(PRIOR_SCALE, NOISE)
    methods = {}
    for method, name in {"mean field": "curve", "NUTS": "curve-nuts"}.items():
        fits.keep(
            method, PRIOR_SCALE, NOISE, stored(name, model).draw(range(DRAWS), spnb.Key(SEED))
        )
        methods[method] = Judged(fits.functions(method, PRIOR_SCALE, NOISE, time), {"fits": 1.0})

    def error(of: Tensor) -> float:
        ahead = of[:, 60:].mean(0) - test.values
        return math.sqrt(ahead.square().mean().item())

    def width(of: Tensor) -> float:
        return of[:, 60:].std(0, correction=0).mean().item()

    return comparison_board(
        methods,
        {"RMSE": Score("RMSE (ppm)", error), "spread": Score("spread (ppm)", width, best="high")},
        draw=lambda axes, of: draw_prediction(axes, train_, test, time, of, NOISE),
        samples=16,
    )


def troubles() -> Explorable:
    """Runs with too large and too small a step, and the same run mended."""
    data = datasets.digits()
    few, held_out = (data.train_x[:100], data.train_y[:100]), (data.test_x[:50], data.test_y[:50])

    def seen(rate: float) -> Symptoms:
        start = spnb.MeanField(digits_model(), init_scale=0.05)
        fitted = spnb.fit(
            start, few, learning_rate=rate, num_samples=2, batch_size=50, epochs=5, seed=SEED
        )
        return symptoms(fitted, few, held_out)

    mended = seen(0.01)
    return trouble_explorer(
        {"step too large": (seen(0.5), mended), "step too small": (seen(1e-5), mended)}
    )


# -- explorables on live workers -------------------------------------------------------------------


def batch(rows: int = 64) -> Data:
    """Some digits."""
    data = datasets.digits()
    return data.train_x[:rows].clone(), data.train_y[:rows].clone()


def lamp(pool: spnb.WorkerPool) -> Explorable:
    """Mistakes on live ranks."""
    model = spnb.BayesianModel(mlp((64, 8, 10)).double())
    x, y = batch()
    return equivalence_lamp(spnb.MeanField(model, init_scale=0.05), (x.double(), y), pool=pool)


def race(pool: spnb.WorkerPool) -> Explorable:
    """Two ways to share a step."""
    shared = {"share samples": TWO, "share rows": spnb.Layout(data=2)}
    load = {"MLP": (stored("digits", digits_model()), batch())}
    return race_board(pool, load, shared, samples=(1, 4, 8), seconds=0.3)


def timeline(pool: spnb.WorkerPool) -> Explorable:
    """A real step."""
    load = {"MLP": (stored("digits", digits_model()), batch())}
    return timeline_explorer(pool, load, samples=(2, 4, 8))


def failures(pool: spnb.WorkerPool) -> Explorable:
    """A rank that fails."""
    return failure_lab(pool)


def accidents(pool: spnb.WorkerPool) -> Explorable:
    """A run in which a rank dies."""
    start = spnb.MeanField(digits_model(), init_scale=0.05)
    options = {"num_samples": 4, "layout": TWO, "batch_size": 64, "epochs": 2, "seed": SEED}
    return accident_lab(pool, start, batch(256), learning_rate=0.01, **options)


ALONE: dict[str, Callable[[], Explorable]] = {
    "digits": digits,
    "posterior": posterior,
    "playground": Playground,
    "budget": budget,
    "tiles": tiles,
    "planner": planner,
    "bias": bias,
    "images": images,
    "fan": fan,
    "weather": maps,
    "memory": memory,
    "board": board,
    "troubles": troubles,
}
"""Those that this process computes alone, by their own names."""
ON_WORKERS: dict[str, Callable[[spnb.WorkerPool], Explorable]] = {
    "lamp": lamp,
    "race": race,
    "timeline": timeline,
    "failures": failures,
    "accidents": accidents,
}
"""Those that need live ranks."""


if __name__ == "__main__":
    store()
