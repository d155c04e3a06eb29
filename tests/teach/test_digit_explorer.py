"""The digit explorer: rotation, entropies, and a figure that follows its sliders."""

from __future__ import annotations

import math

import pytest
import torch

from spnb.teach.explore.digits import digit_explorer, entropies, rotate


def test_rotation_turns_anticlockwise_about_the_centre() -> None:
    image = torch.zeros(1, 8, 8)
    image[0, 3, 6] = 1.0  # right of the centre
    assert torch.allclose(rotate(image, 0), image, atol=1e-6)
    quarter = rotate(image, 90)
    assert torch.allclose(quarter, torch.rot90(image, 1, (1, 2)), atol=1e-5)
    assert torch.allclose(rotate(image, 180), image.flip(1, 2), atol=1e-5)


def test_entropies_separate_doubt_from_disagreement() -> None:
    agree = torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    total, epistemic = entropies(agree)
    assert total == pytest.approx(math.log(2)) and epistemic == pytest.approx(0, abs=1e-6)
    total, epistemic = entropies(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert total == pytest.approx(math.log(2)) and epistemic == pytest.approx(math.log(2))


def test_the_figure_follows() -> None:
    images, labels = torch.rand(2, 3, 8, 8), torch.tensor([0, 1, 2])
    logits = torch.randn(5, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    explorer = digit_explorer(images, labels, [0, 90], logits.softmax(-1))
    assert explorer.summary.startswith("This 0, turned by 0°")
    before = explorer.png
    explorer.set(digit=2, angle=90)
    assert explorer.summary.startswith("This 2, turned by 90°") and explorer.png != before
    assert explorer.error is None


def test_shapes_must_fit() -> None:
    with pytest.raises(ValueError, match="do not fit each other"):
        digit_explorer(torch.rand(2, 3, 8, 8), torch.zeros(3), [0], torch.rand(5, 2, 3, 4))
