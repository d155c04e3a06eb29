"""The measured number of samples in flight."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from spnb.run import in_flight
from spnb.run.setup import begin
from tests.run.problems import problem


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({1: 1.0, 2: 1.1}, 1),
        ({1: 1.0, 2: 0.6, 4: 0.4, 8: 0.39}, 4),
        ({1: 1.0, 2: 0.6, 4: 0.4, 8: 0.3}, 8),
        ({1: 1.0, 2: 0.6, 4: None}, 2),
    ],
)
def test_it_doubles_for_as_long_as_that_pays(
    monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float | None], expected: int
) -> None:
    clock = [0.0]
    monkeypatch.setattr(in_flight.time, "perf_counter", lambda: clock[0])

    def evaluate(size: int) -> Callable[[], None]:
        def run() -> None:
            taken = seconds[size]
            if taken is None:
                raise torch.OutOfMemoryError("no room")
            clock[0] += taken

        return run

    assert in_flight.choose(evaluate, num_samples=8) == expected


def test_it_measures_the_real_evaluation_and_changes_nothing() -> None:
    posterior, data = problem()
    work, x, y = begin(posterior, data, None, None, 4, seed=0)
    before = {name: p.clone() for name, p in work.posterior.named_parameters()}
    assert in_flight.fastest(work, x, y) in (1, 2, 4)
    for name, p in work.posterior.named_parameters():
        assert torch.equal(p, before[name])
