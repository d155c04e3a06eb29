"""Data sets of the course that come inside installed packages, so they are there without network.

Scalings are computed from the training part alone: what a model is judged on must not have told
it anything beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from spnb.parallel.keyed import Key

SPLIT_SEED = 2604


@dataclass(frozen=True)
class Scaling:
    """Numbers of a data set to numbers near zero and of size one, and back.

    Attributes:
        offset: what becomes zero, in the data's unit.
        scale: what becomes one, in the data's unit.
    """

    offset: float
    scale: float

    @classmethod
    def of(cls, values: Tensor) -> Scaling:
        """The scaling that gives some (training) values mean 0 and standard deviation 1."""
        return cls(values.mean().item(), values.std().item())

    def apply(self, values: Tensor) -> Tensor:
        """Scaled values, float32, of the same shape."""
        return ((values.double() - self.offset) / self.scale).float()

    def undo(self, scaled: Tensor) -> Tensor:
        """Values in the data's unit, of the same shape."""
        return scaled * self.scale + self.offset


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


@dataclass(frozen=True)
class Images:
    """Labelled images, split once and for all.

    Attributes:
        train_x: float32 in [0, 1].
        train_y: classes, int64.
        test_x: float32 in [0, 1].
        test_y: classes, int64.
        classes: number of classes.
        unit: of the pixels.
        sentence: where they come from, one sentence.
    """

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: int
    unit: str
    sentence: str

    @property
    def train(self) -> tuple[Tensor, Tensor]:
        """Training images and labels, as `spnb.fit` takes them."""
        return self.train_x, self.train_y

    @property
    def test(self) -> tuple[Tensor, Tensor]:
        """Test images and labels."""
        return self.test_x, self.test_y

    def __repr__(self) -> str:
        """Sizes."""
        shape = "x".join(str(n) for n in self.train_x.shape[1:])
        return f"Images({len(self.train_x)} to train, {len(self.test_x)} to test, each {shape})"


def digits(flat: bool = True, num_test: int = 360) -> Images:
    """Handwritten digits of 8 by 8 pixels, from scikit-learn: 1797 images, 10 classes.

    Which images are for testing is drawn from a fixed seed of the course, so every notebook and
    every machine has the same split. Pixels, 0 to 16 in the file, are divided by 16: nothing is
    fitted.

    Args:
        flat: images as ``[N, 64]``; otherwise ``[N, 1, 8, 8]``.
        num_test: images for testing; the rest, 1437 by default, is for training.

    Raises:
        ValueError: there would be nothing left to train or to test on.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = torch.tensor(bunch.data, dtype=torch.float32) / 16
    y = torch.tensor(bunch.target, dtype=torch.int64)
    if not 0 < num_test < len(x):
        raise ValueError(f"num_test={num_test} must lie between 1 and {len(x) - 1}.")
    x = x if flat else x.view(-1, 1, 8, 8)
    order = torch.randperm(len(x), generator=Key(SPLIT_SEED).fold("digits").generator())
    test, train = order[:num_test], order[num_test:]
    return Images(
        x[train],
        y[train],
        x[test],
        y[test],
        classes=10,
        unit="ink, 0 (white) to 1 (black)",
        sentence="Handwritten digits of 8 by 8 pixels (E. Alpaydin and C. Kaynak, 1998, UCI "
        "Machine Learning Repository; the part of them that comes with scikit-learn).",
    )
