"""Every method, made small: for the tests that hold for all of them."""

from __future__ import annotations

from collections.abc import Callable

import spnb
from spnb.maths.models import BayesianModel

METHODS: dict[str, Callable[[BayesianModel], spnb.Posterior]] = {
    "Point": spnb.Point,
    "MeanField": lambda model: spnb.MeanField(model, init_scale=0.2),
    "LowRank": lambda model: spnb.LowRank(model, rank=2, init_scale=0.2),
    "Ensemble": lambda model: spnb.Ensemble(model, size=5),
    "SWAG": lambda model: spnb.SWAG(model, iterates=3),
    "Laplace": spnb.Laplace,
    "Laplace, full": lambda model: spnb.Laplace(model, "full"),
    "Laplace, last": lambda model: spnb.Laplace(model, "full", "last"),
    "MCDropout": lambda model: spnb.MCDropout(model, rate=0.3),
}
