"""The equivalence lamp: does a parallel gradient equal the serial one?

The lamp is lit where they agree to rounding. Switches build in the classic mistakes, one by one,
and the gradient is then really computed with that mistake: on the live ranks of a pool if there is
one, else one rank after the other in this process. The reference is `spnb.gradients`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from ipywidgets import IntSlider, ToggleButton
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from spnb.maths.posteriors import Posterior
from spnb.parallel.keyed import Key
from spnb.parallel.layout import share
from spnb.parallel.pool import WorkerPool
from spnb.run.training import gradients
from spnb.teach import figures
from spnb.teach.explorable import Explorable

MISTAKES = {
    "same_seed": "same seed everywhere",
    "sum_for_mean": "sum for mean",
    "kl_twice": "KL on every rank",
    "lost": "integer division",
}
"""The mistakes that can be built in: the switch's name, and what stands on it."""

ROUNDING = 1e-12
"""Largest difference, relative to the largest entry, that float64 rounding can explain."""

Data = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Reading:
    """What the lamp measured: the serial gradient, the parallel one, both flat."""

    serial: Tensor
    parallel: Tensor

    @property
    def difference(self) -> float:
        """Largest absolute difference of two entries."""
        return (self.parallel - self.serial).abs().max().item()

    @property
    def equal(self) -> bool:
        """Whether rounding explains the difference."""
        return self.difference <= ROUNDING * max(1.0, self.serial.abs().max().item())


def contribution(
    posterior: Posterior,
    data: Data,
    num_samples: int,
    seed: int,
    rank: int,
    world_size: int,
    mistakes: Sequence[str] = (),
) -> Tensor:
    """One rank's part of the gradient of the negative ELBO, to be summed over the ranks.

    Args:
        posterior: the posterior, with a divergence that is known in closed form.
        data: the batch ``(x, y)``; it counts as the data set.
        num_samples: S, over all ranks.
        seed: the run's seed.
        rank: which rank's part.
        world_size: how many ranks share the samples.
        mistakes: which of `MISTAKES` to make.

    Returns:
        Gradient of all trained parameters as one vector.
    """
    x, y = data
    mine = share(num_samples, world_size, rank)
    divisor = num_samples
    kl_share = 1 / world_size
    if "lost" in mistakes:  # what does not divide evenly is forgotten
        each = max(1, num_samples // world_size)
        mine, divisor = range(rank * each, (rank + 1) * each), each * world_size
    if "sum_for_mean" in mistakes:  # a mean over one's own samples, then a sum over the ranks
        divisor = len(mine)
    if "kl_twice" in mistakes:  # each rank adds the whole divergence
        kl_share = 1.0
    if "same_seed" in mistakes:  # each rank starts counting, and drawing, at the same place
        mine = range(len(mine))
    key = Key(seed).fold("weights", 0)
    prepared = posterior.prepare()
    weights = posterior.draw(mine, key, prepared)
    predictions = posterior.model.predict(weights, posterior.point, x)
    log_likelihood = posterior.model.likelihood.log_likelihood(predictions, y)
    data_term = -log_likelihood.mean(1).sum() / divisor
    loss = data_term + kl_share * posterior.divergence(prepared) / len(x)
    parts = torch.autograd.grad(loss, list(posterior.trained().values()))
    return torch.cat([part.flatten() for part in parts])


def on_this_rank(
    posterior: Posterior, data: Data, num_samples: int, seed: int, mistakes: Sequence[str]
) -> Tensor:
    """What each rank of a pool runs: its own part, then one sum over all of them."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    gradient = contribution(posterior, data, num_samples, seed, rank, world_size, mistakes)
    dist.all_reduce(gradient)
    return gradient


def measure(
    posterior: Posterior,
    data: Data,
    *,
    num_samples: int = 8,
    seed: int = 0,
    mistakes: Sequence[str] = (),
    ranks: int = 2,
    pool: WorkerPool | None = None,
) -> Reading:
    """Compute the gradient serially and in parallel, with or without mistakes.

    Args:
        posterior: the posterior, in float64.
        data: the batch ``(x, y)``.
        num_samples: S, over all ranks.
        seed: the run's seed.
        mistakes: names of `MISTAKES` to make.
        ranks: number of ranks, where there is no pool.
        pool: the live ranks to compute on.

    Raises:
        ValueError: an unknown mistake.
    """
    for name in mistakes:
        if name not in MISTAKES:
            raise ValueError(f"'{name}' is none of {', '.join(MISTAKES)}.")
    reference = gradients(posterior, data, num_samples=num_samples, seed=seed)
    serial = torch.cat([part.flatten() for part in reference.values()])
    if pool is None:
        parts = [contribution(posterior, data, num_samples, seed, r, ranks, mistakes)
                 for r in range(ranks)]
        return Reading(serial, torch.stack(parts).sum(0))
    return Reading(serial, pool.run(on_this_rank, posterior, data, num_samples, seed, mistakes)[0])


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
        pool: the live ranks to compute on; None: one rank after the other, in this process.
        num_samples: S at the beginning, 2 to 16.
        ranks: number of ranks at the beginning, where there is no pool.
        seed: the run's seed.
    """
    switches = {name: ToggleButton(description=text) for name, text in MISTAKES.items()}
    sliders = {"samples": IntSlider(num_samples, min=2, max=16, description="samples S")}
    if pool is None:
        sliders["ranks"] = IntSlider(ranks, min=1, max=6, description="ranks")

    def draw(figure: Figure, samples: int, ranks: int = ranks, **broken: bool) -> str:
        mistakes = [name for name in MISTAKES if broken[name]]
        size = ranks if pool is None else pool.size
        reading = measure(posterior, data, num_samples=samples, seed=seed, mistakes=mistakes,
                          ranks=size, pool=pool)
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.7))
        _draw_lamp(left, reading)
        _draw_entries(right, reading)
        made = " and ".join(f"“{MISTAKES[name]}”" for name in mistakes) or "no mistake"
        verdict = "lit: equal to rounding" if reading.equal else "dark: not the same gradient"
        return (
            f"{samples} samples on {size} ranks, with {made}. Largest difference from the serial "
            f"gradient: {reading.difference:.1e}, where the largest entry is "
            f"{reading.serial.abs().max():.1e}. The lamp is {verdict}."
        )

    return Explorable("lamp", draw, height=3.5, continuous_update=False, **sliders, **switches)


