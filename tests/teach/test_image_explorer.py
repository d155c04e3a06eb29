"""The image explorer: its words follow the state, and the picture the corruption."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from spnb.teach.corruptions import corrupt
from spnb.teach.explorable import Explorable
from spnb.teach.explore.images import doubts, image_explorer

NAMES = ("dark", "bright")


def by_light(images: Tensor) -> Tensor:
    """Four samples: what they think follows from the brightness."""
    bright = images.mean((1, 2, 3))
    p = torch.stack([bright, bright, bright, 1 - bright])
    return torch.stack([1 - p, p], -1)


@pytest.fixture
def explorer() -> Explorable:
    images = torch.stack([torch.full((3, 32, 32), 0.2), torch.full((3, 32, 32), 0.9)])
    return image_explorer(images, torch.tensor([0, 1]), NAMES, by_light)


def test_doubts_against_closed_forms() -> None:
    apart = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert doubts(apart) == pytest.approx((math.log(2), math.log(2)))
    assert doubts(torch.full((5, 4), 0.25)) == pytest.approx((math.log(4), 0.0))


def test_the_summary_follows_the_state(explorer: Explorable) -> None:
    assert "class dark, noise 0.00. The model says dark with 65%; 3 of 4" in explorer.summary
    explorer.set(image=1, corruption="darkness", strength=0.5)
    assert explorer.error is None
    seen = by_light(corrupt(torch.full((1, 3, 32, 32), 0.9), "darkness", 0.5))[:, 0].double()
    total, between = doubts(seen)
    assert "class bright, darkness 0.50" in explorer.summary
    assert f"Uncertainty {total:.2f} nats, of which {between:.2f}" in explorer.summary


def test_what_is_drawn_is_what_was_predicted(explorer: Explorable) -> None:
    explorer.set(image=1, corruption="darkness", strength=1.0)
    left, right = explorer.figure.axes
    shown = torch.as_tensor(left.images[0].get_array())
    torch.testing.assert_close(shown, torch.full((32, 32, 3), 0.9 * 0.05))
    widths = [bar.get_width() for bar in right.patches]
    assert widths == pytest.approx(by_light(shown.movedim(-1, 0)[None]).mean((0, 1)).tolist())
    assert len(right.lines) == 4 and right.get_legend().get_texts()[0].get_text() == "4 samples"


def test_labels_need_names() -> None:
    images = torch.zeros(2, 3, 32, 32)
    with pytest.raises(ValueError, match="Label 2 has no name: there are 2 names"):
        image_explorer(images, torch.tensor([0, 2]), NAMES, by_light)
    with pytest.raises(ValueError, match="2 images and 1 labels"):
        image_explorer(images, torch.tensor([0]), NAMES, by_light)
