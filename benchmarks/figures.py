"""The figures of the benchmark, from the record alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import goals, record
from benchmarks.exactness import AVERAGED, EXACT, TWO_PASSES
from benchmarks.goals import Row, cases_of, find, label, ratio_in
from benchmarks.measure import Timing
from benchmarks.report import everybody, name_of, unique
from benchmarks.scaling import ALONE, TOGETHER
from spnb.teach.figures import BLACK, BLUE, COLOURS, GREY, SKY, footnote, new, png

MARKERS = "o s ^ D v P X < > * h p d".split()
DASHES = ("--", "-.", ":", (0, (5, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)))
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo")
LEGEND = {
    "sample-parallel": "spnb, sample-parallel",
    "data-parallel": "spnb, data-parallel",
    "DDP": "torch's DDP, same posterior",
}
TICKS = (0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12, 16, 20, 30)


def draw_all(parts: dict[str, Row], folder: Path) -> list[Path]:
    """Draw every figure for which there is a part.

    Args:
        parts: what was measured, by part.
        folder: where to write; made if it is not there.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, draw in FIGURES.items():
        if name in parts:
            path = folder / f"{name}.png"
            path.write_bytes(png(draw(parts[name])))
            drawn.append(path)
    return drawn


def one_process(part: Row) -> Figure:
    """Step time in plain passes against S."""
    workloads = unique(part["times"], "workload")
    figure, axes = new(12.4, 5.4, columns=len(workloads), squeeze=False)
    for column, workload in enumerate(workloads):
        step_times(axes[0, column], part, workload)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5)
    close(figure, part)
    return figure


def step_times(axes: Axes, part: Row, workload: str) -> None:
    """A line for everybody, in plain passes."""
    rows = [row for row in part["times"] if row["workload"] == workload]
    names = [who for who in everybody(part["times"]) if who != "plain"]
    for who in names:
        found = {
            count: ratio_in(rows, {"num_samples": count}, who, "plain")
            for count in unique(rows, "num_samples")
        }
        points = {count: timing for count, timing in found.items() if timing is not None}
        values = [timing.median for timing in points.values()]
        low = [timing.median - timing.q1 for timing in points.values()]
        high = [timing.q3 - timing.median for timing in points.values()]
        axes.errorbar(
            list(points), values, yerr=[low, high], label=who, **line(who, names), capsize=2
        )
    axes.axhline(1, color=BLACK, lw=1.2, label="S plain passes")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    counts = unique(rows, "num_samples")
    axes.set_xticks(counts, [str(count) for count in counts])
    low, high = axes.get_ylim()
    ticks = [tick for tick in TICKS if low < tick < high]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    batch = part["provenance"]["workloads"][workload]["batch_size"]
    axes.set(
        title=f"{name_of(part, workload)}, B = {batch}",
        xlabel="samples of the weights S",
        ylabel="time of a step\n(in S plain passes; median, quartiles)",
    )


def line(who: str, names: Sequence[str]) -> dict[str, Any]:
    """Ours thick and solid, everybody else thin and in their own dashes, marker and colour."""
    if who.startswith("spnb"):
        antithetic = who != "spnb"
        return {"color": SKY if antithetic else BLUE, "linestyle": "-", "lw": 3.2,
                "marker": "s" if antithetic else "o", "markersize": 7, "zorder": 5}  # fmt: skip
    number = [name for name in names if not name.startswith("spnb")].index(who)
    colours = [colour for colour in COLOURS if colour not in (BLUE, SKY)] + [GREY, BLACK]
    dashes = number + number // len(colours)  # no two lines of one colour have the same
    return {"color": colours[number % len(colours)], "linestyle": DASHES[dashes % len(DASHES)],
            "lw": 1.3, "marker": MARKERS[2 + number % (len(MARKERS) - 2)]}  # fmt: skip


def memory(part: Row) -> Figure:
    """Peak memory of everybody, of ours at several S."""
    workloads = unique(part["peaks"], "workload")
    figure, axes = new(12.4, 5.2, columns=len(workloads), squeeze=False)
    for column, workload in enumerate(workloads):
        peaks(axes[0, column], part, workload)
    close(figure, part)
    return figure


def peaks(axes: Axes, part: Row, workload: str) -> None:
    """A bar for everybody, several for us."""
    rows = [row for row in part["peaks"] if row["workload"] == workload]
    labels = []
    for place, row in enumerate(rows):
        mine = row["who"].startswith("spnb")
        two_passes = row["objective"] != "ELBO"
        size = row["bytes"] / 1e6
        axes.barh(
            place, size, color=(SKY if two_passes else BLUE) if mine else GREY,
            hatch=("//" if two_passes else "") if mine else "..", ec="white", lw=0.6,
        )  # fmt: skip
        axes.text(size, place, f" {size:.0f}", va="center", fontsize=9)
        passes = f" ({row['objective']})" if two_passes else ""
        labels.append(f"{row['who']}, S = {row['num_samples']}{passes}")
    axes.set_yticks(range(len(rows)), labels, fontsize=8.5)
    axes.invert_yaxis()
    axes.margins(x=0.12, y=0.02)
    axes.grid(axis="y", visible=False)
    axes.set(
        title=f"Peak memory of a step, {name_of(part, workload)}",
        xlabel="MB above what is there before the first step",
    )


def scaling(part: Row) -> Figure:
    """Strong and weak scaling of two ranks, and four ranks that share two cores."""
    figure, (strong, weak, four) = new(
        14.4, 5.4, columns=3, gridspec_kw={"width_ratios": [3.0, 1.2, 1.5]}
    )
    strong_bars(strong, part["two"])
    weak_bars(weak, part["two"])
    four_bars(four, part["four"])
    close(figure, part)
    return figure


