"""The record as text: a table of each part, and which goals are met."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from benchmarks import goals, record
from benchmarks.exactness import AVERAGED
from benchmarks.goals import Row, find, ratio
from benchmarks.scaling import ALONE, TOGETHER

LEFT = "<"


def text(parts: dict[str, Row]) -> str:
    """The whole report.

    Args:
        parts: what was measured, by part.
    """
    sections = [SECTIONS[name](part) for name, part in parts.items() if name in SECTIONS]
    return "\n\n".join([*sections, of_goals(parts)])


def of_goals(parts: dict[str, Row]) -> str:
    """The goals: target, found, verdict."""
    found = list(goals.check(parts))
    rows = [(goal.name, goal.target, goal.found, goal.verdict) for goal in found]
    met = sum(goal.met is True for goal in found)
    judged = sum(goal.met is not None for goal in found)
    heading = f"GOALS: {met} of {judged} met"
    if any(part.get("quick") for part in parts.values()):
        heading += " (a quick run has too few rounds to judge by)"
    return f"{heading}\n{table(('goal', 'target', 'found', ''), rows, '<><<')}"


def of_one_process(part: Row) -> str:
    """Step times in plain passes and in milliseconds."""
    times, blocks = part["times"], [heading("ONE PROCESS", part)]
    for workload in unique(times, "workload"):
        rows = [row for row in times if row["workload"] == workload]
        counts = unique(rows, "num_samples")
        lines = []
        for who in everybody(rows):
            cells = [who]
            for count in counts:
                row = find(rows, num_samples=count, who=who)
                unit = find(rows, num_samples=count, who="plain")
                cells += [f"{ratio(row, unit).median:.2f}", ms(row)] if row and unit else ["–", "–"]
            lines.append(cells)
        head = ["step in plain passes, and in ms"]
        for count in counts:
            head += [f"S = {count}", "ms"]
        blocks.append(f"{name_of(part, workload)}\n{table(head, lines)}")
    blocks += notes(part)
    return "\n\n".join(blocks)


def of_memory(part: Row) -> str:
    """Peak memory of a step."""
    lines = [
        (name_of(part, r["workload"]), r["who"], r["objective"], str(r["num_samples"]), mb(r))
        for r in part["peaks"]
    ]
    peaks = table(("peak memory", "", "objective", "S", "MB"), lines, "<<<>>")
    return "\n\n".join([heading("MEMORY", part), peaks, *notes(part)])


def of_scaling(part: Row) -> str:
    """Two ranks at constant work and at constant work a rank; four ranks."""
    blocks = [heading("TWO RANKS", part)]
    lines = []
    for row in part["two"]:
        case = {key: row[key] for key in ("workload", "num_samples")}
        one, alone = (find(part["two"], **case, who=who) for who in ("one rank", ALONE))
        limit = find(part["two"], **case, who=TOGETHER)
        speed = ratio(one, row).median if one else None
        share = "–"
        if row["who"] == TOGETHER and alone:
            speed = ratio(alone, row).median
        elif row["ranks"] > 1 and speed and alone and limit:
            share = f"{speed / ratio(alone, limit).median:.0%}"
        sent, waited = row["bytes_per_step"], row["seconds_in_collectives"]
        lines.append(
            (
                name_of(part, row["workload"]), str(row["num_samples"]), row["who"], ms(row),
                f"{speed:.2f}" if speed and row["who"] != ALONE else "–", share,
                f"{sent / 1e3:.0f}" if sent else "–", f"{waited * 1e3:.1f}" if waited else "–",
            )
        )  # fmt: skip
    head = ("same work", "S", "", "ms", "speed-up", "of limit", "kB/step", "ms sending")
    blocks.append(table(head, lines, "<><>>>>>"))
    blocks.append(
        "speed-up: over spnb on one rank, so a library that is slower than spnb starts below 1; "
        "of plain passes,\nover plain passes in one process: the machine's limit. "
        "ms sending: in collectives, waiting included."
    )
    lines = [
        (name_of(part, workload), str(each), f"{efficiency.median:.3f}", spread(efficiency))
        for workload, each, efficiency in goals.weak(part["two"])
    ]
    blocks.append(table(("weak scaling", "S a rank", "efficiency", "quartiles"), lines, "<>>>"))
    marked = any(row["oversubscribed"] for row in part["four"])
    title = "FOUR RANKS" + (
        ", OVERSUBSCRIBED: more processes than cores, so these times say nothing of speed"
        if marked
        else ""
    )
    lines = [
        (name_of(part, r["workload"]), str(r["num_samples"]), r["who"], ms(r)) for r in part["four"]
    ]
    blocks.append(f"{title}\n{table(('same work', 'S', '', 'ms'), lines, '<><>')}")
    blocks += notes(part)
    return "\n\n".join(blocks)


def of_exactness(part: Row) -> str:
    """Exact ways against plain averaging."""
    lines = []
    for row in part["times"]:
        case = {key: row[key] for key in ("workload", "num_samples")}
        reference = find(part["times"], **case, who=AVERAGED)
        found = ratio(row, reference) if reference else None
        lines.append(
            (name_of(part, row["workload"]), str(row["num_samples"]), row["who"], ms(row),
             f"{found.median:.3f}" if found else "–", spread(found) if found else "–")
        )  # fmt: skip
    head = ("two ranks", "S", "", "ms", "ratio", "quartiles")
    return f"{heading('EXACTNESS', part)}\n\n{table(head, lines, '<><>>>')}"


def of_update(part: Row) -> str:
    """Ways to synchronise and update."""
    lines = [
        (name_of(part, r["workload"]), str(2 * r["weights"]), r["who"], f"{r['median'] * 1e3:.2f}",
         f"{r['q1'] * 1e3:.2f}–{r['q3'] * 1e3:.2f}", f"{r['state_bytes'] / 1e6:.2f}")
        for r in part["times"]
    ]  # fmt: skip
    head = ("sum and update", "parameters", "way", "ms", "quartiles", "MB of state a rank")
    return "\n\n".join(
        [heading("UPDATE", part), table(head, lines, "<><>>>"), *part.get("notes", [])]
    )


def of_pool(part: Row) -> str:
    """The pool's own times."""
    lines = [(name, f"{seconds * 1e3:.1f}") for name, seconds in part["seconds"].items()]
    head = (f"two ranks; data of {part['megabytes']} MB", "ms")
    return f"{heading('POOL', part)}\n\n{table(head, lines)}"


