"""Images of something else: the hands, and the digits in their place."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from spnb.teach.datasets import DataUnavailableError, digits, hands, strangers, unseen

from .conftest import sentence


def test_the_file_holds_bytes_with_channels_last(real: Path) -> None:
    with np.load(real / unseen.HANDS.name, allow_pickle=False) as file:
        assert file["x"].shape == (2062, 32, 32, 3) and file["x"].dtype == np.uint8
        assert sorted(set(file["y"].tolist())) == list(range(10))
        x = hands()
        assert x[7, 2, 30, 4].item() == pytest.approx(file["x"][7, 30, 4, 2] / 255)


def test_the_hands_are_photographs_of_the_size_of_cifars(real: Path) -> None:
    x = hands()
    assert x.shape == (2062, 3, 32, 32) and x.dtype == torch.float32 and x.is_contiguous()
    assert x.min() >= 0 and x.max() == 1
    assert (x[:, 0] != x[:, 2]).float().mean() > 0.5, "in colour"
    found, what = strangers()
    assert torch.equal(found, x) and what.startswith("Photographs of hands")


def test_without_the_hands_there_are_digits() -> None:
    x, what = strangers()
    assert x.shape == (1797, 3, 32, 32) and x.dtype == torch.float32 and x.is_contiguous()
    assert (x.min(), x.max()) == (0, 1)
    assert torch.equal(x[5, 1, ::4, 3::4], digits(flat=False).train_x[5, 0]), "each pixel 4 by 4"
    assert "digits" in what and "not on this machine" in what


def test_without_the_hands_they_are_not_made_up(cache: Path) -> None:
    with pytest.raises(DataUnavailableError) as raised:
        hands()
    text = sentence(raised)
    assert unseen.HANDS.name in text and str(cache) in text and "strangers()" in text


def test_damaged_hands_are_not_replaced_in_silence(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.mkdir()
    (cache / unseen.HANDS.name).write_bytes(b"no hands")
    with pytest.raises(DataUnavailableError, match=hashlib.sha256(b"no hands").hexdigest()[:12]):
        strangers()
