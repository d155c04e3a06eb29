"""Labelled images, split once and for all, and scikit-learn's digits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spnb.parallel.keyed import Key

SPLIT_SEED = 2604


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
        names: of the classes, if they are not numbers.
    """

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: int
    unit: str
    sentence: str
    names: tuple[str, ...] = ()

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
