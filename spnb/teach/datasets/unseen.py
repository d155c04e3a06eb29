"""Images that a net for CIFAR-10 has never seen the like of: it should not be sure of any class."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from spnb.teach.datasets.files import File, find, present
from spnb.teach.datasets.images import digits

HANDS = File(
    "sign_digits_32x32.npz",
    None,
    5,
    "sha256:8150ea8824b0e3dca8b44722f6145d0697d99f001f8343b97717b85aa6150a9f",
    instead="use spnb.teach.datasets.strangers(), which takes handwritten digits in its place",
)


def hands() -> Tensor:
    """2,062 photographs of hands that sign digits, float32 ``[2062, 3, 32, 32]`` in [0, 1].

    Cite: A. Mavi, *A New Dataset and Proposed Convolutional Neural Network Architecture for
    Classification of American Sign Language Digits*, arXiv 2011.08927 (Apache-2.0).

    Raises:
        DataUnavailableError: the file is not there, or is damaged.
    """
    with np.load(find(HANDS), allow_pickle=False) as file:
        pixels = torch.from_numpy(file["x"])  # bytes, channels last
    return pixels.permute(0, 3, 1, 2).contiguous().float().div_(255)


def strangers() -> tuple[Tensor, str]:
    """Images of something else for a net that knows CIFAR-10, and what they are, one sentence.

    The hands if they are on this machine; otherwise scikit-learn's handwritten digits, enlarged and
    grey. Float32 ``[N, 3, 32, 32]`` in [0, 1] in either case, with N = 2062 or 1797.

    Raises:
        DataUnavailableError: the file of the hands is there, but damaged.
    """
    if present(HANDS):
        return hands(), "Photographs of hands that sign digits (A. Mavi, 2020)."
    small = digits(flat=False)
    large = interpolate(torch.cat([small.train_x, small.test_x]), scale_factor=4)
    return large.expand(-1, 3, -1, -1).contiguous(), (
        "Handwritten digits (from scikit-learn), enlarged, since the photographs of hands are not "
        "on this machine."
    )
