"""Every method, made small: for the tests that hold for all of them."""

from __future__ import annotations

from collections.abc import Callable

import spnb
from spnb.maths.models import BayesianModel

METHODS: dict[str, Callable[[BayesianModel], spnb.Posterior]] = {
    "Point": spnb.Point,
    "MeanField": lambda model: spnb.MeanField(model, init_scale=0.2),
    "LowRank": lambda model: spnb.LowRank(model, rank=2, init_scale=0.2),
    "MCDropout": lambda model: spnb.MCDropout(model, rate=0.3),
}