def strong_bars(axes: Axes, rows: Sequence[Row]) -> None:
    """Bars of each case, and the machine's limit above them."""
    ways = [w for w in unique(rows, "who") if w not in ("one rank", ALONE, TOGETHER)]
    cases = [c for c in cases_of(rows) if find(rows, workload=c[0], num_samples=c[1], who="DDP")]
    width = 0.82 / len(ways)
    for place, (workload, count) in enumerate(cases):
        case = {"workload": workload, "num_samples": count}
        for number, who in enumerate(ways):
            found = ratio_in(rows, case, "one rank", who)
            if found is not None:
                bar(
                    axes, place + (number - (len(ways) - 1) / 2) * width, found, number, width,
                    label=LEGEND.get(who, who) if place == 0 else None,
                )  # fmt: skip
        limit = ratio_in(rows, case, ALONE, TOGETHER)
        if limit is not None:
            axes.hlines(
                limit.median, place - 0.45, place + 0.45, color=BLACK, lw=2,
                label="the machine's limit: two processes at once" if place == 0 else None,
            )  # fmt: skip
    axes.set_xticks(range(len(cases)), [label(*case) for case in cases])
    axes.set_ylim(0, 2.75)
    axes.set(
        title="Constant work, two ranks",
        ylabel="times as fast as spnb on one rank\n(median, quartiles)",
    )
    axes.grid(axis="x", visible=False)
    axes.legend(loc="upper center", ncols=2, fontsize=8.5)


def weak_bars(axes: Axes, rows: Sequence[Row]) -> None:
    """Efficiency with the same work a rank."""
    found = list(goals.weak(rows))
    for place, (_, _, efficiency) in enumerate(found):
        bar(axes, place, efficiency, 0, 0.6)
    axes.axhline(1, color=BLACK, lw=1)
    axes.set_xticks(range(len(found)), [f"{label(w, each)}\na rank" for w, each, _ in found])
    axes.tick_params(axis="x", labelsize=8.5)
    axes.set_ylim(0, 1.19)
    axes.set(
        title="Constant work a rank",
        ylabel="time of one rank over that of two\n(median, quartiles)",
    )
    axes.grid(axis="x", visible=False)


def four_bars(axes: Axes, rows: Sequence[Row]) -> None:
    """Layouts of four ranks."""
    if not rows:
        axes.set_axis_off()
        return
    workload, count = cases_of(rows)[0]
    ways = [row for row in rows if (row["workload"], row["num_samples"]) == (workload, count)]
    for place, row in enumerate(ways):
        axes.bar(
            place, row["median"] * 1e3, 0.7, color=GREY if row["ranks"] == 1 else SKY,
            hatch="//" if row["oversubscribed"] else "", ec="white",
        )  # fmt: skip
        axes.text(
            place, row["median"] * 1e3, f"{row['median'] * 1e3:.0f}", ha="center", va="bottom"
        )
    names = [row["who"].replace(" × ", "\n") for row in ways]
    axes.set_xticks(range(len(ways)), names, fontsize=8.5)
    axes.grid(axis="x", visible=False)
    marked = any(row["oversubscribed"] for row in ways)
    axes.set(
        title=f"Four ranks, {label(workload, count)}",
        ylabel="time of a step (ms, median)",
        xlabel="hatched: oversubscribed (more processes\nthan cores), says nothing of speed"
        if marked
        else None,
    )


def exactness(part: Row) -> Figure:
    """What exactness costs over plain averaging."""
    figure, axes = new(10.4, 4.4)
    rows = part["times"]
    cases = cases_of(rows)
    for place, (workload, count) in enumerate(cases):
        case = {"workload": workload, "num_samples": count}
        for number, who in enumerate((EXACT, TWO_PASSES)):
            found = ratio_in(rows, case, who, AVERAGED)
            if found is not None:
                bar(axes, place + (number - 0.5) * 0.36, found, number, 0.36,
                    label=who if place == 0 else None)  # fmt: skip
    axes.axhline(1, color=BLACK, lw=1.2)
    axes.set_xticks(range(len(cases)), [label(*case) for case in cases])
    axes.set(
        title="The price of exactness on two ranks (−log of the mean prediction)",
        ylabel="time of a step over plain averaging\n(median, quartiles)",
    )
    axes.margins(y=0.25)
    axes.grid(axis="x", visible=False)
    axes.legend(loc="upper left", ncols=2)
    close(figure, part)
    return figure


def bar(
    axes: Axes, place: float, found: Timing, number: int, width: float, label: str | None = None
) -> None:
    """A bar with its quartiles and its value."""
    error = [[found.median - found.q1], [found.q3 - found.median]]
    axes.bar(
        place, found.median, width, yerr=error, color=COLOURS[number % len(COLOURS)],
        hatch=HATCHES[number % len(HATCHES)], ec="white", lw=0.6, label=label, capsize=2,
        error_kw={"lw": 1},
    )  # fmt: skip
    axes.text(
        place, 0.03, f"{found.median:.2f}", ha="center", va="bottom", fontsize=8.5,
        transform=axes.get_xaxis_transform(), bbox={"fc": "white", "ec": "none", "pad": 1.2},
    )  # fmt: skip


def close(figure: Figure, part: Row) -> None:
    """The origin of the numbers."""
    footnote(figure, record.line(part))


FIGURES: dict[str, Callable[[Row], Figure]] = {
    "one_process": one_process,
    "memory": memory,
    "scaling": scaling,
    "exactness": exactness,
}
