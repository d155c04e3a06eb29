"""Arguments: what passes as a number, and what is said of the rest."""

from __future__ import annotations

from math import inf, nan

import numpy as np
import pytest
import torch

from spnb.parallel.arguments import flag, real, whole, whole_or_none


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_whole_numbers(value: object) -> None:
    found = whole("n", value)
    assert found == 3 and type(found) is int
    assert whole_or_none("n", value) == 3 and whole_or_none("n", None) is None


@pytest.mark.parametrize(
    "value", [True, np.True_, 3.0, np.float32(3), "3", None, nan, torch.ones(1)]
)
def test_what_is_no_whole_number(value: object) -> None:
    with pytest.raises(TypeError, match=r"n=.* must be a whole number\."):
        whole("n", value)


def test_whole_numbers_that_are_too_small() -> None:
    with pytest.raises(ValueError, match="n=0 must be at least 1"):
        whole("n", np.int64(0))
    assert whole("n", -4, least=None) == -4


@pytest.mark.parametrize("value", [2, 2.0, np.int32(2), np.float32(2)])
def test_numbers(value: object) -> None:
    found = real("x", value)
    assert found == 2.0 and type(found) is float


@pytest.mark.parametrize("value", [True, np.True_, "2", None, [2], torch.ones(1)])
def test_what_is_no_number(value: object) -> None:
    with pytest.raises(TypeError, match=r"x=.* must be a number\."):
        real("x", value)


def test_numbers_that_are_out_of_range() -> None:
    assert real("x", 0) == 0.0 and real("x", inf, infinite=True) == inf
    for value in (nan, -1, -inf, inf):
        with pytest.raises(ValueError, match=f"x={value} must be at least 0 and finite"):
            real("x", value)
    for value in (nan, 0.0, -1):
        with pytest.raises(ValueError, match=f"x={value} must be above 0"):
            real("x", value, above=True, infinite=True)
    with pytest.raises(ValueError, match="x=0.5 must be at least 1"):
        real("x", 0.5, least=1.0)


def test_flags() -> None:
    assert flag("b", False) is False
    for value in (0, None, "no"):
        with pytest.raises(TypeError, match="b=.* must be True or False"):
            flag("b", value)
