"""The per-rank timeline: waiting, sums and bars against plain arithmetic; the explorer."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

import spnb
from spnb.parallel.trace import Span
from spnb.teach import figures
from spnb.teach.explore import timeline as module
from spnb.teach.explore.timeline import (
    KINDS,
    describe,
    draw_timeline,
    milliseconds,
    timeline_explorer,
    with_waiting,
)
from spnb.teach.racing import duration, least_disturbed_step


def rank(start: float, work: list[tuple[str, float]], end: float) -> list[Span]:
    """Spans without gaps from a start, in milliseconds; the step lasts until its end."""
    spans = []
    at = start
    for name, length in work:
        spans.append(Span(name, at / 1e3, (at + length) / 1e3))
        at += length
    return [*spans, Span("step", start / 1e3, end / 1e3)]


# Rank 0 reaches the all-reduce at 105 ms, rank 1 at 108; both leave it at 109.
FIRST = [("draw", 1), ("forward", 2), ("backward", 2), ("all-reduce", 4), ("update", 1)]
SECOND = [("draw", 1), ("draw", 3), ("forward", 1), ("backward", 2), ("all-reduce", 1)]
STEP = [rank(100, FIRST, 111), rank(101, SECOND, 109.5)]
ALONE = [rank(7, [("draw", 2), ("forward", 3), ("backward", 3), ("update", 1)], 17), []]


def test_waiting_ends_when_the_last_rank_comes() -> None:
    cut = with_waiting(STEP)
    waits = [next(span for span in spans if span.name == "waiting") for spans in cut]
    sends = [next(span for span in spans if span.name == "all-reduce") for spans in cut]
    assert [1e3 * wait.seconds for wait in waits] == pytest.approx([3, 0])
    assert [1e3 * send.seconds for send in sends] == pytest.approx([1, 1])
    assert with_waiting(ALONE) == [list(ALONE[0]), []]


def test_several_all_reduces_are_met_one_by_one() -> None:
    twice = [
        rank(0, [("all-reduce", 3), ("draw", 1), ("all-reduce", 2)], 7),
        rank(0, [("draw", 2), ("all-reduce", 1), ("all-reduce", 3)], 7),
    ]
    found = milliseconds(twice)
    assert [one["waiting"] for one in found] == pytest.approx([2, 1])
    assert [one["all-reduce"] for one in found] == pytest.approx([3, 3])


def test_milliseconds_add_up_to_the_step() -> None:
    first, second = milliseconds(STEP)
    assert first == pytest.approx({"draw": 1, "forward": 2, "backward": 2, "waiting": 3,
                                   "all-reduce": 1, "update": 1, "other": 1})  # fmt: skip
    assert second["draw"] == pytest.approx(4) and second["other"] == pytest.approx(0.5)
    assert sum(first.values()) == pytest.approx(11) and sum(second.values()) == pytest.approx(8.5)
    assert list(first)[:-1] == [kind for kind in KINDS if kind in first], "in the order of a step"
    assert milliseconds(ALONE)[1] == {}
    assert duration(STEP) == pytest.approx(11)


def test_bars_begin_and_end_where_the_spans_do() -> None:
    _, axes = figures.new()
    draw_timeline(axes, STEP)
    bars = {}
    for collection in axes.collections:
        corners = [path.get_extents() for path in collection.get_paths()]
        kind = collection.get_label().removeprefix("_")
        for box in corners:
            bars.setdefault((kind, round((box.y0 + box.y1) / 2)), []).append((box.x0, box.x1))
    assert bars["draw", 0] == [pytest.approx((0, 1))]
    assert bars["draw", 1] == [pytest.approx((1, 5))], "two draws without a gap are one bar"
    assert bars["waiting", 0] == [pytest.approx((5, 8))]
    assert bars["all-reduce", 0] == bars["all-reduce", 1] == [pytest.approx((8, 9))]
    assert axes.get_xlim()[1] == pytest.approx(11.11)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["rank 0", "rank 1"]
    assert "ms" in axes.get_xlabel()
    _, labels = axes.get_legend_handles_labels()
    assert Counter(labels) == Counter({k: 1 for k in milliseconds(STEP)[0] if k != "other"})


def test_gaps_stay_visible_and_idle_ranks_are_named() -> None:
    gap = [rank(0, [("draw", 1), ("forward", 2), ("draw", 1)], 4)]
    for longest, right in ((None, 4.04), (20.0, 20.2)):
        _, axes = figures.new()
        draw_timeline(axes, gap, longest)
        (draws,) = (c for c in axes.collections if c.get_label() == "draw")
        assert len(draws.get_paths()) == 2
        assert axes.get_xlim()[1] == pytest.approx(right)
    _, axes = figures.new()
    draw_timeline(axes, ALONE)
    assert [text.get_text().strip() for text in axes.texts] == ["nothing to do"]


def test_kinds_differ_without_colours() -> None:
    assert len(set(KINDS.values())) == len(KINDS)
    drawn = {kind: hatch for kind, (_, hatch) in KINDS.items() if kind != "all-gather"}
    assert len(set(drawn.values())) == len(drawn)


def test_the_words_say_what_each_rank_did() -> None:
    words = describe(STEP)
    assert words.startswith("The step took 11.0 ms; draws of the weights: 1 | 2.")
    assert "In ms, rank 0 | rank 1: draw 1.0 | 4.0, forward 2.0 | 1.0" in words
    assert "waiting 3.0 | 0.0, all-reduce 1.0 | 1.0, update 1.0 | 0.0, other 1.0 | 0.5." in words
    assert "In ms, rank 0: draw 2.0" in describe(ALONE)


class FakePool:
    """Two ranks that exist in name only."""

    size = 2
    closed = False


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, int]]:
    """Which steps were measured."""
    asked: list[tuple[Any, int]] = []

    def fake(pool: object, posterior: object, data: object, layout: Any, samples: int) -> Any:
        asked.append((layout, samples))
        return ALONE if layout is None else STEP

    monkeypatch.setattr(module, "least_disturbed_step", fake)
    return asked


def test_the_explorer_measures_once_and_then_looks_up(measured: list[Any]) -> None:
    explorer = timeline_explorer(FakePool(), {"MLP": (None, None)})  # type: ignore[arg-type,dict-item]
    assert measured == [(None, 8)]
    assert explorer.summary.startswith("MLP, S = 8, one rank (measured just now). The step took 10")
    before = explorer.png
    explorer.controls["way"].value = "share samples"
    assert measured[1:] == [(spnb.Layout(sample=2), 8)] and explorer.png != before
    assert "MLP, S = 8, share samples (measured just now). The step took 11.0" in explorer.summary
    explorer.set(way="share batch", samples=3)
    assert measured[2:] == [(spnb.Layout(data=2), 3)]
    explorer.set(way="one rank", samples=8)
    assert len(measured) == 3 and "(measured before)" in explorer.summary
    assert explorer.notice(**explorer.state) is None
    explorer.controls["take"].value = 2
    assert len(measured) == 4 and explorer.error is None
    asked = explorer.state | {"take": 3}
    assert "live ranks" in (explorer.notice(**asked) or "")


def test_the_explorer_outlives_its_pool(measured: list[Any]) -> None:
    pool = FakePool()
    known = {("MLP", "one rank", 8): ALONE, ("MLP", "share batch", 8): STEP}
    explorer = timeline_explorer(pool, {"MLP": (None, None)}, known=known)  # type: ignore[arg-type,dict-item]
    assert measured == [] and "measured before" in explorer.summary
    pool.closed = True
    explorer.set(way="share batch")
    assert "The step took 11.0 ms" in explorer.summary and explorer.error is None
    explorer.set(samples=16)
    assert explorer.error is None and measured == []
    assert "was not measured before the pool was closed" in explorer.summary
    assert explorer.notice(**explorer.state) is None


@pytest.mark.slow
def test_steps_of_live_ranks(pool: spnb.WorkerPool) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    posterior = spnb.MeanField(spnb.BayesianModel(net))
    data = torch.randn(12, 6), torch.randint(0, 3, (12,))
    for layout, draws in (
        (None, [5, 0]),
        (spnb.Layout(sample=2), [3, 2]),
        (spnb.Layout(data=2), [5, 5]),
    ):
        step = least_disturbed_step(pool, posterior, data, layout, 5, repeats=3)
        assert [sum(span.name == "draw" for span in spans) for spans in step] == draws
        for spans, spent in zip(step, milliseconds(step), strict=True):
            whole = sum(span.seconds for span in spans if span.name == "step")
            assert sum(spent.values()) == pytest.approx(1e3 * whole)
    explorer = timeline_explorer(pool, {"net": (posterior, data)}, num_samples=4)
    explorer.set(way="share samples")
    assert "draws of the weights: 2 | 2" in explorer.summary and explorer.error is None