def _draw_lamp(axes: Axes, reading: Reading) -> None:
    lit = reading.equal
    angles = torch.linspace(0, 2 * torch.pi, 13)[:-1]
    if lit:
        for cos, sin in zip(angles.cos().tolist(), angles.sin().tolist(), strict=True):
            axes.plot([1.15 * cos, 1.45 * cos], [1.15 * sin, 1.45 * sin], color=figures.ORANGE,
                      lw=3, linestyle="-", solid_capstyle="round")
    circle = torch.linspace(0, 2 * torch.pi, 100)
    axes.fill(circle.cos(), circle.sin(), facecolor=figures.YELLOW if lit else "#5A5A5A",
              edgecolor="black", lw=1.5)
    axes.text(0, 0, "=" if lit else "≠", fontsize=34, ha="center", va="center",
              color="black" if lit else "white")
    axes.set(xlim=(-1.7, 1.7), ylim=(-1.7, 1.7), aspect="equal")
    axes.set_title("lit: equal" if lit else "dark: different", loc="center")
    axes.set_xlabel(f"largest difference {reading.difference:.1e}")
    axes.grid(False)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _draw_entries(axes: Axes, reading: Reading) -> None:
    low, high = reading.serial.min().item(), reading.serial.max().item()
    axes.plot([low, high], [low, high], color="black", lw=1, linestyle="--", label="equal")
    axes.plot(reading.serial, reading.parallel, color=figures.BLUE, linestyle="none", marker="o",
              markersize=3, alpha=0.5, label="one entry each")
    axes.set(xlabel="serial gradient", ylabel="parallel gradient", title="Every entry")
    axes.ticklabel_format(scilimits=(-2, 3))
    axes.legend(loc="upper left")
