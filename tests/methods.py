"""Every method, made small: for the tests that hold for all of them."""

from __future__ import annotations

from collections.abc import Callable

import spnb
from spnb.maths import posteriors
from spnb.maths.models import BayesianModel

SPECIAL: dict[str, Callable[[BayesianModel], spnb.Posterior]] = {
    "MeanField": lambda model: spnb.MeanField(model, init_scale=0.2),
    "LowRank": lambda model: spnb.LowRank(model, rank=2, init_scale=0.2),
    "SWAG": lambda model: spnb.SWAG(model, iterates=3),
    "SGMCMC": lambda model: spnb.SGMCMC(model, chains=5, cycles=2, keep=2),
    "Laplace, full": lambda model: spnb.Laplace(model, "full"),
    "Laplace, drawn": lambda model: spnb.Laplace(model, linearised=False),
    "Laplace, last": lambda model: spnb.Laplace(model, "full", "last"),
    "MCDropout": lambda model: spnb.MCDropout(model, rate=0.3),
}
"""Those that a tiny problem needs with other numbers than their own, or that there are kinds of."""

METHODS = {name: make for name, make in posteriors.METHODS.items() if name != "Draws"} | SPECIAL
"""All that can be trained; a new one is in here by itself."""
