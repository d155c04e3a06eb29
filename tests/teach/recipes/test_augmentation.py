"""The augmentation experiment: its arithmetic by hand, and small runs of the whole."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace

import pytest
from scipy import stats

import spnb
from spnb.teach import figures
from spnb.teach.recipes import augmentation

needs_data = pytest.mark.skipif(
    not os.environ.get("SPNB_DATA"), reason="needs CIFAR-10 in $SPNB_DATA"
)


def test_epochs_to_a_target() -> None:
    curve = [0.2, 0.4, 0.3, 0.6]
    assert augmentation.epochs_to(0.1, curve) == pytest.approx(0.5)
    assert augmentation.epochs_to(0.4, curve) == pytest.approx(2.0)
    assert augmentation.epochs_to(0.45, curve) == pytest.approx(3.5)
    assert augmentation.epochs_to(0.61, curve) is None


def test_the_interval_is_scipys() -> None:
    values = [1.0, 2.5, -0.5, 1.25, 3.0]
    found = augmentation.interval(values)
    mean, error = sum(values) / 5, stats.sem(values)
    assert found["difference"] == pytest.approx(mean)
    assert found["interval"] == pytest.approx(stats.t.interval(0.95, 4, loc=mean, scale=error))
    assert augmentation.interval([1.0]) == {"difference": 1.0, "interval": None}
    assert augmentation.interval([]) == {"difference": None, "interval": None}


def test_targets_come_from_the_shared_views_alone() -> None:
    shared = [[0.2, 0.5], [0.4, 0.7]]  # best mean: 0.6
    own = [[0.6, 0.9], [0.1, 0.3]]
    found = augmentation.compare(shared, own)
    assert [target["accuracy"] for target in found] == pytest.approx([0.48, 0.54, 0.57])
    first = found[0]
    assert first["shared"] == pytest.approx([1 + 0.28 / 0.3, 1 + 0.08 / 0.3])
    assert first["per_sample"] == [pytest.approx(0.8), None] and first["pairs"] == 1
    assert first["interval"] is None and "too few" in augmentation.gain(first)
    assert augmentation.compare(shared, [own[0], own[0]])[0]["accuracy"] == first["accuracy"]


@needs_data
@pytest.mark.slow
def test_pairs_differ_in_their_views_alone_and_ranks_agree(pool: spnb.WorkerPool) -> None:
    small = augmentation.SETTINGS["ci"]
    small = replace(small, network=replace(small.network, num_train=100, num_samples=2))
    result = augmentation.run(small)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    shared, own = (result["accuracy"][way] for way in augmentation.WAYS)
    assert [len(run) for run in (*shared, *own)] == 4 * [2] and shared != own
    for other in pool.run(augmentation.run, small, spnb.Layout(sample=2)):
        for way in augmentation.WAYS:
            assert sum(other["accuracy"][way], []) == pytest.approx(
                sum(result["accuracy"][way], []), abs=0.011
            )
    assert figures.png(augmentation.draw(result)).startswith(b"\x89PNG")
    text = augmentation.describe(result)
    assert "2 seeds" in text and all(name in text for name in augmentation.NAMES.values())
    assert all(math.isfinite(v) for found in result["scores"].values() for v in found.values())
