"""Scores of the Bayesian model average: of the mean predictive over all samples.

| module | holds |
|---|---|
| `classes` | accuracy, Brier score and calibration of class probabilities |
| `detection` | how well uncertainty tells inputs of another kind |
| `forecasts` | CRPS, quantiles, coverage and width of the predictive of real targets |
| `energy` | energy scores, with the noise of the likelihood and without |
| `fields` | errors, spread and anomalies of fields on a grid |
| `density` | the log score |
| `distances` | how far two sets of draws are from each other |
| `summary` | a table of the scores that suit a likelihood |

Each takes the draws ``[S, N, ...]`` of *all* samples, the parameters of the likelihood. The model's
predictive is the mixture of the S likelihoods, and no score of a mixture is the mean of the scores
of its parts: averaging what each process finds for its own samples would be the score of another,
smaller ensemble. Scores that compare samples with each other take them to be independent; where
they come in antithetic pairs, say ``antithetic=True``.

A target that its likelihood calls missing is looked at by no score: means are over the others.
"""

from spnb.maths.scores.classes import CALIBRATION_BINS, Reliability, classification, reliability
from spnb.maths.scores.density import predictive_nll
from spnb.maths.scores.detection import auroc, mutual_information, predictive_entropy
from spnb.maths.scores.distances import wasserstein
from spnb.maths.scores.energy import energy_score, ensemble_energy_score
from spnb.maths.scores.fields import anomaly_correlation, spread_skill, weighted_rmse
from spnb.maths.scores.forecasts import coverage, crps, pinball, pit, quantiles, sharpness
from spnb.maths.scores.summary import evaluate, regression

__all__ = [
    "CALIBRATION_BINS",
    "Reliability",
    "anomaly_correlation",
    "auroc",
    "classification",
    "coverage",
    "crps",
    "energy_score",
    "ensemble_energy_score",
    "evaluate",
    "mutual_information",
    "pinball",
    "pit",
    "predictive_entropy",
    "predictive_nll",
    "quantiles",
    "regression",
    "reliability",
    "sharpness",
    "spread_skill",
    "wasserstein",
    "weighted_rmse",
]
