"""spnb: parallel Bayesian deep learning from a notebook.

Weight samples are shared between processes (sampling parallelism, arXiv 2604.04736), rows of the
batch are (data parallelism), or both; every layout computes the same training run.

Names are imported when they are first used, so that a worker process starts quickly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from spnb.maths import likelihoods, priors, scores
    from spnb.maths.models import BayesianModel
    from spnb.maths.objectives import (
        ELBO,
        AlphaDivergence,
        EnergyScore,
        EnsembleEnergyScore,
        GaussianMoments,
        Objective,
        PlainAveraging,
        PredictiveNLL,
    )
    from spnb.maths.posteriors import *  # noqa: F403 - each is listed there alone
    from spnb.parallel.keyed import Key
    from spnb.parallel.layout import Layout
    from spnb.parallel.memory import share
    from spnb.parallel.pool import WorkerDied, WorkerPool
    from spnb.run import machines
    from spnb.run.calibrate import calibrate
    from spnb.run.chains import Chains, nuts
    from spnb.run.checkpoint import Checkpoints
    from spnb.run.history import History
    from spnb.run.plan import plan
    from spnb.run.predict import predict, score
    from spnb.run.saved import load, save
    from spnb.run.timeline import timeline
    from spnb.run.training import Fitted, fit, gradients

#: where each public name lives; those of the posteriors are found in `spnb.maths.posteriors`
_HOMES = {
    "likelihoods": "spnb.maths.likelihoods",
    "priors": "spnb.maths.priors",
    "scores": "spnb.maths.scores",
    "BayesianModel": "spnb.maths.models",
    "ELBO": "spnb.maths.objectives",
    "AlphaDivergence": "spnb.maths.objectives",
    "EnergyScore": "spnb.maths.objectives",
    "EnsembleEnergyScore": "spnb.maths.objectives",
    "GaussianMoments": "spnb.maths.objectives",
    "Objective": "spnb.maths.objectives",
    "PlainAveraging": "spnb.maths.objectives",
    "PredictiveNLL": "spnb.maths.objectives",
    "Key": "spnb.parallel.keyed",
    "Layout": "spnb.parallel.layout",
    "WorkerDied": "spnb.parallel.pool",
    "WorkerPool": "spnb.parallel.pool",
    "share": "spnb.parallel.memory",
    "History": "spnb.run.history",
    "calibrate": "spnb.run.calibrate",
    "machines": "spnb.run.machines",
    "nuts": "spnb.run.chains",
    "Checkpoints": "spnb.run.checkpoint",
    "Chains": "spnb.run.chains",
    "plan": "spnb.run.plan",
    "timeline": "spnb.run.timeline",
    "predict": "spnb.run.predict",
    "score": "spnb.run.predict",
    "load": "spnb.run.saved",
    "save": "spnb.run.saved",
    "Fitted": "spnb.run.training",
    "fit": "spnb.run.training",
    "gradients": "spnb.run.training",
}

__all__ = [
    "AlphaDivergence",
    "BayesianModel",
    "Chains",
    "Checkpoints",
    "ELBO",
    "EnergyScore",
    "EnsembleEnergyScore",
    "Fitted",
    "GaussianMoments",
    "History",
    "Key",
    "Layout",
    "Objective",
    "PlainAveraging",
    "PredictiveNLL",
    "WorkerDied",
    "WorkerPool",
    "calibrate",
    "fit",
    "gradients",
    "likelihoods",
    "load",
    "machines",
    "nuts",
    "plan",
    "predict",
    "priors",
    "save",
    "score",
    "scores",
    "share",
    "timeline",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    posteriors = _posteriors() if name not in _HOMES and name[:1].isupper() else {}
    if name not in _HOMES and name not in posteriors:
        raise AttributeError(f"module 'spnb' has no attribute '{name}'")
    module = import_module(_HOMES[name]) if name in _HOMES else None
    value = posteriors.get(name) or getattr(module, name, module)  # a module stands for itself
    globals()[name] = value
    return value


def _posteriors() -> dict[str, Any]:
    """The methods, and their base: a new one needs a line in `spnb.maths.posteriors` alone."""
    module = import_module("spnb.maths.posteriors")
    return {"Posterior": module.Posterior, **module.METHODS}


def __dir__() -> list[str]:
    """The public names."""
    return sorted([*__all__, *_posteriors(), "__version__"])
