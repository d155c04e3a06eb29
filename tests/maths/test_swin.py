"""The Swin transformer: its windows against attention written out, its sizes, and Bayes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

import spnb
from spnb.maths.swin import SIZES, Block, Merge, Split, Swin, cut, paste, relative_places, spread


def block(grid: tuple[int, int], window: int, shifted: bool) -> Block:
    """A block in double precision whose biases matter."""
    torch.manual_seed(0)
    made = Block(grid, window, dim=6, heads=2, ratio=2.0, shifted=shifted).double()
    with torch.no_grad():
        made.bias.normal_()
    return made


def written_out(block: Block, tokens: Tensor) -> Tensor:
    """Attention among the tokens of each region of the plane, one pair after the other."""
    height, width = block.grid
    w = block.window
    q, k, v = block.qkv(tokens).unflatten(-1, (3, block.heads, -1)).unbind(-3)
    places = list(itertools.product(range(height), range(width)))
    out = torch.zeros_like(tokens)
    for r, c in places:
        near = [p for p in places if region(block, *p) == region(block, r, c)]
        heads = []
        for head in range(block.heads):
            scores = [
                (q[0, r, c, head] * k[0, i, j, head]).sum() / q.shape[-1] ** 0.5
                + block.bias[(r - i + w[0] - 1) * (2 * w[1] - 1) + c - j + w[1] - 1, head]
                for i, j in near
            ]
            parts = torch.stack(scores).softmax(0)
            heads.append(sum(p * v[0, i, j, head] for p, (i, j) in zip(parts, near, strict=True)))
        out[0, r, c] = block.out(torch.cat(heads))
    return out


def region(block: Block, row: int, column: int) -> tuple[int, int]:
    """The window of a place, where windows begin at the shift and at every window's length."""
    (down, right), (high, wide) = block.shift, block.window
    return (row - down) // high, (column - right) // wide


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("grid", "window"), [((6, 10), 4), ((4, 8), 4), ((5, 7), 3), ((2, 9), 4)])
def test_attention_stays_within_the_windows_of_the_plane(
    grid: tuple[int, int], window: int, shifted: bool
) -> None:
    attention = block(grid, window, shifted)
    assert any(attention.shift) == shifted
    tokens = torch.randn(1, *grid, 6, dtype=torch.float64)
    torch.testing.assert_close(attention.attend(tokens), written_out(attention, tokens))


@pytest.mark.parametrize("shifted", [False, True])
def test_strangers_are_not_seen_at_all(shifted: bool) -> None:
    """Rolling and padding bring them into one window; the derivative is zero, not just small."""
    grid = (6, 9)
    attention = block(grid, 4, shifted)
    assert attention.room == (8, 12)

    def of_places(tokens: Tensor) -> Tensor:
        return attention.attend(tokens.view(1, *grid, 6)).reshape(54, 6)

    tokens = torch.randn(54, 6, dtype=torch.float64)
    derivative = torch.autograd.functional.jacobian(of_places, tokens)
    assert isinstance(derivative, Tensor)
    seen = derivative.abs().sum((1, 3)) != 0
    where = [region(attention, *p) for p in itertools.product(*map(range, grid))]
    assert seen.tolist() == [[a == b for b in where] for a in where]


def test_one_window_that_holds_the_grid_is_full_attention() -> None:
    whole = block((4, 4), 4, shifted=True)
    assert whole.shift == (0, 0), "there is nothing to move to"
    tokens = torch.randn(2, 4, 4, 6, dtype=torch.float64)
    q, k, v = whole.qkv(tokens.flatten(1, 2)).unflatten(-1, (3, 2, 3)).permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(-1, -2) / 3**0.5 + whole.bias[whole.bias_of].permute(2, 0, 1)
    full = whole.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2)).view(2, 4, 4, 6)
    torch.testing.assert_close(whole.attend(tokens), full)


def test_relative_places_count_rows_and_columns_apart() -> None:
    places = relative_places((3, 4))
    cells = list(itertools.product(range(3), range(4)))
    by_offset: dict[tuple[int, int], set[int]] = {}
    for (a, (i, j)), (b, (k, m)) in itertools.product(enumerate(cells), repeat=2):
        by_offset.setdefault((i - k, j - m), set()).add(int(places[a, b]))
    assert all(len(rows) == 1 for rows in by_offset.values())
    assert set().union(*by_offset.values()) == set(range(5 * 7)) and len(by_offset) == 5 * 7


def test_a_grid_is_cut_into_windows_and_pasted_again() -> None:
    grid = torch.randn(2, 6, 8, 3)
    windows = cut(grid, (3, 4))
    assert windows.shape == (2, 4, 12, 3)
    torch.testing.assert_close(windows[1, 2].view(3, 4, 3), grid[1, 3:, :4])
    assert torch.equal(paste(windows, (3, 4), (6, 8)), grid)


def test_spread_undoes_patches() -> None:
    fields = torch.randn(2, 3, 8, 6)
    boxes = fields.unflatten(3, (3, 2)).unflatten(2, (4, 2))  # [B, C, h, f, w, f]
    tokens = boxes.permute(0, 2, 4, 3, 5, 1).flatten(3)
    assert torch.equal(spread(tokens, 2), fields)


