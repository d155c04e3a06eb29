"""Carbon dioxide in the air at Mauna Loa: a series with gaps, which comes with statsmodels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


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
    file comes with statsmodels and is in the public domain.
    """
    from statsmodels.datasets import co2 as package

    column = package.load_pandas().data["co2"]
    index = column.index
    days = 365 + index.is_leap_year
    years = torch.tensor((index.year + (index.day_of_year - 1) / days).to_numpy())
    values = torch.tensor(column.to_numpy())
    seen = ~values.isnan()
    return Series(
        years[seen],
        values[seen],
        years[~seen],
        unit="ppm",
        period="March 1958 to December 2001",
        sentence="Weekly means of CO2 in the air at Mauna Loa, Hawaii, in ppm, measured by the "
        "Scripps Institution of Oceanography (C. D. Keeling and T. P. Whorf, 2004); the file comes "
        "with statsmodels.",
    )
