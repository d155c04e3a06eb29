"""Posteriors: what turns sample indices into weights."""

from spnb.maths.posteriors.base import Posterior
from spnb.maths.posteriors.dropout import MCDropout
from spnb.maths.posteriors.ensemble import Ensemble
from spnb.maths.posteriors.laplace import Laplace
from spnb.maths.posteriors.low_rank import LowRank
from spnb.maths.posteriors.mean_field import MeanField
from spnb.maths.posteriors.point import Point
from spnb.maths.posteriors.swag import SWAG

__all__ = [
    "SWAG",
    "Ensemble",
    "Laplace",
    "LowRank",
    "MCDropout",
    "MeanField",
    "Point",
    "Posterior",
]
