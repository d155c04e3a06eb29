"""The potential energy of a model: its negative log joint density, for Hamiltonian Monte Carlo."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from spnb.maths.models import BayesianModel
from spnb.maths.posteriors.cross_entropy import CrossEntropy
from spnb.maths.posteriors.normal_runs import normal_runs


def potential(model: BayesianModel, x: Tensor, y: Tensor) -> Callable[[dict[str, Tensor]], Tensor]:
    """Negative log joint density over the flat vector of weights, ``{"w": [P]} -> scalar``.

    It is the density of the Pyro model, up to a constant, without the bookkeeping that takes most
    of the time where a net is tiny.

    Args:
        model: the model; all of its parameters have a prior.
        x: inputs ``[N, ...]``.
        y: targets ``[N, ...]``.
    """
    prior = CrossEntropy(model)
    loc = model.flatten(model.drawn)
    scale = torch.full_like(loc, torch.inf)  # no pull where the prior is not normal
    for run in normal_runs(model.drawn):
        loc[run.start : run.stop] = torch.as_tensor(run.loc).to(loc)
        scale[run.start : run.stop] = torch.as_tensor(run.scale).to(loc)
    no_points, estimates = loc[:0], prior.estimates

    def energy(values: dict[str, Tensor]) -> Tensor:
        weights = values["w"].unsqueeze(0)
        predictions = model.predict(weights, no_points, x)
        fit_to_data = model.likelihood.log_likelihood(predictions, y).sum()
        total = ((weights - loc) / scale).square().sum() / 2 - fit_to_data
        if estimates:
            total = total + prior.sampled(model.unflatten(weights, model.drawn)).sum()
        return total

    return energy
