r"""Objectives: what training minimises, as a function of the predictions of *all* samples.

An objective is an ordinary function of predictions ``[S, B, ...]`` and targets ``[B, ...]`` that
knows nothing of processes. The loss of a step is

.. math:: L = \frac{1}{B} \sum_b \ell_b + \frac{T}{N} \mathrm{KL}(q \,\|\, p),

with the objective's loss :math:`\ell_b` of item b, the temperature T ("heat" in the sampling
parallelism paper), the batch's size B and the size N of the data set. N times the loss with T = 1
and the `ELBO` is what Pyro's ``TraceMeanField_ELBO`` reports.

Where :math:`\ell` is linear in the samples, a mean of one term a sample, averaging gradients over
processes is exact. Where it is not, the predictions of all samples are gathered first, and the
gradient is exact as well. `PlainAveraging` is the approximation that skips the gathering.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from spnb.maths.likelihoods import Categorical, Likelihood


class Objective:
    """An objective made of any function of predictions and targets.

    Args:
        function: ``(predictions [S, B, ...], targets [B, ...]) -> [B]`` losses of the items, or
            one scalar for the whole batch, such as their mean.
        linear_in_samples: whether the function is a mean over the samples of one term a sample;
            nothing has to be gathered then.
        temperature: factor of the divergence from the prior; below 1 is a "cold posterior".
    """

    #: whether every process sees only its own samples (`PlainAveraging`)
    local: bool = False

    def __init__(
        self,
        function: Callable[[Tensor, Tensor], Tensor] | None = None,
        linear_in_samples: bool = False,
        temperature: float = 1.0,
    ) -> None:
        if not (temperature >= 0 and math.isfinite(temperature)):
            raise ValueError(f"temperature={temperature} must be zero or a positive number.")
        if function is not None and not callable(function):
            raise TypeError(f"function is a {type(function).__name__}; give a callable.")
        self.function = function
        self.linear_in_samples = linear_in_samples
        self.temperature = float(temperature)

    @property
    def separable(self) -> bool:
        """Whether each sample can be evaluated by itself, and the losses be added up."""
        return self.linear_in_samples and not self.local

    def losses(self, predictions: Tensor, targets: Tensor, likelihood: Likelihood) -> Tensor:
        """Losses of the items.

        Args:
            predictions: ``[S, B, ...]``, of all samples.
            targets: ``[B, ...]``.
            likelihood: the model's likelihood.

        Returns:
            ``[B]``, or a scalar for the batch as a whole.
        """
        assert self.function is not None
        return self.function(predictions, targets)

    def total(self, predictions: Tensor, targets: Tensor, likelihood: Likelihood) -> Tensor:
        """Sum of the losses of the items, a scalar; arguments as for `losses`."""
        return self.losses(predictions, targets, likelihood).sum()

    def __repr__(self) -> str:
        """Name and temperature."""
        return f"{type(self).__name__}(temperature={self.temperature:g})"


class ELBO(Objective):
    r"""The negative evidence lower bound, linear in the samples (arXiv 1505.05424, eq. 2).

    .. math:: \ell_b = -\frac{1}{S} \sum_s \log p(y_b \mid x_b, w_s)

    Args:
        temperature: factor of the divergence from the prior.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__(linear_in_samples=True, temperature=temperature)

    def losses(self, predictions: Tensor, targets: Tensor, likelihood: Likelihood) -> Tensor:
        """Mean over the samples of the negative log-likelihood, ``[B]``."""
        return -likelihood.log_likelihood(predictions, targets).mean(0)

    def total(self, predictions: Tensor, targets: Tensor, likelihood: Likelihood) -> Tensor:
        """The same summed over the items, in fewer operations."""
        total = likelihood.total_nll(predictions, targets)
        return total if predictions.shape[0] == 1 else total / predictions.shape[0]


class AlphaDivergence(Objective):
    r"""Black-box alpha-divergence (arXiv 1511.03243; in the form of arXiv 1703.02914, eq. 11).

    .. math:: \ell_b = -\frac{1}{\alpha} \log \frac{1}{S} \sum_s p(y_b \mid x_b, w_s)^\alpha

    Towards α = 0 it becomes the `ELBO`; α = 1 is `PredictiveNLL`.

    Args:
        alpha: any number but 0.
        temperature: factor of the divergence from the prior.
    """

    def __init__(self, alpha: float, temperature: float = 1.0) -> None:
        if alpha == 0 or not math.isfinite(alpha):
            raise ValueError(f"alpha={alpha} must be a number other than 0; at 0 it is the ELBO.")
        super().__init__(temperature=temperature)
        self.alpha = float(alpha)

    def losses(self, predictions: Tensor, targets: Tensor, likelihood: Likelihood) -> Tensor:
        """Negative power mean of the likelihoods, on the log scale, ``[B]``."""
        scaled = self.alpha * likelihood.log_likelihood(predictions, targets)
        return -(scaled.logsumexp(0) - math.log(len(scaled))) / self.alpha