def of_planner(part: Row) -> str:
    """Predicted and measured step times."""
    head = ("predicted and measured", "layout", "S", "predicted ms", "measured ms", "off by")
    lines = [
        (
            goals.workload_name(row["workload"]),
            row["layout"],
            str(row["num_samples"]),
            f"{1e3 * row['predicted']:.1f}",
            f"{1e3 * row['median']:.1f}",
            f"{row['error']:+.0%}",
        )
        for row in part["times"]
    ]
    return f"{heading('PLANNER', part)}\n\n{table(head, lines, '<<>>>>')}"


def of_prediction(part: Row) -> str:
    """Times of a prediction on one and two ranks."""
    head = ("prediction", "S", "inputs", "", "ms")
    lines = [
        (
            goals.workload_name(row["workload"]),
            str(row["num_samples"]),
            str(row["inputs"]),
            row["who"],
            ms(row),
        )
        for row in part["times"]
    ]
    return f"{heading('PREDICTION', part)}\n\n{table(head, lines, '<>><>')}"


def of_sharding(part: Row) -> str:
    """Times, memory and traffic of two ranks with and without shared-out parameters."""
    head = ("sharing out parameters", "S", "", "ms", "kept MB", "sent MB a step")
    lines = [
        (
            goals.workload_name(row["workload"]),
            str(row["num_samples"]),
            row["who"],
            ms(row),
            f"{row['kept'] / 1e6:.2f}",
            f"{row['sent'] / 1e6:.2f}",
        )
        for row in part["times"]
    ]
    return f"{heading('SHARDING', part)}\n\n{table(head, lines, '<><>>>')}"


SECTIONS = {
    "one_process": of_one_process,
    "memory": of_memory,
    "scaling": of_scaling,
    "exactness": of_exactness,
    "update": of_update,
    "planner": of_planner,
    "prediction": of_prediction,
    "sharding": of_sharding,
    "pool": of_pool,
}


def table(head: Sequence[str], rows: Iterable[Sequence[str]], align: str = "") -> str:
    """Aligned text.

    Args:
        head: titles of the columns.
        rows: the cells.
        align: ``<`` or ``>`` for each column. Default: the first to the left, others to the right.
    """
    lines = [list(head), *(list(row) for row in rows)]
    align = align or LEFT + ">" * (len(head) - 1)
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(f"{c:{a}{w}}" for c, a, w in zip(line, align, widths, strict=True)).rstrip()
        for line in lines
    )


def heading(title: str, part: Row) -> str:
    """Title and origin of a part."""
    busy = part["others_busy"]
    told = "unknown" if busy is None else f"{busy:.2f} cores"
    return (
        f"{title}\n{record.line(part)}\n{part['provenance']['date']}, "
        f"{part['seconds_taken']:.0f} s; busy with other programs meanwhile: {told}"
    )


def notes(part: Row) -> Iterator[str]:
    """What was left out, and why."""
    if part["skipped"]:
        yield "Left out: " + "; ".join(f"{who} ({why})" for who, why in part["skipped"].items())


def name_of(part: Row, workload: str) -> str:
    """A workload's short name."""
    name: str = part["provenance"]["workloads"][workload]["name"]
    return name.split(" (")[0]


def everybody(rows: Sequence[Row]) -> list[str]:
    """The names in a record of one process: ours first, then plain passes, then the others."""
    order = {"spnb": 0, "spnb, antithetic": 1, "plain": 2}
    return sorted(unique(rows, "who"), key=lambda who: order.get(who, 3))


def unique(rows: Iterable[Row], key: str) -> list[Any]:
    """The values of a field, in order of appearance."""
    return list(dict.fromkeys(row[key] for row in rows))


def ms(row: Row) -> str:
    """A row's median in milliseconds."""
    return f"{row['median'] * 1e3:.1f}"


def mb(row: Row) -> str:
    """A row's bytes in 10^6."""
    return f"{row['bytes'] / 1e6:.1f}"


def spread(found: Any) -> str:
    """Quartiles of a ratio."""
    return f"{found.q1:.3f}–{found.q3:.3f}"
