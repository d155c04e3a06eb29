"""Air temperature over North America: six-hourly fields of the NCEP/NCAR reanalysis.

Cite: Kalnay et al., *The NCEP/NCAR 40-Year Reanalysis Project*, 1996; data of NOAA PSL.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec

import torch
from torch import Tensor

from spnb.teach.datasets.files import File, find

FILE = File(
    "air_temperature.nc",
    "https://github.com/pydata/xarray-data/raw/master/air_temperature.nc",
    7.8,
    "md5:de5b9d45db48cf6b7034de1a4a6d6c98",
    others=("sha256:0541ab65ea6d00897d72bb2c4188e11d5a496139e2c5ed1e7475c2301ab4008d",),
)
STEP = timedelta(hours=6)
"""From one field to the next."""


@dataclass(frozen=True)
class Fields:
    """Fields on a grid of latitudes and longitudes, one every six hours.

    Attributes:
        start: when the first one is valid, UTC.
        values: ``[T, H, W]`` float32.
        latitude: of the rows, in degrees north, ``[H]``, from north to south.
        longitude: of the columns, in degrees east, ``[W]``.
        unit: of the values.
        sentence: where they come from, one sentence.
    """

    start: datetime
    values: Tensor
    latitude: Tensor
    longitude: Tensor
    unit: str
    sentence: str

    def __len__(self) -> int:
        """Number of fields."""
        return len(self.values)

    def index(self, year: int, month: int, day: int = 1) -> int:
        """The position of the field at midnight UTC; that after the last one has one, too.

        Raises:
            ValueError: the fields do not go that far.
        """
        when = datetime(year, month, day, tzinfo=UTC)
        position = (when - self.start) / STEP
        if not (position.is_integer() and 0 <= position <= len(self)):
            raise ValueError(f"{when} is none of the {len(self):,} times in {self}.")
        return int(position)

    def between(self, first: int, last: int) -> Fields:
        """The fields from one position to before another.

        Raises:
            ValueError: the positions do not lie within the record, in this order.
        """
        if not 0 <= first < last <= len(self):
            raise ValueError(f"No fields from {first} to before {last} in {self}.")
        return replace(self, start=self.start + first * STEP, values=self.values[first:last])

    @property
    def area(self) -> Tensor:
        """Weight of each row: the area of its cells, with mean 1, ``[H, 1]`` float32."""
        weights = (self.latitude.double() * math.pi / 180).cos()
        return (weights / weights.mean()).float().unsqueeze(1)

    def __repr__(self) -> str:
        """Size, grid and period."""
        rows, columns = self.values.shape[1:]
        return f"Fields({len(self):,} of {rows}x{columns} in {self.unit} from {self.start:%F %Hh})"


def air_temperature() -> Fields:
    """2,920 fields of 25 by 53 points, 2013 and 2014, in kelvin, near the ground.

    At sigma level 0.995, on a grid of 2.5 degrees from 75° N to 15° N and 160° W to 30° W.

    Raises:
        DataUnavailableError: the file cannot be had, or is damaged.
        ModuleNotFoundError: xarray is not installed.
    """
    if find_spec("xarray") is None:
        raise ModuleNotFoundError(
            "The fields are a NetCDF file and need xarray: `pip install 'spnb[lab]'` brings it."
        )
    import xarray  # slow to import, so only where it is used

    with xarray.open_dataset(find(FILE), engine="scipy", decode_timedelta=False) as file:
        air = file["air"].transpose("time", "lat", "lon").load()
    return Fields(
        datetime.fromisoformat(str(air.time.values[0])[:19]).replace(tzinfo=UTC),
        torch.tensor(air.values, dtype=torch.float32),
        torch.tensor(air.lat.values, dtype=torch.float32),
        torch.tensor(air.lon.values, dtype=torch.float32),
        unit="K",
        sentence="Air temperature near the ground over North America, every six hours of 2013 and "
        "2014 (NCEP/NCAR reanalysis, Kalnay et al. 1996; NOAA PSL).",
    )
