"""The sketch of a network that is cut, under the sample axis, gives one process's gradient."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import spnb
from tests.run.problems import problem

SKETCH = Path(__file__).parents[2] / "docs/sketches/tensor_parallel.py"


def on_a_rank(seed: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
    spec = importlib.util.spec_from_file_location("tensor_parallel", SKETCH)
    assert spec is not None and spec.loader is not None
    module = sys.modules["tensor_parallel"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    posterior, data = problem(24)
    return module.gradient(posterior, data, num_samples=5, seed=seed, step=step)


def test_the_gradient_is_that_of_one_process(pool_of: Callable[[int], spnb.WorkerPool]) -> None:
    posterior, data = problem(24)
    expected = spnb.gradients(posterior, data, num_samples=5, seed=3, step=7)
    size, seen = len(posterior.loc), torch.zeros(len(posterior.loc), dtype=torch.bool)
    for at, loc, rho in pool_of(4).run(on_a_rank, 3, 7):
        assert len(at) < 0.6 * size  # about half, and the last bias
        torch.testing.assert_close(loc, expected["loc"][at], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(rho, expected["rho"][at], rtol=1e-12, atol=1e-14)
        seen[at] = True
    assert seen.all()
