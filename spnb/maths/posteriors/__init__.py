"""Posteriors: what turns sample indices into weights."""

from spnb.maths.posteriors.base import Posterior
from spnb.maths.posteriors.mean_field import MeanField

__all__ = ["MeanField", "Posterior"]
