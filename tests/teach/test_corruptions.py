"""Corruptions: nothing at strength 0, known results at others."""

from __future__ import annotations

import pytest
import torch

from spnb.teach.corruptions import CORRUPTIONS, corrupt

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_strength_zero_changes_nothing_and_more_changes_more(kind: str) -> None:
    torch.testing.assert_close(corrupt(IMAGES, kind, 0.0), IMAGES, atol=1e-5, rtol=0)
    changes = [(corrupt(IMAGES, kind, s) - IMAGES).abs().mean() for s in (0.1, 0.5, 1.0)]
    assert 0 < changes[0] <= changes[1]
    worst = corrupt(IMAGES, kind, 1.0)
    assert worst.shape == IMAGES.shape and 0 <= worst.min() and worst.max() <= 1 + 1e-6
    assert torch.equal(worst, corrupt(IMAGES, kind, 1.0)), "the same each time"


def test_half_a_turn_turns_upside_down() -> None:
    torch.testing.assert_close(
        corrupt(IMAGES, "rotation", 1.0), IMAGES.flip(2, 3), atol=1e-4, rtol=0
    )
    quarter = corrupt(IMAGES, "rotation", 0.5)
    torch.testing.assert_close(quarter, IMAGES.rot90(1, (2, 3)), atol=1e-4, rtol=0)


def test_a_blur_keeps_what_is_even_and_the_mean_of_a_point() -> None:
    even = torch.full((1, 3, 32, 32), 0.3)
    torch.testing.assert_close(corrupt(even, "blur", 0.7), even)
    point = torch.zeros(1, 3, 32, 32)
    point[:, :, 16, 16] = 1
    spread = corrupt(point, "blur", 0.25)  # one pixel of standard deviation
    assert spread.sum().item() == pytest.approx(3, rel=1e-3)
    assert spread[0, 0, 16, 17] / spread[0, 0, 16, 16] == pytest.approx(0.6065, rel=1e-3)


def test_darkness_and_noise() -> None:
    torch.testing.assert_close(corrupt(IMAGES, "darkness", 1.0), 0.05 * IMAGES)
    grey = torch.full((1, 3, 32, 32), 0.5)
    assert (corrupt(grey, "noise", 0.25) - grey).std() == pytest.approx(0.1, rel=0.05)


def test_bad_requests() -> None:
    with pytest.raises(ValueError, match="there are noise, blur, rotation, darkness"):
        corrupt(IMAGES, "fog", 0.5)
    with pytest.raises(ValueError, match="strength=1.5"):
        corrupt(IMAGES, "noise", 1.5)
