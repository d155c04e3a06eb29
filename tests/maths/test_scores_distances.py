"""Distances of draws against SciPy."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import wasserstein_distance

from spnb.maths.scores import wasserstein


@pytest.mark.parametrize("others", [1, 7, 10, 16])
def test_wasserstein_is_scipys(others: int) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(10, 3, 2), 2 * torch.randn(others, 3, 2) + 1
    found = wasserstein(a, b)
    assert found.shape == (3, 2)
    for row in range(3):
        for column in range(2):
            expected = wasserstein_distance(a[:, row, column], b[:, row, column])
            assert found[row, column].item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(wasserstein(a, a + 3), torch.full((3, 2), 3.0))
    assert wasserstein(a, a.flip(0)).abs().max() == 0
