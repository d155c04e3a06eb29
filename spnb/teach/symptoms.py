"""Symptoms of a variational training run: the numbers that tell what went wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from spnb.maths.posteriors import LowRank, MeanField
from spnb.run import inputs
from spnb.run.history import History
from spnb.run.predict import score
from spnb.run.training import Fitted

LAST = 0.1
"""Share of the run that counts as its end."""
NEAR = 0.1
"""Widths that differ from the prior's by at most this share of it count as equal."""


@dataclass(frozen=True)
class Symptoms:
    """What a run looks like at its beginning and at its end.

    Attributes:
        rows: N of the training data.
        data: mean data term at the end, nats a row.
        kl_first: KL of the first step over the number of weights, nats a *weight*: how far the
            start is from the prior, whatever the data.
        kl_last: KL of the last step over N, nats a *row*, as it stands in the loss beside `data`.
        widths: of the posterior of each weight, in units of its prior's, ``[P]``.
        scores: on held-out data.
        history: of the run.
    """

    rows: int
    data: float
    kl_first: float
    kl_last: float
    widths: Tensor = field(repr=False)
    scores: dict[str, float]
    history: History = field(repr=False)

    @property
    def like_prior(self) -> float:
        """Share of the weights that are about as wide as their prior: they have learned nothing."""
        return ((self.widths - 1).abs() <= NEAR).double().mean().item()

    @property
    def wider(self) -> float:
        """Share of the weights that are wider: knowing the data cannot be the reason."""
        return (self.widths > 1 + NEAR).double().mean().item()

    def __str__(self) -> str:
        """All in one line."""
        told = {
            "data": f"{self.data:.3f}",
            "first KL a weight": f"{self.kl_first:.3g}",
            "last KL a row": f"{self.kl_last:.3g}",
            "like prior": f"{self.like_prior:.0%}",
            "wider": f"{self.wider:.0%}",
            **{name: f"{value:.3f}" for name, value in self.scores.items()},
        }
        return ", ".join(f"{name} {value}" for name, value in told.items())


def symptoms(
    fitted: Fitted,
    train: tuple[Any, Any],
    held_out: tuple[Any, Any],
    *,
    num_samples: int = 64,
    seed: int = 0,
) -> Symptoms:
    """Read the symptoms off a run.

    Args:
        fitted: what `spnb.fit` returned for a `MeanField` or `LowRank` posterior.
        train: the data that it was trained on, inputs ``[N, ...]`` and targets ``[N, ...]``.
        held_out: inputs ``[N, ...]`` and targets ``[N, ...]`` to score on.
        num_samples: S of the scores.
        seed: of the draws.

    Raises:
        TypeError: not what `spnb.fit` returned, or another method, whose weights have no width of
            their own.
        ValueError: the data do not fit the model, or a prior has no standard deviation.
    """
    if not isinstance(fitted, Fitted):
        raise TypeError(f"fitted is a {type(fitted).__name__}; give what `spnb.fit` returned.")
    posterior, steps = fitted.posterior, fitted.history.steps
    if not isinstance(posterior, MeanField | LowRank):
        raise TypeError(
            f"A {type(posterior).__name__} has no width for each weight; symptoms are read off a "
            "MeanField or LowRank posterior."
        )
    rows = len(inputs.data_set(posterior, train)[0])
    end = steps[-max(1, round(LAST * len(steps))) :]
    widths = _relative_widths(posterior)
    return Symptoms(
        rows=rows,
        data=sum(step.data_term for step in end) / len(end),
        kl_first=steps[0].divergence / len(widths),
        kl_last=steps[-1].divergence / rows,
        widths=widths,
        scores=score(posterior, held_out, num_samples=num_samples, seed=seed),
        history=fitted.history,
    )


def _relative_widths(posterior: MeanField | LowRank) -> Tensor:
    """Standard deviation of each weight over that of its prior, ``[P]``."""
    priors = [(site.prior, site.shape) for site in posterior.model.drawn if site.prior is not None]
    wide = torch.cat([prior.stddev.expand(shape).reshape(-1) for prior, shape in priors])
    if not wide.isfinite().all():
        raise ValueError("A prior has no finite standard deviation to hold the widths against.")
    with torch.no_grad():
        scale = posterior.scale
        if isinstance(posterior, LowRank):
            scale = (scale.square() + posterior.factor.square().sum(1)).sqrt()
        return (scale / wide).cpu()
