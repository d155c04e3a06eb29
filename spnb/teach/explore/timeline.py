"""The per-rank timeline: where the time of one real step goes, on every rank, as a Gantt chart.

The spans are those that `spnb.run.timeline` records, on a clock that the ranks of a host share.
One thing is read off by comparing the ranks: an all-reduce begins with *waiting* until the last
rank has come, and only what is left of it is sending. Every kind of work has a colour and a
hatching, so the chart reads without colours too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ipywidgets import Dropdown, IntSlider, SelectionSlider
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spnb.maths.posteriors import Posterior
from spnb.parallel.layout import Layout
from spnb.parallel.pool import WorkerPool
from spnb.parallel.trace import Span
from spnb.teach import figures
from spnb.teach.controls import buttons
from spnb.teach.explorable import Explorable
from spnb.teach.racing import Data, duration, least_disturbed_step

Timeline = Sequence[Sequence[Span]]
"""The spans of one step, by rank; none where a rank had nothing to do."""

KINDS = {
    "prepare": (figures.GREY, "xxxx"),
    "draw": (figures.ORANGE, "////"),
    "forward": (figures.SKY, ""),
    "backward": (figures.BLUE, "\\\\\\"),
    "divergence": (figures.PURPLE, "++++"),
    "all-gather": (figures.YELLOW, "----"),
    "waiting": ("white", "..."),
    "all-reduce": (figures.VERMILLION, "----"),
    "update": (figures.GREEN, "||||"),
}
"""What a rank may be doing: the colour and the hatching of its bars, in the order of a step."""


NO_GAP = 0.02
"""Milliseconds between two bars of a kind up to which they are drawn as one."""


def with_waiting(timeline: Timeline) -> list[list[Span]]:
    """The spans with every all-reduce cut in two: waiting for the last rank to come, and the rest.

    Args:
        timeline: the spans of each rank, on one clock.
    """
    reduces = [[span for span in spans if span.name == "all-reduce"] for spans in timeline if spans]
    last = [max(span.start for span in together) for together in zip(*reduces, strict=True)]
    cut = []
    for spans in timeline:
        own: list[Span] = []
        arrivals = iter(last)
        for span in spans:
            if span.name == "all-reduce":
                met = min(next(arrivals), span.stop)
                own += [Span("waiting", span.start, met), Span("all-reduce", met, span.stop)]
            else:
                own.append(span)
        cut.append(own)
    return cut


def milliseconds(timeline: Timeline) -> list[dict[str, float]]:
    """How long each rank did what, in milliseconds, by kind; what is left of its step is "other".

    A rank without spans has no entries.
    """
    found = []
    for spans in with_waiting(timeline):
        spent: dict[str, float] = {}
        for kind in (*KINDS, "step"):
            if any(span.name == kind for span in spans):
                spent[kind] = 1000 * sum(span.seconds for span in spans if span.name == kind)
        if spans:
            spent["other"] = max(0.0, 2 * spent["step"] - sum(spent.values()))
            del spent["step"]
        found.append(spent)
    return found


def draw_timeline(axes: Axes, timeline: Timeline, longest: float | None = None) -> None:
    """Draw a step as a Gantt chart, one row a rank, with a label for each kind of work.

    Args:
        axes: where to draw.
        timeline: the spans of each rank, on one clock.
        longest: where the time axis ends, in milliseconds; the step's end if None.
    """
    start = min(span.start for spans in timeline for span in spans if span.name == "step")
    seen: set[str] = set()
    for rank, spans in enumerate(with_waiting(timeline)):
        if not spans:
            axes.text(0, rank, " nothing to do", va="center", color=figures.GREY)
        for kind, (colour, hatch) in KINDS.items():
            bars = [(1e3 * (s.start - start), 1e3 * s.seconds) for s in spans if s.name == kind]
            if bars:
                bar = axes.broken_barh(_joined(bars), (rank - 0.38, 0.76), lw=0)
                bar.set(facecolor=colour, hatch=hatch, edgecolor="black")
                bar.set_label(f"_{kind}" if kind in seen else kind)
                seen.add(kind)
    ranks = range(len(timeline))
    axes.set(xlabel="ms from the common start", ylim=(len(timeline) - 0.5, -0.5))
    axes.set_yticks(list(ranks), [f"rank {rank}" for rank in ranks])
    axes.set_xlim(0, 1.01 * (duration(timeline) if longest is None else longest))
    axes.grid(axis="y", visible=False)


def _joined(bars: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Bars of one kind, start and length, with those joined between which there is no gap to see.

    A sample's forward pass is two spans: the network, and the loss.
    """
    joined = bars[:1]
    for start, length in bars[1:]:
        before, so_long = joined[-1]
        if start - (before + so_long) < NO_GAP:
            joined[-1] = (before, start + length - before)
        else:
            joined.append((start, length))
    return joined