def test_what_is_merged_and_split_stays_in_its_place() -> None:
    tokens = torch.randn(1, 6, 8, 4)
    moved = tokens.clone()
    moved[0, 3, 5] += 1
    merge, split = Merge(4), Split(8)
    changed = (merge(moved) != merge(tokens)).any(-1)[0].nonzero().tolist()
    assert changed == [[1, 2]]
    few = torch.randn(1, 3, 4, 8)
    moved = few.clone()
    moved[0, 1, 2] += 1
    changed = (split(moved) != split(few)).any(-1)[0].nonzero().tolist()
    assert split(few).shape == (1, 6, 8, 4)
    assert changed == [[2, 4], [2, 5], [3, 4], [3, 5]]


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((25, 53), {}),
        ((25, 53), {"patch": 1, "window": 5, "depths": (2,), "heads": (3,)}),
        ((25, 53), {"patch": 3, "window": 7, "depths": (2, 4, 2), "heads": (2, 4, 8)}),
        ((25, 53), {"patch": 4, "window": 100}),
        ((1, 9), {"patch": 2}),
        ((32, 64), {"patch": 4, "window": 3, "ratio": 1.5}),
    ],
)
def test_fields_of_any_size_come_out_as_they_went_in(
    size: tuple[int, int], options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    net = Swin(size, inputs=2, outputs=3, **{"dim": 24, **options})
    x = torch.randn(2, 2, *size)
    y = net(x)
    assert y.shape == (2, 3, *size) and y.isfinite().all()
    torch.testing.assert_close(net(x[1:]), y[1:], atol=1e-5, rtol=1e-5)
    y.square().mean().backward()
    untouched = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert untouched == []


@pytest.mark.parametrize(
    ("name", "millions"), [("toy", 0.2), ("small", 7), ("base", 24), ("large", 200)]
)
def test_sizes_are_as_large_as_the_table_says(name: str, millions: float) -> None:
    with torch.device("meta"):
        net = Swin((25, 53), inputs=3, outputs=3, **SIZES[name])
        assert net(torch.empty(1, 3, 25, 53)).shape == (1, 3, 25, 53)
    count = sum(p.numel() for p in net.parameters()) / 1e6
    assert count == pytest.approx(millions, rel=0.15)


def test_numbers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"depths=\(2, 3\) and heads=\(3, 6\) must be as many"):
        Swin((8, 8), depths=(2, 3))
    with pytest.raises(ValueError, match=r"dim=50, doubled .* multiple of heads=\(3, 6\)"):
        Swin((8, 8), dim=50)
    with pytest.raises(ValueError, match=r"size=\(8, 0\), .* must all be at least 1"):
        Swin((8, 0))
    with pytest.raises(ValueError, match=r"fields of \(8, 9\), .* made for \(8, 8\)"):
        Swin((8, 8))(torch.zeros(1, 1, 8, 9))


def bayesian() -> tuple[spnb.MeanField, tuple[Tensor, Tensor]]:
    """A small posterior over Swins of odd fields, and a batch."""
    torch.manual_seed(0)
    net = Swin((7, 9), inputs=2, outputs=1, patch=2, window=2, dim=8, heads=(2, 4))
    model = spnb.BayesianModel(net, prior=spnb.priors.fan_in(), likelihood="normal")
    return spnb.MeanField(model, init_scale=0.05), (
        torch.randn(3, 2, 7, 9),
        torch.randn(3, 1, 7, 9),
    )


def test_several_samples_at_once_are_those_of_one_by_one() -> None:
    posterior, (x, _) = bayesian()
    one, many = (
        spnb.predict(posterior, x, num_samples=5, samples_in_flight=n, batch_size=2) for n in (1, 5)
    )
    assert one is not None and many is not None
    assert one.std(0).mean() > 1e-2
    torch.testing.assert_close(one, many, atol=1e-5, rtol=1e-5)


def test_every_sample_may_have_its_own_view() -> None:
    posterior, (x, _) = bayesian()
    weights = posterior.draw(range(3), spnb.Key(0))
    views = torch.stack([x, x.flip(-1), x.roll(2, -2)])
    together = posterior.model.predict(weights, posterior.point, views, own_views=True)
    for sample in range(3):
        alone = posterior.model.predict(
            weights[sample : sample + 1], posterior.point, views[sample]
        )
        torch.testing.assert_close(together[sample], alone[0], atol=1e-5, rtol=1e-5)


def test_a_step_of_training_reaches_every_weight() -> None:
    posterior, data = bayesian()
    one, many = (
        spnb.gradients(posterior, data, num_samples=4, samples_in_flight=n) for n in (1, 4)
    )
    for name, gradient in one.items():
        assert gradient.isfinite().all() and gradient.all()
        torch.testing.assert_close(gradient, many[name], atol=1e-5, rtol=1e-4)


def test_one_field_makes_one_field_unless_told() -> None:
    assert Swin((16, 16))(torch.zeros(2, 1, 16, 16)).shape == (2, 1, 16, 16)
