"""The failure lab of a training run, on a real pool: nothing is lost but what was said."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import spnb
from spnb.maths.networks import mlp
from spnb.parallel.pool import silence
from spnb.teach import datasets
from spnb.teach.accident import KINDS, PRESSED, live_through
from spnb.teach.explore.accidents import accident_lab

SETTINGS: dict[str, Any] = {
    "layout": spnb.Layout(sample=2),
    "num_samples": 8,
    "batch_size": 32,
    "epochs": 5,
    "learning_rate": 0.01,
}
STEPS = 40
LONG = SETTINGS | {"epochs": 40}
"""So that the run is not over before somebody who presses the stop button is noticed."""
HANG = 120.0
"""Seconds after which a test takes something for hanging: a collective would wait for 600."""
WORDS = {
    "killed": "rank 1 was killed (SIGKILL)",
    "hangs": "rank 1 hung, in File",
    "NaN": "FloatingPointError: Step 17, rank 1",
    "no memory": "RuntimeError: ",
    PRESSED: "KeyboardInterrupt: all ranks were stopped",
}


@pytest.fixture(scope="module")
def pool() -> Iterator[spnb.WorkerPool]:
    """Ranks that are given up after a silence as long as their whole start: none is just slow."""
    begun = time.monotonic()
    with spnb.WorkerPool(2, threads=1, restarts=2, silence=None) as pool:
        pool.run(posterior)  # which imports what is needed
        pool.patience = max(1.0, time.monotonic() - begun)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(silence, "ANSWER", max(silence.ANSWER, pool.patience / 4))
            yield pool


def posterior() -> spnb.MeanField:
    torch.manual_seed(0)
    net = mlp([64, 32, 10], torch.nn.Tanh)
    return spnb.MeanField(spnb.BayesianModel(net, spnb.priors.fan_in(), "categorical"))


def data() -> tuple[torch.Tensor, torch.Tensor]:
    images = datasets.digits()
    return images.train_x[:256], images.train_y[:256]


@pytest.mark.parametrize("kind", KINDS)
def test_an_accident_is_told_and_not_a_bit_differs(pool: spnb.WorkerPool, kind: str) -> None:
    settings, steps = (LONG, 8 * STEPS) if kind == PRESSED else (SETTINGS, STEPS)
    whole = live_through(pool, posterior(), data(), every=steps, **settings)
    assert [step for _, step in whole.attempts[0]] == list(range(steps))
    assert whole.happened_at is None and whole.twice == 0
    story = live_through(pool, posterior(), data(), every=5, kind=kind, rank=1, step=17, **settings)
    assert story.words.startswith(WORDS[kind])
    assert story.by_itself == (kind in ("killed", "hangs"))
    assert story.same_as(whole)
    before, after = story.attempts
    assert story.happened_at is not None
    assert before[0][0] < story.happened_at < story.noticed_at < after[0][0] < story.ended_at
    assert after[0][1] % 5 == 0 and after[-1][1] == steps - 1
    if kind != PRESSED:  # the ranks may take further steps until the button is noticed
        assert after[0][1] == 15 and story.twice == 2
    assert 0 <= story.twice < 5
    assert story.noticed_at - story.happened_at < HANG


def test_posteriors_that_differ_are_told_apart(pool: spnb.WorkerPool) -> None:
    runs = [
        live_through(pool, posterior(), data(), every=STEPS, **SETTINGS, seed=s) for s in (0, 1)
    ]
    assert not runs[0].same_as(runs[1])


def test_a_step_that_never_comes_is_refused(pool: spnb.WorkerPool) -> None:
    with pytest.raises(RuntimeError, match="of 40 steps has no step 40"):
        live_through(pool, posterior(), data(), every=5, kind="killed", step=40, **SETTINGS)
    with pytest.raises(ValueError, match="batch_size"):
        live_through(
            pool, posterior(), data(), every=5, kind="killed", **SETTINGS | {"batch_size": 0}
        )


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"kind": "flood"}, "kind='flood' is no accident; there are killed, hangs"),
        ({"kind": "killed", "rank": 2}, "rank=2 is none of the 2 ranks"),
        ({"kind": "killed", "rank": -1}, "rank=-1 is none of the 2 ranks"),
    ],
)
def test_accidents_that_cannot_be_are_refused(
    pool: spnb.WorkerPool, wrong: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        live_through(pool, posterior(), data(), every=5, **SETTINGS | wrong)


@pytest.mark.pool
def test_nothing_hangs_for_ever() -> None:
    with spnb.WorkerPool(1, threads=1) as endless:
        with pytest.raises(ValueError, match="needs a pool with patience"):
            live_through(endless, posterior(), data(), every=5, kind="hangs", **SETTINGS)


@pytest.mark.pool
@pytest.mark.exhaustive
def test_without_restarts_the_cell_is_run_again() -> None:
    with spnb.WorkerPool(2, threads=1) as plain:
        whole = live_through(plain, posterior(), data(), every=STEPS, **SETTINGS)
        story = live_through(
            plain, posterior(), data(), every=5, kind="killed", rank=0, step=12, **SETTINGS
        )
    assert not story.by_itself and story.same_as(whole)
    assert story.words.startswith("WorkerDied: rank 0 was killed") and story.twice == 2


def test_the_lab_begins_with_an_accident_and_has_others_when_told(pool: spnb.WorkerPool) -> None:
    lab = accident_lab(pool, posterior(), data(), **SETTINGS)
    assert lab.summary.startswith("At step 24 of 40 rank 1 is killed by the system")
    assert "steps computed twice: 0" in lab.summary and "Not a bit" in lab.summary
    lab.set(accident="NaN", step=17, every="never", rank=0)
    assert "at the end alone. How many" in lab.summary and "Press the button" in lab.summary
    lab.set(let_it_happen=True)
    assert "FloatingPointError: Step 17, rank 0" in lab.summary, lab.error
    assert "steps computed twice: 17" in lab.summary and "Not a bit" in lab.summary
    lab.controls["every"].value = 1
    assert not lab.state["let_it_happen"], "a new question takes the button out"
    assert "after each step. How many" in lab.summary
    lab.set(every="never")
    assert "steps computed twice: 17" in lab.summary, "what was seen is kept"
    pool.close()  # this test is the last one that needs it
    lab.set(step=11, let_it_happen=True)
    assert lab.summary.endswith("The pool is closed.") and lab.error is None
