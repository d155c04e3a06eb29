"""Posteriors: what turns sample indices into weights. Each one here is a name of ``spnb`` too."""

from spnb.maths.posteriors.base import Posterior as Posterior
from spnb.maths.posteriors.draws import Draws as Draws
from spnb.maths.posteriors.dropout import MCDropout as MCDropout
from spnb.maths.posteriors.ensemble import Ensemble as Ensemble
from spnb.maths.posteriors.laplace import Laplace as Laplace
from spnb.maths.posteriors.low_rank import LowRank as LowRank
from spnb.maths.posteriors.mean_field import MeanField as MeanField
from spnb.maths.posteriors.point import Point as Point
from spnb.maths.posteriors.sgmcmc import SGMCMC as SGMCMC
from spnb.maths.posteriors.swag import SWAG as SWAG

METHODS = {
    name: value
    for name, value in list(globals().items())
    if isinstance(value, type) and value is not Posterior
}
"""All methods by name; what is imported above is one."""