class PredictiveNLL(AlphaDivergence):
    r"""Negative log of the mean predictive: the score that the model average is judged by.

    .. math:: \ell_b = -\log \frac{1}{S} \sum_s p(y_b \mid x_b, w_s)

    Args:
        temperature: factor of the divergence from the prior.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__(alpha=1.0, temperature=temperature)


class EnergyScore(Objective):
    r"""Energy score of the samples' means, in one dimension their CRPS (Gneiting & Raftery 2007).

    .. math:: \ell_b = \frac{1}{S} \sum_s \|m_s - y\|
                       - \frac{1}{2 S (S - 1)} \sum_{s \ne s'} \|m_s - m_{s'}\|

    with the mean :math:`m_s` of the targets under sample s; for classes, the probabilities
    against the one-hot target. This is the *fair* estimate, unbiased for any S > 1; dividing by
    :math:`S^2` instead would favour too little spread. With S = 1 only the first term is left.

    Args:
        temperature: factor of the divergence from the prior.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__(temperature=temperature)

    def losses(self, predictions: Tensor, targets: Tensor, likelihood: Likelihood) -> Tensor:
        """Fair energy score of each item over all its dimensions, ``[B]``."""
        members = likelihood.mean(predictions)
        target = likelihood.encode(targets, predictions)
        error = _norm(members - target).mean(0)
        if len(members) == 1:
            return error
        first, second = torch.triu_indices(len(members), len(members), offset=1)
        spread = _norm(members[first] - members[second]).mean(0)
        return error - spread / 2


def _norm(differences: Tensor) -> Tensor:
    """Euclidean length over all dimensions of an item: ``[S, B, ...] -> [S, B]``."""
    flat = differences.flatten(2) if differences.dim() > 2 else differences.unsqueeze(-1)
    return torch.linalg.vector_norm(flat, dim=-1)


class GaussianMoments(Objective):
    r"""Negative log-density of a normal fitted to the predictive moments.

    .. math:: m = \frac{1}{S} \sum_s m_s, \qquad
              v = \frac{1}{S} \sum_s (v_s + m_s^2) - m^2

    with mean and variance :math:`m_s, v_s` of the targets under sample s. For likelihoods with a
    mean and a variance, such as the normal ones.

    Args:
        temperature: factor of the divergence from the prior.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__(temperature=temperature)

    def losses(self, predictions: Tensor, targets: Tensor, likelihood: Likelihood) -> Tensor:
        """Negative log-density of each item, summed over its dimensions, ``[B]``."""
        if isinstance(likelihood, Categorical):
            raise ValueError(
                "GaussianMoments fits a normal to real targets; a categorical likelihood has "
                "none. Use PredictiveNLL for classes."
            )
        distribution = likelihood(predictions)
        means = distribution.mean
        mean = means.mean(0)
        variance = distribution.variance.mean(0) + (means - mean).square().mean(0)
        losses = 0.5 * ((targets - mean).square() / variance + (2 * math.pi * variance).log())
        return losses.flatten(1).sum(1) if losses.dim() > 1 else losses


class PlainAveraging(Objective):
    """The paper's approximation: each sample group applies an objective to its own samples.

    The gradients are then averaged over the groups (arXiv 2604.04736). For an objective that is
    linear in the samples, and samples shared out evenly, this is exact; for any other it is the
    gradient of another loss, which depends on how many groups there are.

    Args:
        objective: the objective to apply to the samples of a group.
    """

    local = True

    def __init__(self, objective: Objective) -> None:
        super().__init__(None, objective.linear_in_samples, objective.temperature)
        self.objective = objective

    def losses(self, predictions: Tensor, targets: Tensor, likelihood: Likelihood) -> Tensor:
        """Losses of the wrapped objective."""
        return self.objective.losses(predictions, targets, likelihood)

    def __repr__(self) -> str:
        """The wrapped objective."""
        return f"PlainAveraging({self.objective!r})"
