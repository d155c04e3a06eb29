"""The timeline of a real step: all kinds of work are there, once, and fill the step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

import spnb
from spnb.maths.networks import mlp
from spnb.parallel.trace import Span
from spnb.run.timeline import timeline
from tests.run import nets

PoolOf = Callable[[int], spnb.WorkerPool]

PARTS = {"prepare", "draw", "forward", "backward", "divergence", "update"}
"""What every step consists of; the all-reduce comes in where there is somebody to talk to."""

TRIES = 20
"""Steps to look at: beside other work, a process may have to wait where no span is open."""


@pytest.fixture(scope="module")
def case() -> tuple[spnb.MeanField, tuple[torch.Tensor, torch.Tensor]]:
    """Not too small, or what no span covers, a fixed time, would weigh too much."""
    torch.manual_seed(0)
    posterior = spnb.MeanField(spnb.BayesianModel(mlp((64, 256, 256, 10))), init_scale=0.02)
    return posterior, (torch.randn(512, 64), torch.randint(0, 10, (512,)))


def check(spans: Sequence[Span], parts: set[str], draws: int) -> None:
    """One rank's spans: complete, within the step, one after the other, most of its time."""
    counts = Counter(span.name for span in spans)
    assert set(counts) == parts | {"step"}
    assert counts["draw"] == counts["backward"] == draws
    assert counts["forward"] == 2 * draws, "the network, and the loss"
    assert all(counts[name] == 1 for name in ("prepare", "divergence", "update", "step"))
    (step,) = (span for span in spans if span.name == "step")
    rest = sorted((s for s in spans if s.name != "step"), key=lambda span: span.start)
    assert all(step.start <= s.start <= s.stop <= step.stop for s in rest)
    assert all(one.stop <= other.start for one, other in zip(rest, rest[1:], strict=False))
    assert spans[-1] is step, "in the order of the ends"


def covered(spans: Sequence[Span]) -> float:
    """Which part of the step some other span covers."""
    step = next(span.seconds for span in spans if span.name == "step")
    return sum(span.seconds for span in spans if span.name != "step") / step


def test_a_step_of_one_process(case: tuple[spnb.MeanField, object]) -> None:
    posterior, data = case
    before = [parameter.clone() for parameter in posterior.parameters()]
    for _ in range(TRIES):
        spans = timeline(posterior, data, num_samples=6)  # type: ignore[arg-type]
        check(spans, PARTS, draws=6)
        if covered(spans) >= 0.8:
            break
    else:
        pytest.fail("a fifth of the step is in no span")
    assert all(map(torch.equal, before, posterior.parameters())), "a copy was trained"


@pytest.mark.parametrize(
    ("layout", "draws"),
    [
        (spnb.Layout(sample=2), (3, 3)),
        (spnb.Layout(data=2), (6, 6)),
    ],
    ids=str,
)
def test_a_step_of_two_ranks(
    pool_of: PoolOf, case: tuple[spnb.MeanField, object], layout: spnb.Layout, draws: Sequence[int]
) -> None:
    for _ in range(TRIES):
        by_rank = pool_of(2).run(timeline, *case, layout=layout, num_samples=6)
        for spans, count in zip(by_rank, draws, strict=True):
            check(spans, PARTS | {"all-reduce"}, draws=count)
        reduces = [next(s for s in spans if s.name == "all-reduce") for spans in by_rank]
        assert min(r.stop for r in reduces) >= max(r.start for r in reduces), (
            "nobody leaves an all-reduce before all have come, on one clock"
        )
        if min(map(covered, by_rank)) >= 0.8:
            break
    else:
        pytest.fail("a fifth of the step is in no span")


def test_uneven_samples_and_a_loss_that_needs_all_predictions(
    pool_of: PoolOf, case: tuple[spnb.MeanField, object]
) -> None:
    options = {"layout": spnb.Layout(sample=2), "num_samples": 3}
    by_rank = pool_of(2).run(timeline, *case, objective=spnb.PredictiveNLL(), **options)
    counts = [Counter(span.name for span in spans) for spans in by_rank]
    assert [count["draw"] for count in counts] == [2, 1]
    assert all(count["all-gather"] == count["all-reduce"] == 1 for count in counts)


@pytest.mark.parametrize("name", nets.NETS)
def test_a_step_of_whatever_is_trained(name: str) -> None:
    posterior = spnb.MeanField(spnb.BayesianModel(nets.NETS[name]()))
    check(timeline(posterior, nets.data(name), num_samples=2), PARTS, draws=2)


def test_as_many_samples_as_fit_takes(case: tuple[spnb.MeanField, object]) -> None:
    posterior, data = case
    for start, draws in ((posterior, 8), (spnb.Ensemble(posterior.model, 3), 3)):
        check(timeline(start, data, num_samples=None), PARTS, draws)  # type: ignore[arg-type]
        check(timeline(start, data), PARTS, draws)  # type: ignore[arg-type]


BAD = {
    "num_samples": [0, -1, True, 2.5, "4"],
    "samples_in_flight": [0, -1, True, 2.5, "4"],
    "seed": [None, "0", 1.5],
    "objective": ["elbo"],
    "layout": [2],
    "recompute": [None, 1],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in BAD.items() for v in values])
def test_bad_requests(case: tuple[spnb.MeanField, object], name: str, value: object) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{name}(=| is a )"):
        timeline(*case, **{name: value})  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers(case: tuple[spnb.MeanField, object]) -> None:
    options = {"num_samples": np.int64(2), "samples_in_flight": np.int64(1), "seed": np.uint8(1)}
    check(timeline(*case, **options), PARTS, draws=2)  # type: ignore[arg-type]