def describe(timeline: Timeline) -> str:
    """The step in words: how long it took, and what each rank did for how many milliseconds."""
    spent = milliseconds(timeline)
    parts = []
    for kind in (*KINDS, "other"):
        if any(kind in one for one in spent):
            values = [f"{one.get(kind, 0.0):.1f}" for one in spent if one]
            parts.append(f"{kind} {' | '.join(values)}")
    draws = [sum(span.name == "draw" for span in spans) for spans in timeline if spans]
    who = [f"rank {rank}" for rank, one in enumerate(spent) if one]
    return (
        f"The step took {duration(timeline):.1f} ms; "
        f"draws of the weights: {' | '.join(map(str, draws))}. "
        f"In ms, {' | '.join(who)}: {', '.join(parts)}."
    )


def timeline_explorer(
    pool: WorkerPool,
    workloads: Mapping[str, tuple[Posterior, Data]],
    *,
    samples: Sequence[int] = (2, 3, 4, 8, 16),
    num_samples: int = 8,
    known: Mapping[tuple[str, str, int], Timeline] | None = None,
) -> Explorable:
    """The explorable: choose network, way of sharing and S, and see a real step of it.

    Each setting is measured when it is first asked for, and kept; another take is another
    measurement. Once the pool is closed, only what was measured before can be seen.

    Args:
        pool: the live ranks.
        workloads: a posterior and a batch ``(x, y)``, by name.
        samples: choices for S.
        num_samples: the first choice.
        known: steps that were measured already, by workload, way and S: the first takes.
    """
    ways = {
        "one rank": None,
        "share samples": Layout(sample=pool.size),
        "share batch": Layout(data=pool.size),
    }
    kept: dict[tuple[str, str, int, int], Timeline] = {
        (*setting, 1): timeline for setting, timeline in (known or {}).items()
    }

    def draw(figure: Figure, network: str, way: str, samples: int, take: int) -> str:
        setting = (network, way, samples, take)
        axes = figure.subplots()
        figure.subplots_adjust(left=0.08, bottom=0.3, top=0.89)
        title = f"{network}, S = {samples}, {way}"
        axes.set_title(title)
        fresh = setting not in kept
        if fresh and pool.closed:
            axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes)
            axes.set(xticks=[], yticks=[])
            return (
                f"{title}, take {take} was not measured before the pool was closed, so there is "
                f"nothing to show. Settings that can still be seen: {len(kept)}."
            )
        if fresh:
            kept[setting] = least_disturbed_step(pool, *workloads[network], ways[way], samples)
        alike = [t for (name, _, s, _), t in kept.items() if (name, s) == (network, samples)]
        draw_timeline(axes, kept[setting], max(map(duration, alike)))
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=len(labels), columnspacing=1.1)
        when = "measured just now" if fresh else "measured before"
        return f"{title} ({when}). {describe(kept[setting])}"

    def notice(network: str, way: str, samples: int, take: int) -> str | None:
        if pool.closed or (network, way, samples, take) in kept:
            return None
        return "Measuring this step on the live ranks ..."

    return Explorable(
        "timeline",
        draw,
        width=8.6,
        height=2.7,
        continuous_update=False,
        notice=notice,
        network=Dropdown(options=list(workloads), description="network"),
        way=buttons(list(ways), width="130px"),
        samples=SelectionSlider(options=list(samples), value=num_samples, description="samples S"),
        take=IntSlider(1, min=1, max=5, description="take"),
    )
