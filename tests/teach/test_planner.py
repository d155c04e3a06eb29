"""The layout planner: its bars are what `spnb.run.step_cost.predict` says, its words follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from matplotlib.collections import PolyCollection

import spnb
from spnb.run.costs import Costs
from spnb.run.machine import Link, Machine
from spnb.run.plan import Plan
from spnb.run.step_cost import Prediction, predict
from spnb.teach import figures
from spnb.teach.explorable import Explorable
from spnb.teach.explore import layout_bars
from spnb.teach.explore.layout_bars import LOOKS, human_bytes, human_time
from spnb.teach.explore.planner import OBJECTIVES, Measured, describe, layout_planner, predictions

HOST = Machine(
    "two cores",
    "made up",
    5e10,
    0.0,
    5e-9,
    2e-9,
    1e-8,
    1e-5,
    5e-4,
    Link(1e-4, 1e9),
    ranks_per_host=2,
)
SMALL = Costs(50_000, 0, 4, 10, 100, 0.0, 1e5, 0.0, 1e5, 1.0, 1e-3, 1e-4, False, "measured")
LARGE = Costs(10**8, 0, 4, 1000, 100, 0.0, 2e8, 0.0, 2e8, 1.0, 5e-3, 1e-3, False, "counted")
PLANS = {"here": Plan((), SMALL, HOST), "H100": Plan((), LARGE, spnb.machines.H100)}


@pytest.fixture
def planner() -> Explorable:
    seen = [
        Measured("here", spnb.Layout(sample=2), 8, 64, 0.04),
        Measured("here", spnb.Layout(data=2), 5, 64, 0.05),
        Measured("here", spnb.Layout(), 8, 64, 0.07),
    ]
    return layout_planner(PLANS, measured=seen, ranks=2, samples=8, rows=64)


def texts(planner: Explorable) -> list[str]:
    return [text.get_text() for text in planner.figure.axes[0].texts]


def widths(planner: Explorable) -> dict[tuple[str, int], float]:
    """Milliseconds of each drawn part, by kind and place from above."""
    found = {}
    for bars in planner.figure.axes[0].collections:
        assert isinstance(bars, PolyCollection)
        kind = str(bars.get_label()).removeprefix("_")
        for path in bars.get_paths():
            box = path.get_extents()
            found[kind, round((box.y0 + box.y1) / 2)] = box.width
    return found


@pytest.mark.parametrize("ranks", [1, 32])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_bars_are_the_planners_own_numbers(planner: Explorable, objective: str, ranks: int) -> None:
    planner.set(machine="H100", ranks=ranks, samples=24, rows=100, objective=objective)
    degrees = [(w, ranks // w) for w in (16, 8, 4, 2, 1) if w <= ranks]
    rest = 24, 100, *OBJECTIVES[objective], 8e10
    expected = [predict(LARGE, spnb.machines.H100, spnb.Layout(*d), *rest) for d in degrees]
    assert predictions(PLANS["H100"], ranks, 24, 100, objective, 8e10) == expected
    drawn = widths(planner)
    parts = {(k, i): 1e3 * v for i, p in enumerate(expected) for k, v in p.parts.items() if v}
    assert drawn == pytest.approx(parts)
    shown = texts(planner)
    for p in expected:
        assert human_time(p.seconds) in shown and human_bytes(p.memory) in shown
        assert f"{p.layout.sample} × {p.layout.data}" in shown


def test_the_summary_names_the_best_layout_and_what_limits_it(planner: Explorable) -> None:
    best = predict(SMALL, HOST, spnb.Layout(sample=2), 8, 64)
    assert planner.summary.startswith("here, 2 ranks, S = 8, B = 64, ELBO. Best: sample=2 × data=1")
    assert (
        f"with {human_time(best.seconds)} a step, limited by the network's passes"
        in planner.summary
    )
    share = best.parts["passes"] / best.seconds
    assert f"({share:.0%} of the time). A rank sends 400 kB a step" in planner.summary
    assert planner.summary.count("needs 9.21 MB. ") == 1, "this machine's memory is not known"
    planner.set(machine="H100", ranks=1024, samples=16, rows=256)
    assert "H100, 1,024 ranks, S = 16, B = 256" in planner.summary
    assert "limited by the all-reduce" in planner.summary and "of 80 GB" in planner.summary
    planner.set(ranks=1)
    assert "A rank sends nothing" in planner.summary and "1 rank, " in planner.summary


def test_measured_steps_are_drawn_where_they_belong(planner: Explorable) -> None:
    axes = planner.figure.axes[0]
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[40.0, 0.0]]]
    assert "Measured for sample=2 × data=1: 40 ms." in planner.summary
    planner.set(samples=5)
    assert "Measured for sample=1 × data=2: 50 ms." in planner.summary
    planner.set(objective="predictive NLL")
    assert "Measured" not in planner.summary and not planner.figure.axes[0].lines


def test_what_does_not_fit_is_shown_as_such(planner: Explorable) -> None:
    planner.set(machine="H100", ranks=16, samples=16, rows=256)
    assert "✗ does not fit" not in texts(planner) and texts(planner).count("★ best") == 1
    planner.set(limit=4e10)
    fits = [p.fits for p in predictions(PLANS["H100"], 16, 16, 256, limit=4e10)]
    assert texts(planner).count("✗ does not fit") == fits.count(False) > 0
    assert f"Of 5 layouts, {fits.count(False)} do not fit into memory." in planner.summary
    pale = [bars.get_alpha() for bars in planner.figure.axes[0].collections]
    assert 0.3 in pale and None in pale
    planner.set(limit=4e9)
    assert texts(planner).count("✗ does not fit") == 5 and "★ best" not in texts(planner)
    assert "No layout fits into memory: the smallest, sample=1 × data=16, needs" in planner.summary
    planner.set(objective="predictive NLL", limit=8e10, ranks=4)
    before = planner.summary
    planner.set(objective="predictive NLL, recompute")
    assert "No layout fits" in before and "Best: " in planner.summary


def test_settings_without_a_layout_say_why(planner: Explorable) -> None:
    planner.set(ranks=8)
    assert planner.error is None and "has no link between hosts" in planner.summary
    assert not planner.figure.axes[0].get_visible() and planner.figure.texts
    planner.set(machine="H100", ranks=1024, samples=1, rows=8)
    assert planner.error is None and "no layout gives each rank something to do" in planner.summary
    with_link = replace(PLANS["here"], machine=replace(HOST, between=Link(1e-4, 1e9)))
    assert "Best: " in layout_planner({"hosts": with_link}, ranks=1024, samples=1024).summary


def test_the_longest_bars_are_cut_so_that_the_best_is_seen(planner: Explorable) -> None:
    planner.set(machine="H100", ranks=1024, samples=1024, rows=1024)
    axes = planner.figure.axes[0]
    found = predictions(PLANS["H100"], 1024, 1024, 1024, limit=8e10)
    cut = [p for p in found if 1e3 * p.seconds > axes.get_xlim()[1]]
    assert len(found) == 11 and len(axes.lines) == len(cut) > 0
    assert "goes on" in [text.get_text() for text in planner.figure.legends[0].get_texts()]


def test_every_control_can_go_to_its_ends(planner: Explorable) -> None:
    for name, control in planner.controls.items():
        options = [o[1] if isinstance(o, tuple) else o for o in control.options]
        for value in (options[0], options[-1]):
            planner.set(**{name: value})
            assert planner.error is None, (name, value)


def test_a_redrawing_follows_the_hand(
    planner: Explorable, follows_the_hand: Callable[..., None]
) -> None:
    planner.set(machine="H100", ranks=1024, samples=1024, rows=1024, objective="predictive NLL")
    follows_the_hand(5 * [planner._redraw])
    arithmetic = partial(predictions, PLANS["H100"], 1024, 1024, 1024)
    follows_the_hand(5 * [arithmetic], many=0.3)


def test_standing_bars_and_measured_ones() -> None:
    _, axes = figures.new()
    step = predict(
        LARGE, spnb.machines.H100, spnb.Layout(2, 4), 8, 64, OBJECTIVES["predictive NLL"][0]
    )
    layout_bars.draw_stack(axes, 1.0, step)
    heights = [patch.get_height() for patch in axes.patches]
    assert sum(heights) == pytest.approx(1e3 * step.seconds)
    assert heights == pytest.approx([1e3 * part for part in step.parts.values()])
    hatches = [patch.get_hatch() for patch in axes.patches]
    assert len(set(hatches)) == len(LOOKS), "kinds differ without colours"
    layout_bars.draw_measured(axes, 2.0, [1.0, 2.0, 3.0, 2.0, 9.0])
    assert axes.patches[-1].get_height() == 2.0
    names = [entry.get_label() for entry in layout_bars.handles(measured=True)]
    assert names == [*step.parts, "measured"]


@pytest.mark.parametrize(
    ("seconds", "size", "words"),
    [
        (2.5, 1.5e12, ("2.5 s", "1.5 TB")),
        (0.0425, 80e9, ("42.5 ms", "80 GB")),
        (3e-6, 153_696, ("3 µs", "154 kB")),
        (0.0, 12, ("0 µs", "12 B")),
    ],
)
def test_numbers_are_told_in_human_units(
    seconds: float, size: float, words: tuple[str, str]
) -> None:
    assert (human_time(seconds), human_bytes(size)) == words


def test_words_for_predictions_alone() -> None:
    step = Prediction(spnb.Layout(2, 1), {"passes": 1.0, "gather": 3.0}, 10, 5e9, True)
    assert "limited by gathering the predictions (75% of the time)" in describe([step], None)
