"""The predict-then-measure race: say how fast two ranks will be, then let them run.

The reader chooses a network, S and a way to share the step, and sets a prediction. Only when
*Measure* is pressed does the race take place, on the live ranks of a pool, against one rank that
does everything; a new question takes the button back out. What was measured is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ipywidgets import Dropdown, FloatSlider, SelectionSlider, ToggleButton
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spnb.maths.posteriors import Posterior
from spnb.parallel.layout import Layout
from spnb.parallel.pool import WorkerPool
from spnb.teach import figures
from spnb.teach.controls import buttons, come_out
from spnb.teach.explorable import Explorable
from spnb.teach.racing import Contender, Data, Race, Spread, Way, limit, race

ALONE = "one rank"
HATCHES = ("", "//", "..", "xx")

WORTHWHILE = 1.05
"""A smaller speed-up is none."""


class Board:
    """What was measured so far, and what is not known yet.

    Args:
        pool: the live ranks.
        workloads: a posterior and a batch ``(x, y)``, by name.
        ways: how the ranks may share a step, by name. A function shares the batch.
        seconds: about how long a race may take.
    """

    def __init__(
        self,
        pool: WorkerPool,
        workloads: Mapping[str, tuple[Posterior, Data]],
        ways: Mapping[str, Way],
        seconds: float,
    ) -> None:
        self.pool, self.workloads, self.ways, self.seconds = pool, workloads, ways, seconds
        self._kept: dict[tuple[str, int, str], Race] = {}

    def limit(self, network: str, samples: int, way: str) -> float:
        """The best speed-up that the tiles allow."""
        layout = self.ways[way]
        if not isinstance(layout, Layout):
            layout = Layout(data=self.pool.size)
        return limit(layout, samples, len(self.workloads[network][1][0]))

    def possible(self, network: str, samples: int, way: str) -> bool:
        """Whether every rank would have something to do."""
        layout = self.ways[way]
        return not isinstance(layout, Layout) or layout.sample <= samples

    def known(self, network: str, samples: int, way: str) -> Race | None:
        """The race of a question, if it took place."""
        return self._kept.get((network, samples, way))

    def measure(self, network: str, samples: int, way: str) -> Race:
        """Let the race of a question take place."""
        posterior, data = self.workloads[network]
        runners = {ALONE: None, way: self.ways[way]}
        contenders = {name: Contender(w, samples, len(data[0])) for name, w in runners.items()}
        found = race(self.pool, contenders, posterior, data, seconds=self.seconds)
        self._kept[network, samples, way] = found
        return found


def race_board(
    pool: WorkerPool,
    workloads: Mapping[str, tuple[Posterior, Data]],
    ways: Mapping[str, Way],
    *,
    samples: Sequence[int] = (1, 2, 3, 4, 8, 16),
    num_samples: int = 8,
    seconds: float = 1.5,
) -> Explorable:
    """The explorable: a question, a prediction, and a button that starts the race.

    Args:
        pool: the live ranks; once they are gone, only what was measured before is shown.
        workloads: a posterior and a batch ``(x, y)``, by name.
        ways: how the ranks may share a step, by name: layouts, or functions that share the batch.
        samples: choices for S.
        num_samples: the first choice.
        seconds: about how long a race may take.
    """
    board = Board(pool, workloads, ways, seconds)

    def draw(
        figure: Figure, network: str, samples: int, way: str, prediction: float, measure: bool
    ) -> str:
        question = (network, samples, way)
        if measure and not pool.closed and board.possible(*question) and not board.known(*question):
            board.measure(*question)
        axes = figure.subplots()
        figure.subplots_adjust(left=0.17, bottom=0.27, top=0.89)
        axes.set_title(f"{network}, S = {samples}: {pool.size} ranks against one")
        speeds = _draw_board(axes, board, network, samples)
        axes.plot(
            prediction, list(ways).index(way), "D", ms=11, mfc="white", mec="black", mew=2,
            label="your prediction", zorder=5,
        )  # fmt: skip
        axes.set_xlim(0, 1.12 * max([prediction, pool.size, *(high for _, _, high in speeds)]))
        figure.legend(*axes.get_legend_handles_labels(), loc="lower center", ncols=3)
        return _describe(board, *question, prediction, measure)

    def notice(
        network: str, samples: int, way: str, prediction: float, measure: bool
    ) -> str | None:
        if not measure or pool.closed or board.known(network, samples, way):
            return None
        return f"You said {prediction:.2f} times. The ranks are racing, some {seconds:.0f} s ..."

    most = float(2 * pool.size)
    controls = {
        "network": Dropdown(options=list(workloads), description="network"),
        "samples": SelectionSlider(
            options=list(samples), value=num_samples, description="samples S"
        ),
        "way": buttons(list(ways), width="130px"),
        "prediction": FloatSlider(
            float(pool.size), min=0.0, max=most, step=0.05, description="I predict"
        ),
        "measure": ToggleButton(description="Measure"),
    }

    come_out(controls["measure"], [controls[name] for name in ("network", "samples", "way")])
    return Explorable(
        "race", draw, width=8.0, height=3.4, continuous_update=False, notice=notice, **controls
    )


def verdict(found: Race, against: str = ALONE) -> str:
    """How much faster everybody was than one contender, and who wins; a tie is called a tie."""
    speeds = {name: found.speed_up(name, against) for name in found.rounds if name != against}
    told = [
        f"{name} {at:.2f}× ({low:.2f} to {high:.2f})" for name, (low, at, high) in speeds.items()
    ]
    words = ", ".join(told)
    first, *others = sorted(speeds, key=lambda name: speeds[name][1], reverse=True)
    if speeds[first][1] < WORTHWHILE:
        return f"{words}: nobody beats {against}"
    if others and speeds[first][0] <= speeds[others[0]][2]:
        return f"{words}: {first} or {others[0]}, too close to call"
    return f"{words}: {first} wins"


def undisturbed(found: Race, against: str = ALONE) -> str:
    """The same of everybody's fastest step, which other programs disturbed least."""
    fastest = {name: found.fastest(name) for name in found.rounds}
    told = [f"{n} {fastest[against] / ms:.2f}×" for n, ms in fastest.items() if n != against]
    return ", ".join(told)


