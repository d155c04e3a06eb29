"""The course's networks: shapes, counts, and what they compute."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spnb.maths.networks import ViT, mlp, patches, sine_cosine


def test_an_mlp_has_no_activation_at_its_end() -> None:
    net = mlp((3, 5, 2), nn.ReLU)
    assert [type(layer).__name__ for layer in net] == ["Linear", "ReLU", "Linear"]
    with pytest.raises(ValueError, match=r"sizes=\[3\]"):
        mlp((3,))


@pytest.mark.parametrize(
    ("options", "count"),
    [({}, 451_978), ({"dim": 192, "depth": 6, "hidden": 768}, 2_676_778)],
)
def test_a_vit_has_the_documented_size(options: dict[str, int], count: int) -> None:
    net = ViT(**options)
    assert sum(p.numel() for p in net.parameters()) == count
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_a_vit_knows_where_a_patch_is() -> None:
    torch.manual_seed(0)
    net = ViT(image_size=8, dim=24, depth=1, hidden=8)
    x = torch.randn(1, 3, 8, 8)
    moved = x.roll(4, 3)
    assert (net(x) - net(moved)).abs().max() > 1e-4
    net.positions.zero_()
    torch.testing.assert_close(net(x), net(moved))


def test_positions_are_added_to_patches() -> None:
    net, seen = ViT(image_size=8, dim=12, depth=1), []
    net.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = torch.randn(2, 3, 8, 8)
    net(x)
    torch.testing.assert_close(seen[0] - net.embed(patches(x, 4)), net.positions.expand(2, -1, -1))


def test_patches_hold_neighbouring_pixels() -> None:
    x = torch.randn(2, 3, 8, 12)
    cut = patches(x, 4)
    assert cut.shape == (2, 6, 48)
    torch.testing.assert_close(cut[1, 4].view(4, 4, 3), x[1, :, 4:8, 4:8].permute(1, 2, 0))


def test_positions_differ() -> None:
    positions = sine_cosine(8, 16)
    assert positions.shape == (64, 16)
    assert torch.cdist(positions, positions).fill_diagonal_(1).min() > 1e-3


def test_sizes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="patch=5 does not divide image_size=32"):
        ViT(patch=5)
    with pytest.raises(ValueError, match="dim=100 must be a multiple of 4 and of heads=3"):
        ViT(dim=100)
