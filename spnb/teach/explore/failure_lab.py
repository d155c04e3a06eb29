"""The failure lab: let a rank of a real run fail, and see when and how the notebook notices."""

from __future__ import annotations

from ipywidgets import IntSlider, ToggleButton
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spnb.parallel.pool import WorkerPool
from spnb.teach import figures
from spnb.teach.controls import buttons, come_out
from spnb.teach.explorable import Explorable
from spnb.teach.failing import FAILURES, Outcome, provoke

NOTEBOOK = "notebook"


def failure_lab(pool: WorkerPool) -> Explorable:
    """The explorable: choose a failure and a rank, press the button, and read the lanes.

    Args:
        pool: the live ranks; it works on afterwards. Once it is closed, what was seen is kept.
    """
    kept: dict[tuple[str, int], Outcome] = {}

    def draw(figure: Figure, failure: str, rank: int, let_it_fail: bool) -> str:
        question = (failure, rank)
        if let_it_fail and question not in kept and not pool.closed:
            kept[question] = provoke(pool, failure, rank)
        axes = figure.subplots()
        figure.subplots_adjust(left=0.13, bottom=0.2, right=0.97, top=0.86)
        outcome = kept.get(question)
        lanes = [*(f"rank {r}" for r in range(pool.size)), NOTEBOOK]
        axes.set_yticks(range(len(lanes)), lanes)
        axes.set(ylim=(len(lanes) - 0.4, -0.6), xlabel="seconds from the start of the run")
        axes.grid(axis="y", visible=False)
        if outcome is None:
            axes.set(xlim=(0, 1), xticks=[])
            asked = "you press ■" if failure == "you press ■" else f"rank {rank} {failure}"
            axes.text(0.5, 1, f"{asked}: not provoked yet", ha="center", va="center",
                      color=figures.GREY)  # fmt: skip
            why = (
                "The pool is closed: restart it first."
                if pool.closed
                else "Press the button, and it really does."
            )
            return f"Rank {rank} {FAILURES[failure][0]}. {why}"
        draw_lanes(axes, outcome, failure, rank, pool.size)
        return describe(outcome, failure, rank, pool.size)

    def notice(failure: str, rank: int, let_it_fail: bool) -> str | None:
        if not let_it_fail or pool.closed or (failure, rank) in kept:
            return None
        return f"The ranks work; rank {rank} {FAILURES[failure][0]} ..."

    controls = {
        "failure": buttons(list(FAILURES), description="the rank"),
        "rank": IntSlider(pool.size - 1, min=0, max=pool.size - 1, description="which rank"),
        "let_it_fail": ToggleButton(description="Let it fail"),
    }

    come_out(controls["let_it_fail"], [controls[name] for name in ("failure", "rank")])
    return Explorable(
        "failures", draw, width=8.0, height=2.9, continuous_update=False, notice=notice, **controls
    )


def draw_lanes(axes: Axes, outcome: Outcome, failure: str, rank: int, ranks: int) -> None:
    """A lane for each rank and the notebook: work, the failure, its discovery, and the next run.

    Args:
        axes: where to draw.
        outcome: what was measured.
        failure: one of `FAILURES`.
        rank: the rank that failed.
        ranks: the world size.
    """
    end = outcome.mended_at
    pressed = failure == "you press ■"
    for lane in range(ranks):
        stop = outcome.failed_at if lane == rank and not pressed else outcome.noticed_at
        works = "_" if lane else "works"
        axes.barh(lane, stop, 0.5, color=figures.BLUE, alpha=0.6, label=works)
        new = lane in outcome.renewed
        axes.barh(
            lane,
            end - outcome.noticed_at,
            0.5,
            outcome.noticed_at,
            facecolor=figures.GREEN,
            edgecolor="black" if new else "none",
            hatch="//" if new else None,
            alpha=0.6,
            label=f"next run, {'new' if new else 'same'} process",
        )
    place = ranks if pressed else rank
    axes.plot(outcome.failed_at, place, "X", ms=12, color=figures.VERMILLION, mec="black",
              label="you press ■" if pressed else "fails", ls="none")  # fmt: skip
    axes.plot(outcome.noticed_at, ranks, "D", ms=8, color="white", mec="black", ls="none",
              label="error in the cell")  # fmt: skip
    axes.plot(end, ranks, "o", ms=8, color=figures.GREEN, mec="black", ls="none",
              label="next run has answered")  # fmt: skip
    axes.set_xlim(0, 1.05 * end)
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    axes.legend(once.values(), once, loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=6,
                fontsize=8.5, columnspacing=0.9, handlelength=1.3, handletextpad=0.4)  # fmt: skip


def describe(outcome: Outcome, failure: str, rank: int, ranks: int) -> str:
    """When it was noticed, what the cell said, and who lives on."""
    later = 1000 * (outcome.noticed_at - outcome.failed_at)
    mended = outcome.mended_at - outcome.noticed_at
    who = "You press ■" if failure == "you press ■" else f"Rank {rank} {FAILURES[failure][0]}"
    kept = ranks - len(outcome.renewed)
    lives = (
        "all processes are the same"
        if not outcome.renewed
        else f"{len(outcome.renewed)} new, {kept} the same"
    )
    return (
        f"{who} {outcome.failed_at:.2f} s after the start. {later:.0f} ms later the cell ends with "
        f"{outcome.error}: “{outcome.message}” The next run answers after {mended:.2f} s more; "
        f"processes: {lives}."
    )
