"""The failure lab of a training run: what is lost when a rank meets with an accident, measured."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any

from ipywidgets import IntSlider, SelectionSlider, ToggleButton
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from spnb.maths.posteriors import Posterior
from spnb.parallel.pool import WorkerPool
from spnb.teach import figures
from spnb.teach.accident import KINDS, PRESSED, Story, live_through
from spnb.teach.controls import buttons, come_out
from spnb.teach.explorable import Explorable

EVERY = (1, 3, 6, 12, 24, "never")
"""Steps from one checkpoint to the next, as the reader chooses them."""

Question = tuple[str, int, int, Any]


def accident_lab(
    pool: WorkerPool,
    posterior: Posterior,
    data: Sequence[Tensor],
    *,
    batch_size: int,
    epochs: int,
    **settings: Any,
) -> Explorable:
    """The explorable: choose an accident, say what it will cost, and let it happen.

    An undisturbed run and a first accident are measured when it is made.

    Args:
        pool: live ranks, made with ``restarts`` and ``patience``; it works on afterwards. Once it
            is closed, what was seen is kept.
        posterior: where the runs start from.
        data: what they learn from.
        batch_size: rows a step.
        epochs: passes over the data.
        **settings: further ones for `spnb.fit`.
    """
    steps = -(-len(data[0]) // batch_size) * epochs
    settings |= {"batch_size": batch_size, "epochs": epochs}

    def live(**accident: Any) -> Story:
        return live_through(pool, posterior, data, **settings | accident)

    live(every=steps)  # the first run of a pool is slower
    whole = live(every=steps)
    first: Question = ("killed", pool.size - 1, 6 * steps // 10, 12)

    def happen(kind: str, rank: int, step: int, every: Any) -> Story:
        often = steps if every == "never" else every
        return live(kind=kind, rank=rank, step=step, every=often)

    kept = {first: happen(*first)}

    def draw(
        figure: Figure, accident: str, rank: int, step: int, every: Any, let_it_happen: bool
    ) -> str:
        question = (accident, rank, step, every)
        if let_it_happen and question not in kept and not pool.closed:
            kept[question] = happen(*question)
        axes = figure.subplots()
        figure.subplots_adjust(left=0.08, right=0.985, top=0.86, bottom=0.16)
        often = steps if every == "never" else every
        story = kept.get(question)
        draw_run(axes, whole, story, step, often)
        axes.set(ylim=(-1, steps + 3), ylabel="steps done", xlabel="seconds from the start")
        axes.set_xlim(0, 1.05 * (story or whole).ended_at)
        axes.legend(loc="lower center", bbox_to_anchor=(0.46, 1.0), ncols=7, fontsize=8.5,
                    columnspacing=1.0, handlelength=1.5, handletextpad=0.4)  # fmt: skip
        if story is None:
            return (
                f"Suppose that at step {step} of {steps} {_who(accident, rank)}. There is a "
                f"checkpoint {_often(every)}. How many steps will be lost, and how many seconds? "
                + ("The pool is closed." if pool.closed else "Press the button, and it happens.")
            )
        return describe(story, whole, accident, rank, steps)

    def notice(accident: str, rank: int, step: int, every: Any, let_it_happen: bool) -> str | None:
        if not let_it_happen or pool.closed or (accident, rank, step, every) in kept:
            return None
        return f"The ranks train, and at step {step} it happens ..."

    controls = {
        "accident": buttons(list(KINDS), first[0], "the rank", width="110px"),
        "rank": IntSlider(first[1], min=0, max=pool.size - 1, description="which rank"),
        "step": IntSlider(first[2], min=0, max=steps - 1, description="at step"),
        "every": SelectionSlider(options=EVERY, value=first[3], description="save every"),
        "let_it_happen": ToggleButton(description="Let it happen"),
    }  # fmt: skip
    come_out(controls["let_it_happen"], [c for name, c in controls.items() if "_" not in name])
    return Explorable(
        "accidents", draw, width=8.4, height=3.5, continuous_update=False, notice=notice, **controls
    )


def draw_run(axes: Axes, whole: Story, story: Story | None, step: int, every: int) -> None:
    """Steps done over time: the undisturbed run, and what the accident made of it.

    Args:
        axes: where to draw.
        whole: the undisturbed run.
        story: the other one; None: it has not happened yet.
        step: the step of the accident.
        every: steps from one checkpoint to the next.
    """
    (calm,) = whole.attempts
    line = (*calm, (whole.ended_at, calm[-1][1] + 1))
    axes.plot(*zip(*line, strict=True), color=figures.GREY, lw=1.2, ls="--", label="undisturbed")
    saved: list[tuple[float, int]] = []
    if story is None:
        saved = [at for at in calm if at[1] and at[1] % every == 0 and at[1] <= step]
        axes.plot(*calm[step], "X", ms=12, mfc="none", mec=figures.VERMILLION, mew=1.5,
                  label="here it would be", ls="none")  # fmt: skip
    else:
        assert story.happened_at is not None
        before, after = story.attempts
        fresh = bisect.bisect_left(after, story.reached, key=lambda at: at[1])
        back = after[: fresh + 1]
        axes.plot(*zip(*before, strict=True), color=figures.BLUE, lw=2.5, label="first attempt")
        axes.plot(*zip(*back, strict=True), color=figures.ORANGE, lw=4, ls="-",
                  label="computed again")  # fmt: skip
        axes.plot(*zip(*after[fresh:], (story.ended_at, after[-1][1] + 1), strict=True),
                  color=figures.GREEN, lw=2.5, ls="-", label="going on")  # fmt: skip
        axes.plot([story.noticed_at, after[0][0]], [story.reached, after[0][1]], ls=":",
                  color=figures.GREY, lw=1)  # fmt: skip
        axes.plot(story.happened_at, step, "X", ms=12, color=figures.VERMILLION, mec="black",
                  label="accident", ls="none")  # fmt: skip
        axes.plot(story.noticed_at, story.reached, "D", ms=7, color="white", mec="black", ls="none",
                  label="told why")  # fmt: skip
        saved = [at for at in (*before, *after[fresh:]) if at[1] and at[1] % every == 0]
    if saved:
        axes.plot(*zip(*saved, strict=True), "^", ms=6, color="black", ls="none",
                  label="checkpoint")  # fmt: skip


def describe(story: Story, whole: Story, accident: str, rank: int, steps: int) -> str:
    """What happened, when it was noticed, what was lost, and whether the result is the same."""
    assert story.happened_at is not None
    first = story.attempts[1][0]
    mended = "The pool begins again by itself" if story.by_itself else "The cell is run again"
    same = "Not a bit of the result differs." if story.same_as(whole) else "The results differ!"
    words = story.words if len(story.words) < 90 else story.words[:87] + "..."
    later = _time(story.noticed_at - story.happened_at)
    return (
        f"At step {story.reached} of {steps} {_who(accident, rank)}. {later} later the notebook "
        f"says “{words}” {mended} and is at step {first[1]} after "
        f"{first[0] - story.noticed_at:.1f} s more; steps computed twice: {story.twice}. "
        f"{story.ended_at:.1f} s in all, {whole.ended_at:.1f} s undisturbed. {same}"
    )


def _who(accident: str, rank: int) -> str:
    return "you press the stop button" if accident == PRESSED else f"rank {rank} {KINDS[accident]}"


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def _often(every: Any) -> str:
    if every == "never":
        return "at the end alone"
    return "after each step" if every == 1 else f"every {every} steps"
