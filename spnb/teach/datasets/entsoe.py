"""Electricity load of France, hourly, with the grid operator's own forecast of the day before.

Source: ENTSO-E Transparency Platform, CC BY 4.0, as published in the repository
probabl-ai/forecasting.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import torch
from torch import Tensor

from spnb.teach.datasets.files import File, find

_REPOSITORY = (
    "https://raw.githubusercontent.com/probabl-ai/forecasting/"
    "007f29a1915258788bd11d5bd612f0177c295599/content/datasets/"
)
_CHECKSUMS = {
    2021: "31a20667cbdb4f41dc9fe33b361721c3dfc777d1f6dba75c0e2d991270669d3d",
    2022: "9f47627aa23a500f8fd09fb8136ae375be41102a15bccdc21b10997a6531450f",
    2023: "4197366bb1238c95436c11588dd95d0c56a51868929205e0ce119b5f8ece0478",
    2024: "51b3f747818f6d8c3a788ca7b01573b7542e75078d4fc0742509b00df82294a8",
}
FILES = {
    year: File(
        f"entsoe_FR_load_{year}.csv",
        _REPOSITORY
        + quote(f"Total Load - Day Ahead _ Actual_{year}01010000-{year + 1}01010000.csv"),
        0.5,
        f"sha256:{checksum}",
    )
    for year, checksum in _CHECKSUMS.items()
}
MISSING = ("-", "N/A", "n/e")
"""What an export says in place of a value."""

HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Load:
    """Electricity load over a stretch of hours without a break.

    Attributes:
        start: the first hour, UTC.
        actual: what was consumed in each hour, in MW, ``[T]`` float64; nan where not recorded.
        operator: what the grid operator expected the day before, in MW, likewise.
        unit: of the values.
        sentence: where it comes from, one sentence.
    """

    start: datetime
    actual: Tensor
    operator: Tensor
    unit: str
    sentence: str

    def __len__(self) -> int:
        """Number of hours."""
        return len(self.actual)

    def index(self, when: datetime) -> int:
        """The position of an hour; that after the last one has one, too, for slices.

        Raises:
            ValueError: it has no time zone, is no full hour, or is not in the record.
        """
        if when.tzinfo is None:
            raise ValueError(f"{when} has no time zone: give datetime(..., tzinfo=UTC).")
        hours = (when - self.start) / HOUR
        if not (hours.is_integer() and 0 <= hours <= len(self)):
            raise ValueError(
                f"{when} is none of the {len(self):,} full hours from {self.start} on."
            )
        return int(hours)

    def when(self, index: int) -> datetime:
        """The hour at a position, UTC."""
        return self.start + index * HOUR

    def __repr__(self) -> str:
        """Size and gaps."""
        missing = int(self.actual.isnan().sum())
        return f"Load({len(self):,} hours from {self.start:%Y-%m-%d}, {missing} missing, in MW)"


def load() -> Load:
    """French electricity load of 2021–2024: 35,064 hours, of which 37 miss the actual load.

    The operator's forecast has no gaps. On the last day of 2024 the file turns to quarters of an
    hour, all four of which repeat the hour's value until 23:00; of each hour the first one is read.

    Raises:
        DataUnavailableError: a file cannot be had, or is damaged.
    """
    start = datetime(min(FILES), 1, 1, tzinfo=UTC)
    hours = round((datetime(max(FILES) + 1, 1, 1, tzinfo=UTC) - start) / HOUR)
    rows = [[math.nan, math.nan]] * hours
    for file in FILES.values():
        for when, values in _rows(find(file)):
            if when.minute == 0:
                rows[round((when - start) / HOUR)] = values
    table = torch.tensor(rows, dtype=torch.float64)
    return Load(
        start,
        actual=table[:, 1],
        operator=table[:, 0],
        unit="MW",
        sentence="Hourly electricity load of France, 2021–2024, and the grid operator's day-ahead "
        "forecast (ENTSO-E Transparency Platform, CC BY 4.0).",
    )


def _rows(path: Path) -> list[tuple[datetime, list[float]]]:
    """Begin of the hour, forecast and actual load of each line of a file."""
    with path.open(newline="", encoding="utf-8") as file:
        _, *lines = csv.reader(file)
    return [
        (
            datetime.strptime(time.split(" - ")[0], "%d.%m.%Y %H:%M").replace(tzinfo=UTC),
            [math.nan if value in MISSING else float(value) for value in values],
        )
        for time, *values in lines
    ]
