"""Carbon dioxide in the air at Mauna Loa: a series with gaps, which comes with the course."""

from __future__ import annotations

import csv
from calendar import isleap
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import torch
from torch import Tensor

NAME = "mauna_loa_co2.csv"
"""The record: a line a week, with nothing behind the comma where nothing was measured."""


@dataclass(frozen=True)
class Series:
    """A record over time, with gaps.

    Attributes:
        time: when, in decimal years, ``[N]`` float64, ascending; observed weeks only.
        values: what was measured, ``[N]`` float64.
        missing: the weeks without a value, in decimal years, ``[M]``.
        unit: of the values.
        period: from when to when the whole record goes.
        sentence: where it comes from, one sentence.
    """

    time: Tensor
    values: Tensor
    missing: Tensor
    unit: str
    period: str
    sentence: str

    def __len__(self) -> int:
        """Number of observed weeks."""
        return len(self.time)

    def between(self, start: float, stop: float) -> Series:
        """The stretch from ``start`` to before ``stop``, in decimal years."""

        def inside(time: Tensor) -> Tensor:
            return (time >= start) & (time < stop)

        kept = inside(self.time)
        return replace(
            self,
            time=self.time[kept],
            values=self.values[kept],
            missing=self.missing[inside(self.missing)],
        )

    def gaps(self) -> list[tuple[float, float]]:
        """Each run of missing weeks, as its first and last week in decimal years."""
        runs: list[tuple[float, float]] = []
        for week in self.missing.tolist():
            if runs and week - runs[-1][1] < 1.5 * 7 / 365.25:
                runs[-1] = (runs[-1][0], week)
            else:
                runs.append((week, week))
        return runs

    def __repr__(self) -> str:
        """Size, unit and period."""
        return f"Series({len(self)} values in {self.unit}, {len(self.missing)} weeks missing)"


def co2() -> Series:
    """Weekly means of atmospheric CO2 at Mauna Loa, March 1958 to December 2001, with its gaps.

    Mole fractions in ppm: molecules of CO2 in a million molecules of dry air. In 59 of 2284 weeks
    the observatory measured nothing; the longest gap has 18 weeks, from January to May 1964. The
    record is in the public domain and comes with the course.
    """
    with _path().open(newline="", encoding="utf-8") as file:
        weeks = [(row["date"], row["co2"]) for row in csv.DictReader(file)]
    years = torch.tensor([_decimal(day) for day, _ in weeks], dtype=torch.float64)
    values = torch.tensor([float(value or "nan") for _, value in weeks], dtype=torch.float64)
    seen = ~values.isnan()
    return Series(
        years[seen],
        values[seen],
        years[~seen],
        unit="ppm",
        period="March 1958 to December 2001",
        sentence="Weekly means of CO2 in the air at Mauna Loa, Hawaii, in ppm, measured by the "
        "Scripps Institution of Oceanography (C. D. Keeling and T. P. Whorf, 2004); in the public "
        "domain.",
    )


def _path() -> Path:
    """Where the record is: beside this module if it was installed, in ``data`` in a checkout."""
    installed = Path(__file__).with_name(NAME)
    return installed if installed.is_file() else Path(__file__).parents[3] / "data" / NAME


def _decimal(day: str) -> float:
    """A day such as ``1958-03-29`` in decimal years."""
    when = date.fromisoformat(day)
    return when.year + (when.timetuple().tm_yday - 1) / (365 + isleap(when.year))
