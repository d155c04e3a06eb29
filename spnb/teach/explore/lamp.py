"""The equivalence lamp: does a parallel gradient equal the serial one?

The lamp is lit where they agree to rounding. Switches build in the classic mistakes of
`spnb.teach.mistakes`, and the gradient is then really computed with that mistake: on the live
ranks of a pool if there is one, else one rank after the other in this process.
"""

from __future__ import annotations

import torch
from ipywidgets import IntSlider, Layout, ToggleButton
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spnb.maths.posteriors import Posterior
from spnb.parallel.pool import WorkerPool
from spnb.teach import figures
from spnb.teach.explorable import Explorable
from spnb.teach.mistakes import MISTAKES, Data, Reading, measure

NAMES = {"loc": "the means (loc)", "rho": "the scales (rho)"}


def equivalence_lamp(
    posterior: Posterior,
    data: Data,
    *,
    pool: WorkerPool | None = None,
    num_samples: int = 7,
    ranks: int = 2,
    seed: int = 0,
) -> Explorable:
    """The explorable: a lamp, a comparison entry by entry, a switch for each mistake.

    Args:
        posterior: the posterior, in float64.
        data: the batch ``(x, y)``.
        pool: the live ranks to compute on. Without one, or once it is closed, this process
            computes one rank after the other.
        num_samples: S at the beginning, 2 to 16.
        ranks: number of ranks at the beginning, where there is no pool.
        seed: the run's seed.
    """
    switches = {
        name: ToggleButton(description=text, layout=Layout(width="auto"))
        for name, text in MISTAKES.items()
    }
    sliders = {"samples": IntSlider(num_samples, min=2, max=16, description="samples S")}
    if pool is None:
        sliders["ranks"] = IntSlider(ranks, min=1, max=6, description="ranks")

    def draw(figure: Figure, samples: int, ranks: int = ranks, **broken: bool) -> str:
        mistakes = [name for name in MISTAKES if broken[name]]
        size = ranks if pool is None else pool.size
        reading = measure(
            posterior,
            data,
            num_samples=samples,
            seed=seed,
            mistakes=mistakes,
            ranks=size,
            pool=pool,
        )
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.9))
        figure.subplots_adjust(left=0.0, wspace=0.28)
        _draw_lamp(left, reading)
        _draw_entries(right, reading)
        made = " and ".join(f"“{MISTAKES[name]}”" for name in mistakes) or "no mistake"
        verdict = "lit: equal to rounding" if reading.equal else "dark: not the same gradient"
        where = "live ranks" if reading.live else "ranks, computed here one after the other"
        return (
            f"{samples} samples on {size} {where}, with {made}. Largest difference from the serial "
            f"gradient: {reading.difference:.1e}, where the largest entry is "
            f"{reading.serial.abs().max():.1e}. The lamp is {verdict}."
        )

    return Explorable(
        "lamp", draw, height=3.5, continuous_update=False, turns_dark=False, **sliders, **switches
    )


def _draw_lamp(axes: Axes, reading: Reading) -> None:
    lit = reading.equal
    angles = torch.linspace(0, 2 * torch.pi, 13)[:-1]
    if lit:
        for cos, sin in zip(angles.cos().tolist(), angles.sin().tolist(), strict=True):
            axes.plot(
                [1.15 * cos, 1.45 * cos],
                [1.15 * sin, 1.45 * sin],
                color=figures.ORANGE,
                lw=3,
                linestyle="-",
                solid_capstyle="round",
            )
    circle = torch.linspace(0, 2 * torch.pi, 100)
    axes.fill(
        circle.cos().numpy(),
        circle.sin().numpy(),
        facecolor=figures.YELLOW if lit else "#5A5A5A",
        edgecolor="black",
        lw=1.5,
    )
    axes.text(
        0,
        0,
        "=" if lit else "≠",
        fontsize=34,
        ha="center",
        va="center",
        color="black" if lit else "white",
    )
    axes.set(xlim=(-1.7, 1.7), ylim=(-1.7, 1.7), aspect="equal")
    axes.set_title("lit: equal" if lit else "dark: different", loc="center")
    axes.set_xlabel(f"largest difference {reading.difference:.1e}")
    axes.grid(False)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _draw_entries(axes: Axes, reading: Reading) -> None:
    low, high = reading.serial.min().item(), reading.serial.max().item()
    axes.plot([low, high], [low, high], color="black", lw=1, linestyle="--", label="equal")
    sizes = list(reading.sizes.values())
    pairs = zip(reading.serial.split(sizes), reading.parallel.split(sizes), strict=True)
    for index, (name, (serial, parallel)) in enumerate(zip(reading.sizes, pairs, strict=True)):
        style = figures.look(index) | {"linestyle": "none", "markersize": 3.5, "alpha": 0.6}
        axes.plot(
            serial.numpy(), parallel.numpy(), **style, label=f"entries of {NAMES.get(name, name)}"
        )
    axes.set(xlabel="serial gradient", ylabel="parallel gradient", title="Every entry")
    axes.locator_params(nbins=5)
    axes.xaxis.set_major_formatter("{x:.2g}")
    axes.yaxis.set_major_formatter("{x:.2g}")
    axes.legend(loc="upper left")