def draw_bars(axes: Axes, values: Mapping[str, Spread | float | None], form: str = ".3g") -> None:
    """A bar for each of some values, with whiskers from quartile to quartile where there are any.

    Args:
        axes: where to draw.
        values: by name, which may have a line break; None for what cannot be.
        form: format of the number at each bar.
    """
    highest = max((v if isinstance(v, float) else v[2]) for v in values.values() if v is not None)
    for place, value in enumerate(values.values()):
        if value is None:
            axes.text(place, 0, "cannot\nshare", ha="center", va="bottom", color=figures.GREY)
            continue
        low, middle, high = (value, value, value) if isinstance(value, float) else value
        bar = axes.bar(place, middle, 0.7, color=figures.COLOURS[place], edgecolor="black")
        bar[0].set_hatch(HATCHES[place % len(HATCHES)])
        if high > low:
            axes.errorbar(place, middle, [[middle - low], [high - middle]], color="k", capsize=4)
        above = high + 0.02 * highest
        axes.text(place, above, format(middle, form), ha="center", va="bottom", fontsize=9.5)
    axes.set_xticks(range(len(values)), list(values), fontsize=9.5)
    axes.set(xlim=(-0.6, len(values) - 0.4), ylim=(0, 1.18 * highest))
    axes.grid(axis="x", visible=False)


def _draw_board(axes: Axes, board: Board, network: str, samples: int) -> list[Spread]:
    """A row for each way: its limit, and the measured speed-up where there is one."""
    speeds = []
    for row, way in enumerate(board.ways):
        if not board.possible(network, samples, way):
            axes.text(0.03, row, "cannot share so few samples", va="center", color=figures.GREY)
            continue
        best = board.limit(network, samples, way)
        label = "_" if row else "limit of the tiles"
        axes.vlines(best, row - 0.45, row + 0.45, color="black", lw=2.5, ls="--", label=label)
        found = board.known(network, samples, way)
        if found is None:
            axes.text(0.03, row, "not measured yet", va="center", color=figures.GREY)
            continue
        low, middle, high = found.speed_up(way, ALONE)
        speeds.append((low, middle, high))
        look = {"facecolor": figures.COLOURS[row], "hatch": HATCHES[row % len(HATCHES)]}
        axes.barh(row, middle, 0.6, edgecolor="black", alpha=0.8, **look)  # type: ignore[arg-type]
        axes.errorbar(
            middle, row, xerr=[[middle - low], [high - middle]], color="black", capsize=5, lw=2
        )
    axes.axvline(1, color=figures.GREY, lw=1.5, linestyle="-", label="one rank", zorder=0)
    axes.set(xlabel="speed-up", ylim=(len(board.ways) - 0.5, -0.5))
    axes.set_yticks(range(len(board.ways)), list(board.ways))
    axes.grid(axis="y", visible=False)
    return speeds


def _describe(
    board: Board, network: str, samples: int, way: str, prediction: float, measure: bool
) -> str:
    """The board in words."""
    question = f"{network}, S = {samples}, {way}"
    if not board.possible(network, samples, way):
        return (
            f"{question}: {board.pool.size} ranks cannot share so few samples; spnb refuses "
            "this layout."
        )
    best = board.limit(network, samples, way)
    said = f"{question}: you predict {prediction:.2f} times one rank; the tiles allow {best:.2f}."
    found = board.known(network, samples, way)
    if found is None:
        if board.pool.closed:
            return f"{said} The pool is closed, so this can no longer be measured."
        return f"{said} Press “Measure” to see what your machine says."
    low, middle, high = found.speed_up(way, ALONE)
    off = prediction - middle
    verdict = "you hit the spread" if low <= prediction <= high else f"you are {off:+.2f} off"
    alone, shared = found.spread(ALONE)[1], found.spread(way)[1]
    when = "" if measure else " (as measured before)"
    return (
        f"{said} Measured{when}: {middle:.2f} times, the middle half of {len(found.rounds[way])} "
        f"rounds {low:.2f} to {high:.2f} ({alone:.1f} ms a step on one rank, {shared:.1f} ms "
        f"on {board.pool.size}); {verdict}."
    )
