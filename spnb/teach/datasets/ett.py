"""ETTh1: hourly load and oil temperature of an electricity transformer.

Cite: Zhou et al., *Informer*, AAAI 2021; CC BY-ND 4.0.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import datetime

import torch
from torch import Tensor

from spnb.teach.datasets.files import File, find

FILE = File(
    "ETTh1.csv",
    "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/"
    "1d16c8f4f943005d613b5bc962e9eeb06058cf07/ETT-small/ETTh1.csv",
    2.6,
    "sha256:f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
)


@dataclass(frozen=True)
class Table:
    """Several series over the same hours, without gaps.

    Attributes:
        start: the first hour, local time.
        values: ``[T, D]`` float64.
        names: of the columns.
        sentence: where they come from, one sentence.
    """

    start: datetime
    values: Tensor
    names: tuple[str, ...]
    sentence: str

    def column(self, name: str) -> Tensor:
        """One of the series, ``[T]``.

        Raises:
            ValueError: there is none of that name.
        """
        if name not in self.names:
            raise ValueError(f"There is no column '{name}'; there are {', '.join(self.names)}.")
        return self.values[:, self.names.index(name)]

    def __repr__(self) -> str:
        """Size and names."""
        return f"Table({len(self.values):,} hours of {', '.join(self.names)})"


def etth1() -> Table:
    """17,420 hours of six loads and, last, the oil temperature ``OT`` in °C, from July 2016.

    Raises:
        DataUnavailableError: the file cannot be had, or is damaged.
    """
    with find(FILE).open(newline="") as file:
        head, *lines = csv.reader(file)
    values = torch.tensor([[float(v) for v in line[1:]] for line in lines], dtype=torch.float64)
    return Table(
        datetime.fromisoformat(lines[0][0]),
        values,
        tuple(head[1:]),
        sentence="Hourly loads and oil temperature of an electricity transformer in China, from "
        "July 2016 to June 2018 (ETTh1, H. Zhou et al., 2021, CC BY-ND 4.0).",
    )
