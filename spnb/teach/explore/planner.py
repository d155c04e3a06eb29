"""The layout planner: what a step costs in every layout of up to 1,024 ranks, and which one wins.

What a network costs was measured or counted once (`spnb.plan`). All else is the arithmetic of
`spnb.run.step_cost.predict`, so the figure follows its controls at once.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ipywidgets import SelectionSlider
from matplotlib.figure import Figure

from spnb.maths.objectives import ELBO, Objective, PredictiveNLL
from spnb.parallel.layout import Layout
from spnb.run.plan import Plan, layouts
from spnb.run.step_cost import Prediction, predict
from spnb.teach.controls import buttons
from spnb.teach.explorable import Explorable
from spnb.teach.explore.layout_bars import draw_layouts, human_bytes, human_time

OBJECTIVES: dict[str, tuple[Objective, bool]] = {
    "ELBO": (ELBO(), False),
    "predictive NLL": (PredictiveNLL(), False),
    "predictive NLL, recompute": (PredictiveNLL(), True),
}
"""What can be minimised: the objective, and whether its samples are evaluated twice."""

RANKS = [2**i for i in range(11)]
SAMPLES = [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64, 128, 256, 512, 1024]
ROWS = [8, 16, 25, 32, 64, 100, 128, 256, 512, 1024, 2048, 4096]
LIMITS = [f * 10.0**p for p in (3, 6, 9) for f in (1, 2, 4, 8, 16, 40, 80, 160, 400)]
MACHINES = 0.0
"""Stands for the machine's own memory limit in the slider, which cannot hold None."""

_BOUND = {
    "passes": "the network's passes",
    "draw": "drawing the weights",
    "update": "the update",
    "all-reduce": "the all-reduce",
    "gather": "gathering the predictions",
}


@dataclass(frozen=True)
class Measured:
    """A step that was really taken.

    Attributes:
        machine: which of the planner's plans it belongs to, by name.
        layout: in which layout.
        samples: S, over all ranks.
        rows: B, over all ranks.
        seconds: how long it took.
        objective: which of `OBJECTIVES` it minimised.
    """

    machine: str
    layout: Layout
    samples: int
    rows: int
    seconds: float
    objective: str = "ELBO"


def predictions(
    plan: Plan,
    ranks: int,
    samples: int,
    rows: int,
    objective: str = "ELBO",
    limit: float | None = None,
) -> list[Prediction]:
    """Predictions for all layouts of some ranks, the one with most ranks along ``sample`` first.

    Args:
        plan: of the network on the machine; only its costs and constants are looked at.
        ranks: world size W.
        samples: S, over all ranks.
        rows: B, over all ranks.
        objective: one of `OBJECTIVES`.
        limit: bytes a rank may use; None: no limit.
    """
    chosen, recompute = OBJECTIVES[objective]
    found = [
        predict(plan.costs, plan.machine, layout, samples, rows, chosen, recompute, limit)
        for layout in layouts(ranks, samples, rows)
    ]
    return found[::-1]


def layout_planner(
    plans: Mapping[str, Plan],
    *,
    measured: Sequence[Measured] = (),
    ranks: int = 8,
    samples: int = 8,
    rows: int = 64,
) -> Explorable:
    """The explorable: machine, ranks, S, B, objective and memory limit; a bar for every layout.

    Args:
        plans: a plan for each choice of a network on a machine, by a short name.
        measured: steps that were really taken, drawn as diamonds where they fit the controls.
        ranks: world size at the beginning, a power of two up to 1,024.
        samples: S at the beginning.
        rows: B at the beginning.
    """

    def draw(
        figure: Figure,
        machine: str,
        ranks: int,
        samples: int,
        rows: int,
        objective: str,
        limit: float,
    ) -> str:
        count = f"{ranks:,} ranks" if ranks > 1 else "1 rank"
        setting = f"{machine}, {count}, S = {samples}, B = {rows}"
        bound = plans[machine].machine.memory if limit == MACHINES else limit
        try:
            found = predictions(plans[machine], ranks, samples, rows, objective, bound)
        except ValueError as refusal:  # a machine of one host
            return _say(figure, f"{setting}: {refusal}")
        if not found:
            return _say(
                figure,
                f"{setting}: no layout gives each rank something to do. Use fewer ranks, or more "
                "samples or rows.",
            )
        seen = {
            m.layout: m.seconds
            for m in measured
            if (m.machine, m.samples, m.rows, m.objective) == (machine, samples, rows, objective)
            and m.layout.size == ranks
        }
        draw_layouts(figure, found, best_of(found), seen)
        return f"{setting}, {objective}. {describe(found, bound, seen)}"

    style = {"description_width": "90px"}
    return Explorable(
        "planner",
        draw,
        width=8.8,
        height=4.3,
        machine=buttons(list(plans), description="machine", width="auto"),
        objective=buttons(list(OBJECTIVES), description="objective", width="auto"),
        ranks=SelectionSlider(options=RANKS, value=ranks, description="ranks W", style=style),
        samples=SelectionSlider(
            options=sorted({*SAMPLES, samples}),
            value=samples,
            description="samples S",
            style=style,
        ),
        rows=SelectionSlider(
            options=sorted({*ROWS, rows}), value=rows, description="rows B", style=style
        ),
        limit=SelectionSlider(
            options=[("its own", MACHINES), *_limits(plans)],
            value=MACHINES,
            description="memory limit",
            style=style,
        ),
    )


def best_of(found: Sequence[Prediction]) -> Prediction | None:
    """The fastest layout that fits into memory, None if none does."""
    return min((p for p in found if p.fits), key=lambda p: p.seconds, default=None)


def describe(
    found: Sequence[Prediction], limit: float | None, seen: Mapping[Layout, float] | None = None
) -> str:
    """What there is to read off: the best layout, its time, bytes and memory, and its limit.

    Args:
        found: a prediction for each layout.
        limit: bytes a rank may use; None: no limit is known.
        seen: measured seconds by layout.
    """
    within = "" if limit is None else f" of {human_bytes(limit)}"
    best = best_of(found)
    if best is None:
        least = min(found, key=lambda p: p.memory)
        return (
            f"No layout fits into memory: the smallest, {least.layout}, needs "
            f"{human_bytes(least.memory)}{within} a rank."
        )
    kind, largest = max(best.parts.items(), key=lambda part: part[1])
    sent = human_bytes(best.bytes_per_step) if best.bytes_per_step else "nothing"
    text = (
        f"Best: {best.layout} with {human_time(best.seconds)} a step, limited by {_BOUND[kind]} "
        f"({largest / best.seconds:.0%} of the time). A rank sends {sent} a step and needs "
        f"{human_bytes(best.memory)}{within}."
    )
    if excluded := sum(not p.fits for p in found):
        text += f" Of {len(found)} layouts, {excluded} do not fit into memory."
    for layout, seconds in (seen or {}).items():
        text += f" Measured for {layout}: {human_time(seconds)}."
    return text


def _limits(plans: Mapping[str, Plan]) -> list[tuple[str, float]]:
    """Limits to choose from: from too little for a rank's state to the largest machine's memory."""
    least = min(9 * plan.costs.weights * plan.costs.itemsize for plan in plans.values())
    most = max(200 * least, *(plan.machine.memory or 0 for plan in plans.values()))
    return [(human_bytes(size), size) for size in LIMITS if least / 2 <= size <= most]


def _say(figure: Figure, text: str) -> str:
    """Show a sentence where no bars can be."""
    figure.text(0.5, 0.5, "\n".join(textwrap.wrap(text, 80)), ha="center", va="center")
    return text
