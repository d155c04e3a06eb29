"""The bias explorer: what averaging over groups of samples does to an objective.

Nothing is trained or drawn when a control moves. Draws of a trained posterior were stored once.
S of them are a *set*; W groups share it, and each group forms the objective of its own S / W
draws. The mean of the groups' losses is what plain averaging minimises (`spnb.PlainAveraging`);
the objective of the whole set is what was wanted. The stored draws hold many disjoint sets, so
every difference comes with its standard error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from ipywidgets import SelectionSlider
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import cosine_similarity

from spnb.maths.likelihoods import Likelihood
from spnb.maths.objectives import ELBO, AlphaDivergence, EnergyScore, Objective, PredictiveNLL
from spnb.maths.posteriors import MeanField
from spnb.parallel.keyed import Key
from spnb.teach import figures
from spnb.teach.controls import buttons
from spnb.teach.explorable import Explorable

NLL = "α = 1, predictive NLL"
OBJECTIVES: dict[str, Objective] = {
    "ELBO": ELBO(),
    "α = -0.5": AlphaDivergence(-0.5),
    "α = 0.5": AlphaDivergence(0.5),
    NLL: PredictiveNLL(),
    "α = 2": AlphaDivergence(2.0),
    "energy score": EnergyScore(),
}
SPREADS = (0.5, 1.0, 1.5, 2.0)  #: factors of the posterior's standard deviations
MIN_SETS = 4  #: a standard error over fewer sets would say little


@dataclass(frozen=True)
class Effect:
    """What plain averaging does to S samples in W groups; means are over the sets.

    Attributes:
        exact: the objective of all S samples, a mean over the rows.
        averaged: mean of the objectives of the groups.
        error: standard error of ``averaged - exact``.
        predicted: the same difference by `second_order`; None where that says nothing.
        off: length of the difference of the gradients in units of the exact one's (of each, the
            root mean square over the sets).
        angle: between the two gradients, in degrees.
        noise: in the units of ``off``, the exact gradient's scatter over the sets: the noise that
            S samples have anyway.
    """

    exact: float
    averaged: float
    error: float
    predicted: float | None
    off: float
    angle: float
    noise: float

    @property
    def bias(self) -> float:
        """Averaged loss minus exact loss."""
        return self.averaged - self.exact


def second_order(
    objective: Objective,
    predictions: Tensor,
    targets: Tensor,
    likelihood: Likelihood,
    samples: int,
    groups: int,
) -> float | None:
    r"""Bias of plain averaging to second order in the spread of the draws.

    .. math:: \frac{W - 1}{2 S} \, \frac{1}{\alpha}
              \Big\langle \frac{\mathrm{Var}\, p^\alpha}{(\mathrm{E}\, p^\alpha)^2} \Big\rangle

    with the likelihood p of a row under a draw, moments over the draws, and the mean over the rows
    (the delta method: -log of a mean of M terms is too large by half of the mean's relative
    variance).

    Args:
        objective: the objective.
        predictions: of many draws, ``[K, N, ...]``.
        targets: ``[N, ...]``.
        likelihood: the model's likelihood.
        samples: S.
        groups: W, a divisor of S.

    Returns:
        The bias of a row, on average. 0 for what is linear in the samples, and for the fair
        `EnergyScore` as long as a group holds a pair; None for anything else.
    """
    fair = isinstance(objective, EnergyScore) and samples > groups
    if groups == 1 or objective.linear_in_samples or fair:
        return 0.0
    if not isinstance(objective, AlphaDivergence):
        return None
    scaled = objective.alpha * likelihood.log_likelihood(predictions, targets).double()
    powers = (scaled - scaled.amax(0)).exp()  # a factor for each row drops out
    relative = (powers.var(0) / powers.mean(0).square()).mean().item()
    return (groups - 1) / (2 * samples) * relative / objective.alpha


def effects(
    posterior: MeanField,
    data: tuple[Tensor, Tensor],
    objective: Objective,
    weights: Tensor,
    sizes: Sequence[int],
) -> dict[tuple[int, int], Effect]:
    """The effect of averaging for every S and W, by ``(S, W)``.

    Args:
        posterior: whose model predicts.
        data: rows to evaluate on, inputs ``[N, ...]`` and targets ``[N, ...]``.
        objective: the objective, one loss for each row.
        weights: stored draws ``[K, P]``. Gradients are those of a shift of all of them, which is
            the gradient of the posterior's means.
        sizes: every S, powers of two from 1 on, up to K / 2.
    """
    (x, y), model = data, posterior.model
    weights = weights.detach().requires_grad_()
    predictions = model.predict(weights, posterior.point.detach(), x)
    losses, gradients = {}, {}
    for size in sizes:
        leaf = predictions.detach().requires_grad_()
        # The rows of all groups side by side: one call for all groups of this size.
        rows = leaf.unflatten(0, (-1, size)).transpose(0, 1).flatten(1, 2)
        targets = y.repeat(len(weights) // size, *[1] * (y.dim() - 1))
        found = objective.losses(rows, targets, model.likelihood).view(-1, len(x)).mean(1)
        (at,) = torch.autograd.grad(found.sum(), leaf)
        (carried,) = torch.autograd.grad(predictions, weights, at, retain_graph=True)
        losses[size] = found.detach().double()
        gradients[size] = carried.unflatten(0, (-1, size)).sum(1)
    table = {}
    for samples in sizes:
        for size in (size for size in sizes if size <= samples):
            groups = samples // size
            loss, gradient = (
                each[size].unflatten(0, (-1, groups)).mean(1) for each in (losses, gradients)
            )
            guess = second_order(
                objective, predictions.detach(), y, model.likelihood, samples, groups
            )
            exact = losses[samples], gradients[samples]
            table[samples, groups] = _compare(*exact, loss, gradient, guess)
    return table


def _compare(
    loss: Tensor, gradient: Tensor, averaged: Tensor, other: Tensor, predicted: float | None
) -> Effect:
    """Losses ``[G]`` and gradients ``[G, P]`` of G sets: exact, and averaged over groups."""
    sets, length = len(loss), _rms(gradient)
    return Effect(
        loss.mean().item(),
        averaged.mean().item(),
        ((averaged - loss).std() / sets**0.5).item(),
        predicted,
        _rms(other - gradient) / length,
        cosine_similarity(gradient, other).clamp(-1, 1).acos().rad2deg().mean().item(),
        _rms(gradient - gradient.mean(0)) * (sets / (sets - 1)) ** 0.5 / length,
    )


def _rms(vectors: Tensor) -> float:
    """Root mean square length of the rows."""
    return vectors.square().sum(1).mean().sqrt().item()


def bias_explorer(
    posterior: MeanField,
    data: tuple[Tensor, Tensor],
    *,
    draws: int = 128,
    samples: int = 8,
    groups: int = 4,
    seed: int = 0,
) -> Explorable:
    """The explorable: choose an objective, S, W and the posterior's spread; see what is off.

    Args:
        posterior: a trained posterior over a classifier's weights.
        data: some rows to evaluate on, inputs ``[N, ...]`` and classes ``[N]``.
        draws: draws to store, at least 8; S goes up to a quarter of them.
        samples: S at the beginning, a power of two.
        groups: W at the beginning, a power of two.
        seed: of the draws.

    Raises:
        ValueError: there are too few draws.
    """
    if draws < 2 * MIN_SETS:
        raise ValueError(f"draws={draws} are too few: give at least {2 * MIN_SETS}.")
    sizes = [2**i for i in range(draws.bit_length()) if 2**i * MIN_SETS <= draws]
    whole = draws // sizes[-1] * sizes[-1]  # so that sets of every size come out even
    loc = posterior.loc.detach()
    with torch.no_grad():
        departures = posterior.draw(range(whole), Key(seed).fold("bias")) - loc
    tables = {
        (name, spread): effects(posterior, data, objective, loc + spread * departures, sizes)
        for name, objective in OBJECTIVES.items()
        for spread in SPREADS
    }

    def draw(figure: Figure, objective: str, samples: int, groups: int, spread: float) -> str:
        shown = {w: tables[objective, spread][samples, w] for w in sizes if w <= samples}
        chosen = min(groups, samples)
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
        figure.subplots_adjust(left=0.09, right=0.985, wspace=0.28, top=0.89, bottom=0.15)
        _draw_losses(left, shown, chosen)
        _draw_gradients(right, shown, chosen)
        left.set_title(f"{objective}, S = {samples}")
        for axes in (left, right):
            axes.set(xlabel="groups W", xticks=range(len(shown)), xticklabels=list(shown))
            axes.margins(x=0.08)
        said = describe(objective, shown[chosen], samples, chosen, whole // samples)
        return said if chosen == groups else f"{samples} samples make {samples} groups. {said}"

    style = {"description_width": "90px"}
    factors = [(f"× {spread:g}", spread) for spread in SPREADS]
    return Explorable(
        "bias",
        draw,
        width=8.8,
        height=3.8,
        objective=buttons(list(OBJECTIVES), NLL, "objective", width="185px"),
        samples=SelectionSlider(
            options=sizes[1:], value=samples, description="samples S", style=style
        ),
        groups=SelectionSlider(options=sizes, value=groups, description="groups W", style=style),
        spread=SelectionSlider(options=factors, value=1.0, description="spread of q", style=style),
    )


def describe(objective: str, effect: Effect, samples: int, groups: int, sets: int) -> str:
    """What there is to read off, in three short sentences."""
    expected = effect.predicted
    formula = "does not apply" if expected is None else f"says {_side(expected)}"
    return (
        f"{objective}, {samples} samples in {groups} group{'s'[: groups - 1]} of "
        f"{samples // groups}: exact {effect.exact:.4f}, averaged {effect.averaged:.4f}, "
        f"{_side(effect.bias)} (± {effect.error:.4f} over {sets} sets); the second-order formula "
        f"{formula}. The averaged gradient is off by {effect.off:.1%} of the exact one's length, "
        f"and by {effect.angle:.1f}°. The noise of {samples} samples is {effect.noise:.0%} of it."
    )


def _side(bias: float) -> str:
    side = "large" if bias > 0 else "small"
    return "no bias" if abs(bias) < 1e-6 else f"{abs(bias):.4f} too {side}"


_RING: dict[str, Any] = {"marker": "o", "ms": 13, "mfc": "none", "mec": figures.BLACK, "mew": 1.5}


def _draw_losses(axes: Axes, shown: dict[int, Effect], chosen: int) -> None:
    """The averaged loss against log2 W, above or below the exact one, and the formula."""
    place, found, at = range(len(shown)), list(shown.values()), list(shown).index(chosen)
    exact, averaged = found[0].exact, [effect.averaged for effect in found]
    errors = [effect.error for effect in found]
    known = [(i, exact + e.predicted) for i, e in enumerate(found) if e.predicted is not None]
    axes.plot(place, [exact] * len(found), **figures.look(0, marker=False), label="exact")
    axes.errorbar(place, averaged, errors, **figures.look(1), capsize=4, label="averaged")
    axes.plot(*zip(*known, strict=True), **figures.look(2), mfc="white", label="second order")
    axes.plot(at, averaged[at], **_RING)
    if max(averaged) - min(averaged) < 1e-5 * abs(exact):  # no picture of rounding errors
        axes.set_ylim(0.9 * exact, 1.1 * exact)
    axes.set_ylabel("mean loss of a row")
    axes.locator_params("y", nbins=6)
    axes.legend()


def _draw_gradients(axes: Axes, shown: dict[int, Effect], chosen: int) -> None:
    """How far the averaged gradient is off against log2 W, and the noise there is anyway."""
    place, at = range(len(shown)), list(shown).index(chosen)
    off = [100 * effect.off for effect in shown.values()]
    noise = [100 * effect.noise for effect in shown.values()]
    axes.plot(place, off, **figures.look(1), label="off by averaging")
    axes.plot(place, noise, color=figures.GREY, lw=1.2, ls=":", label="noise of S samples")
    axes.plot(at, off[at], **_RING, clip_on=False)
    axes.set(ylabel="% of the exact gradient", title="Gradient of the means")
    axes.set_ylim(0, 1.35 * max(*noise, *off))
    axes.legend(loc="upper left")
