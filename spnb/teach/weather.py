r"""Forecasts of air temperature for one, two and three days, and simple ones to be held against.

From three fields, six hours apart, follow the fields 24, 48 and 72 hours after the last. A forecast
works on *anomalies*, departures from the climatology

.. math:: c(x, t) = \sum_{j, k} a_{jk}(x)\, d_j(t)\, h_k(t)

with harmonics :math:`d` of the day of the year and :math:`h` of the hour of the day, fitted by
least squares. All that is estimated, this climatology included, comes from the training part; parts
follow each other in time, and between them some days are left out that would know of each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

import torch
from torch import Tensor

from spnb.teach.datasets import Fields, air_temperature
from spnb.teach.datasets.air import STEP

LEADS = (24, 48, 72)
"""Lead times in hours."""
AHEAD = tuple(timedelta(hours=lead) // STEP for lead in LEADS)
"""The same in fields."""
FRAMES = 3
"""Fields that a forecast sees, the last of them at the time of the forecast."""
GAP = 24
"""Fields left out between the parts, six days: what is three days apart still correlates by 0.3."""
HARMONICS = 1
"""Of the year: with more, the climatology of a single year takes its weather for usual."""
PENALTIES = tuple(10 ** (n / 4) for n in range(16, 30))
"""Penalties of the ridge regression to choose from, in K²."""


@dataclass(frozen=True)
class Part:
    """Forecasts of one stretch of time: N times of forecast on a grid of H by W points.

    Attributes:
        values: all fields, in kelvin, ``[T, H, W]``.
        usual: the climatology at the same times, likewise.
        times: positions of the last field that is known, ``[N]``.
    """

    values: Tensor
    usual: Tensor
    times: Tensor

    def __len__(self) -> int:
        """Number of forecasts."""
        return len(self.times)

    @property
    def inputs(self) -> Tensor:
        """All that is known as vectors, in kelvin, ``[N, FRAMES H W]`` float64."""
        return self.frames.double().flatten(1)

    @cached_property
    def frames(self) -> Tensor:
        """Anomalies that are known, the last one first, in kelvin, ``[N, FRAMES, H, W]``."""
        when = self.times.unsqueeze(1) - torch.arange(FRAMES)
        return self.values[when] - self.usual[when]

    @cached_property
    def expected(self) -> Tensor:
        """Climatology at the lead times, in kelvin, ``[N, LEADS, H, W]``."""
        return self.usual[self._ahead]

    @cached_property
    def targets(self) -> Tensor:
        """Fields at the lead times, in kelvin, ``[N, LEADS, H, W]``."""
        return self.values[self._ahead]

    @cached_property
    def anomalies(self) -> Tensor:
        """What is to be forecast: targets less climatology, in kelvin, ``[N, LEADS, H, W]``."""
        return self.targets - self.expected

    @property
    def _ahead(self) -> Tensor:
        return self.times.unsqueeze(1) + torch.tensor(AHEAD)


Forecast = Callable[[Part], Tensor]
"""A forecast of the anomalies at the lead times, in kelvin, ``[N, LEADS, H, W]``."""


@dataclass(frozen=True)
class Weather:
    """The forecasts to learn from, to choose by, and to be judged on.

    Attributes:
        fields: the fields.
        train: January 2013 to March 2014.
        validation: April to June 2014.
        test: July to December 2014.
    """

    fields: Fields
    train: Part
    validation: Part
    test: Part

    @property
    def area(self) -> Tensor:
        """Weight of each row, ``[H, 1]``."""
        return self.fields.area

    @cached_property
    def modes(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues ``[N]`` and -vectors ``[N, N]`` of the products of all training inputs."""
        inputs = self.train.inputs
        values, vectors = torch.linalg.eigh(inputs @ inputs.T)
        return values, vectors

    @cached_property
    def places(self) -> Tensor:
        """What tells places apart, in numbers of size one, ``[4, H, W]``.

        Latitude and longitude, how large anomalies are there, and how large the usual difference
        of day and night is, small over the sea.
        """
        rows, columns = self.train.values.shape[1:]
        north = torch.linspace(1, -1, rows).unsqueeze(1).expand(rows, columns)
        east = torch.linspace(-1, 1, columns).expand(rows, columns)
        size = self.train.frames.square().mean((0, 1)).log() / 2
        first = self.train.usual[: timedelta(days=365) // STEP].unflatten(0, (365, -1))
        daily = (first.amax(1) - first.amin(1)).mean(0)
        others = [(field - field.mean()) / field.std() for field in (size, daily)]
        return torch.stack([north, east, *others])


def weather(every: int = 1, fields: Fields | None = None) -> Weather:
    """The forecasts of 2013 and 2014.

    Args:
        every: learn from, and choose by, only one in so many, for a quick run.
        fields: of these two years; None: the air temperature.

    Raises:
        DataUnavailableError: the file cannot be had.
    """
    fields = air_temperature() if fields is None else fields
    ends = (0, fields.index(2014, 4), fields.index(2014, 7), len(fields))
    usual = climatology(fields.values, ends[1])
    parts = []
    for number, (first, last) in enumerate(zip(ends, ends[1:], strict=False)):
        first += FRAMES - 1 + (GAP if number else 0)
        step = 1 if number == 2 else every
        parts.append(Part(fields.values, usual, torch.arange(first, last - max(AHEAD), step)))
    return Weather(fields, *parts)


def climatology(values: Tensor, num_train: int, harmonics: int = HARMONICS) -> Tensor:
    """What is usual at each place, day of the year and hour of the day.

    Args:
        values: fields every six hours from the beginning of a year, ``[T, H, W]``.
        num_train: how many of them, from the first, it is estimated from.
        harmonics: of the year; those of the day are as many as four hours a day can tell.

    Returns:
        The same for all times, ``[T, H, W]``.
    """
    days = torch.arange(len(values), dtype=torch.float64) * (STEP / timedelta(days=1))
    year = _waves(days / 365.2425, harmonics)
    day = _waves(days, 2)[:, :-1]  # the fourth wave is zero at all four hours
    terms = (year.unsqueeze(2) * day.unsqueeze(1)).flatten(1)  # [T, terms]
    known = values[:num_train].double().flatten(1)
    factors = torch.linalg.lstsq(terms[:num_train], known).solution
    return (terms @ factors).view_as(values).float()


def _waves(turns: Tensor, number: int) -> Tensor:
    """One, and cosines and sines of the first multiples of an angle, ``[T, 1 + 2 number]``."""
    angles = 2 * math.pi * turns.unsqueeze(1) * torch.arange(1, number + 1)
    waves = torch.stack([angles.cos(), angles.sin()], 2).flatten(1)
    return torch.cat([torch.ones_like(waves[:, :1]), waves], 1)


def baselines(data: Weather) -> dict[str, Forecast]:
    """The simple forecasts, by name; what they estimate is estimated here.

    ``persistence``: all stays as it is. ``climatology``: all is as usual. ``damped persistence``:
    of an anomaly stays what on average does, at each place. ``ridge``: linear regression.
    ``damped ridge``: the same of what damped persistence leaves to be explained.
    """
    damped = Damped(data.train)
    return {
        "persistence": persistence,
        "climatology": as_usual,
        "damped persistence": damped,
        "ridge": Ridge(data, as_usual),
        "damped ridge": Ridge(data, damped),
    }


def persistence(part: Part) -> Tensor:
    """All stays as it is now."""
    return part.values[part.times].unsqueeze(1) - part.expected


def as_usual(part: Part) -> Tensor:
    """No anomalies."""
    return torch.zeros_like(part.expected)


class Damped:
    """Of an anomaly stays what on average does, at each place after each lead time.

    Args:
        train: what to estimate it from.

    Attributes:
        left: this part, ``[LEADS, H, W]``.
    """

    def __init__(self, train: Part) -> None:
        last = train.frames[:, :1]
        self.left = (last * train.anomalies).mean(0) / last.square().mean(0)

    def __call__(self, part: Part) -> Tensor:
        """The forecast."""
        return self.left * part.frames[:, :1]


class Ridge:
    r"""Linear regression on all points of all frames, of what another forecast leaves.

    .. math:: \min_A \|Y - X A\|^2 + \lambda \|A\|^2 \quad\Rightarrow\quad
              x A = x X^\top (X X^\top + \lambda I)^{-1} Y,

    with one penalty a lead time, the best in the validation part. The larger it is, the closer the
    forecast to the one it starts from.

    Args:
        data: training and validation part are used.
        start: the forecast to improve on.

    Attributes:
        penalties: :math:`\lambda` of each lead time, in K².
    """

    def __init__(self, data: Weather, start: Forecast) -> None:
        self.start = start
        self._inputs = data.train.inputs  # X
        wanted, held_out = (
            (part.anomalies - start(part)).double() for part in (data.train, data.validation)
        )
        values, vectors = data.modes
        wanted = (vectors.T @ wanted.flatten(1)).view_as(wanted)
        seen = data.validation.inputs @ self._inputs.T @ vectors
        errors = []
        for penalty in PENALTIES:
            found = (seen / (values + penalty)) @ wanted.flatten(1)
            missed = (found.view_as(held_out) - held_out).square() * data.area
            errors.append(missed.mean((0, 2, 3)))
        best = torch.stack(errors).argmin(0)
        self.penalties = tuple(PENALTIES[index] for index in best)
        damped = 1 / (values.unsqueeze(1) + torch.tensor(self.penalties))  # [N, LEADS]
        self._weights = vectors @ (wanted * damped[:, :, None, None]).flatten(1)

    def __call__(self, part: Part) -> Tensor:
        """The forecast."""
        found = part.inputs @ self._inputs.T @ self._weights
        return self.start(part) + found.view(part.expected.shape).float()
