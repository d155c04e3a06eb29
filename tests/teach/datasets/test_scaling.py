"""Scalings: closed forms, what is scaled alike, and the way back."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from spnb.teach.datasets import Scaling

DRAWN = torch.randn(6, 3, 4, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
VALUES = 280 + 15 * DRAWN


def test_closed_form_of_an_arithmetic_progression() -> None:
    scaling = Scaling.of(torch.arange(11, dtype=torch.float64))
    assert (scaling.offset, scaling.scale) == pytest.approx((5, 11**0.5))  # n (n + 1) / 12


def test_closed_form_of_each_column() -> None:
    columns = torch.stack([torch.arange(11.0), 100 - 2 * torch.arange(11.0)], 1)
    scaling = Scaling.of(columns, over=(0,))
    torch.testing.assert_close(scaling.offset, torch.tensor([5.0, 90.0]))
    torch.testing.assert_close(scaling.scale, torch.tensor([11**0.5, 2 * 11**0.5]))
    scaled = scaling.apply(columns)
    torch.testing.assert_close(scaled[:, 0], -scaled[:, 1])


@pytest.mark.parametrize(
    ("over", "shape"),
    [
        ((0,), (3, 4, 5)),
        ((0, 2, 3), (3, 1, 1)),
        ((0, -2, -1), (3, 1, 1)),
        ((0, 1), (4, 5)),
        ((3, 2, 1, 0), ()),
        ((1,), (6, 1, 4, 5)),
        ((2, 3), (6, 3, 1, 1)),
    ],
)
def test_what_is_scaled_alike_gets_mean_0_and_deviation_1(
    over: Sequence[int], shape: tuple[int, ...]
) -> None:
    scaling = Scaling.of(VALUES, over)
    assert isinstance(scaling.offset, torch.Tensor) and isinstance(scaling.scale, torch.Tensor)
    assert scaling.offset.shape == scaling.scale.shape == shape
    scaled = scaling.apply(VALUES)
    assert scaled.shape == VALUES.shape and scaled.dtype == torch.float32
    std, mean = torch.std_mean(scaled.double(), tuple(over))
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-6, rtol=0)
    torch.testing.assert_close(std, torch.ones_like(std), atol=1e-6, rtol=0)
    torch.testing.assert_close(scaling.undo(scaled.double()), VALUES, atol=1e-4, rtol=0)


@pytest.mark.parametrize("over", [None, (0, 2, 3), (0,)])
def test_it_fits_one_image_a_batch_and_draws_of_a_batch(over: Sequence[int] | None) -> None:
    scaling = Scaling.of(VALUES, over)
    whole = scaling.apply(VALUES)
    torch.testing.assert_close(scaling.apply(VALUES[2]), whole[2], atol=0, rtol=0)
    several = scaling.undo(torch.stack([whole, whole + 1]))
    assert several.shape == (2, *VALUES.shape)
    one_more = (several[1] - several[0])[0].double()
    expected = torch.as_tensor(scaling.scale).double().expand(VALUES.shape[1:])
    torch.testing.assert_close(one_more, expected, atol=1e-4, rtol=0)


def test_the_training_part_alone_decides() -> None:
    scaling = Scaling.of(VALUES[:4], over=(0, 2, 3))
    changed = VALUES.clone()
    changed[4:] += 1000
    again = Scaling.of(changed[:4], over=(0, 2, 3))
    assert torch.equal(scaling.apply(VALUES), again.apply(VALUES))


def test_float32_is_scaled_as_well_as_float64() -> None:
    single, double = Scaling.of(VALUES.float(), over=(0,)), Scaling.of(VALUES, over=(0,))
    torch.testing.assert_close(
        single.apply(VALUES.float()), double.apply(VALUES), atol=1e-5, rtol=0
    )


def test_whole_numbers_are_scaled_exactly() -> None:
    large = torch.tensor([2**40, 2**40 + 1])
    assert Scaling(float(2**40), 0.5).apply(large).tolist() == [0, 2]


def test_what_does_not_vary_becomes_zero() -> None:
    values = torch.stack([torch.full((7,), 0.1), torch.arange(7.0)], 1)
    scaling = Scaling.of(values, over=(0,))
    assert scaling.apply(values)[:, 0].tolist() == [0] * 7
    torch.testing.assert_close(scaling.undo(scaling.apply(values)), values)
    assert Scaling.of(values[:, 0]).scale == 1


def test_gaps_are_refused() -> None:
    values = VALUES.clone()
    values[0, 0, 0, 0], values[1, 1, 1, 1] = torch.nan, torch.inf
    with pytest.raises(ValueError, match="2 of 360 values are missing or infinite: leave them out"):
        Scaling.of(values, over=(0,))


@pytest.mark.parametrize("over", [(0,), None, ()])
def test_a_single_value_is_refused(over: Sequence[int] | None) -> None:
    with pytest.raises(ValueError, match="1 of the 1 values are scaled alike: a standard"):
        Scaling.of(torch.tensor([3.0]), over)
