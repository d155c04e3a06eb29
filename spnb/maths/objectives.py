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

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from spnb.maths import energy
from spnb.maths.likelihoods import Categorical, Likelihood, unwrapped


class Objective:
    """An objective made of any function of predictions and targets.

    Args:
        function: ``(predictions [S, B, ...], targets [B, ...]) -> [B]`` losses of the items, or
            one scalar for the whole batch, such as their mean.
        linear_in_samples: whether the function is a mean over the samples of one term a sample;
            nothing has to be gathered then.
        temperature: factor of the divergence from the prior. Below 1 it tempers the likelihood,
            which then counts 1 / T times; a "cold posterior" tempers the prior as well.
    """

    #: whether every process sees only its own samples (`PlainAveraging`)
    local: bool = False

    #: whether samples 2k and 2k + 1 are partners of opposite noise
    antithetic: bool = False

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

    def for_pairs(self, sizes: Sequence[int]) -> Objective:
        """The same objective for a posterior whose samples come in antithetic pairs.

        Args:
            sizes: how many samples, one after the other, each loss is formed from.

        Raises:
            ValueError: it has no value for so many.
        """
        other = copy.copy(self)
        other.antithetic = True
        return other

    def at_step(self, noise: energy.Noise) -> Objective:
        """The same objective in one step of training.

        Args:
            noise: standard normal numbers of the step, for an objective that draws some.
        """
        return self

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


class _OfPairs(Objective):
    """An objective that compares independent samples with each other."""

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__(temperature=temperature)

    def for_pairs(self, sizes: Sequence[int]) -> Objective:
        """The same, with the two samples of a pair never compared with each other."""
        name, enough = type(self).__name__, len(sizes) * max(4, max(sizes) + max(sizes) % 2)
        instead = f"use num_samples={enough}, or a posterior with antithetic=False."
        if any(size % 2 for size in sizes[:-1]):
            raise ValueError(
                f"{name} is averaged over groups of {', '.join(map(str, sizes))} samples, which "
                f"cut antithetic pairs in two: {instead}"
            )
        if 2 in sizes:
            raise ValueError(
                f"{name} compares independent samples with each other, and the 2 of an antithetic "
                f"pair are not independent: {instead}"
            )
        return super().for_pairs(sizes)


class EnergyScore(_OfPairs):
    r"""Energy score of the predictive distribution, in one dimension its CRPS.

    .. math:: \ell_b = \frac{1}{S} \sum_s \mathrm{E} \|X_s - y\|
                       - \frac{1}{2} \big\langle \mathrm{E} \|X_s - X_{s'}\| \big\rangle

    (Gneiting & Raftery 2007) with targets :math:`X_s` drawn from the likelihood of sample s, and
    the mean over all pairs of independent samples; the two of an antithetic pair are not, and are
    left out. This is the *fair* estimate, unbiased for any S > 1: dividing by :math:`S^2` instead
    would favour too little spread. The targets include the noise of the likelihood, so its scale
    is trained as well. With S = 1 it is the score of that sample's own predictive: both targets of
    the pair are drawn from it.

    The expectations have a closed form for classes (as one-hot vectors; items with several labels
    have the sum over them) and for one number an item with normal noise. For several numbers with
    normal noise each sample draws one target: in `spnb.fit` a function of seed, step, sample and
    row, elsewhere from torch's generator. For any other noise use `EnsembleEnergyScore`.

    Args:
        temperature: factor of the divergence from the prior.
    """

    _noise: energy.Noise | None = None

    def at_step(self, noise: energy.Noise) -> Objective:
        """The same, with targets drawn by the noise of the step."""
        other = copy.copy(self)
        other._noise = noise
        return other

    def losses(self, predictions: Tensor, targets: Tensor, likelihood: Likelihood) -> Tensor:
        """Fair energy score of each item over all its dimensions, ``[B]``.

        Raises:
            ValueError: the likelihood has neither classes nor normal noise, or there is but one
                antithetic pair.
        """
        likelihood.require_distribution("EnergyScore")
        distribution, target, observed = likelihood.match(predictions, targets)
        size = max(2, len(predictions))  # a single sample gives both members of a pair
        antithetic = self.antithetic and size == len(predictions)
        noisy = unwrapped(distribution)
        if isinstance(noisy, torch.distributions.Categorical):
            probabilities = _of_size(size, noisy.probs)
            return _summed(energy.of_classes(probabilities, target.long(), antithetic), observed)
        if not isinstance(noisy, torch.distributions.Normal):
            raise ValueError(
                "EnergyScore knows the predictive of classes and of normal noise, and this "
                f"likelihood is a {type(noisy).__name__}: use spnb.EnsembleEnergyScore(), of the "
                "samples' means, or spnb.PredictiveNLL()."
            )
        means, scales = (_of_size(size, part) for part in (noisy.loc, noisy.scale))
        if target.shape[1:].numel() == 1:
            flat = means.flatten(1), scales.flatten(1), target.flatten()
            return _summed(energy.of_normals(*flat, antithetic), observed)
        noise = _any_noise if self._noise is None else self._noise
        members = means + scales * noise(noisy.loc, size // len(predictions))
        return energy.of_members(*_kept(observed, members, target), antithetic)


class EnsembleEnergyScore(_OfPairs):
    r"""Energy score of an ensemble whose members are the samples' means (Gneiting & Raftery 2007).

    .. math:: \ell_b = \frac{1}{S} \sum_s \|m_s - y\|
                       - \frac{1}{2} \big\langle \|m_s - m_{s'}\| \big\rangle

    with the mean :math:`m_s` of the targets under sample s (for classes, the probabilities against
    the one-hot target), and the same mean over pairs as in `EnergyScore`. It judges the spread
    between the samples alone: the noise of the likelihood does not enter, and its scale is not
    trained. With S = 1 only the first term is left.

    Args:
        temperature: factor of the divergence from the prior.
    """

    def losses(self, predictions: Tensor, targets: Tensor, likelihood: Likelihood) -> Tensor:
        """Fair energy score of each item over all its dimensions, ``[B]``.

        Raises:
            ValueError: the likelihood has no mean, or there is but one antithetic pair.
        """
        likelihood.require_distribution("EnsembleEnergyScore")
        members, target = likelihood.mean(predictions), likelihood.encode(targets, predictions)
        _, _, observed = likelihood.match(predictions, targets)
        return energy.of_members(*_kept(observed, members, target), self.antithetic)


def _kept(observed: Tensor | None, members: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Members and target, equal where the target is missing."""
    if observed is None:
        return members, target
    observed = observed.view(*observed.shape, *[1] * (target.dim() - observed.dim()))
    return members.where(observed, 0), target.where(observed, 0)


def _summed(values: Tensor, observed: Tensor | None) -> Tensor:
    """Sum over what lies within an item, ``[B, ...] -> [B]``, without what is missing."""
    if observed is not None:
        values = values.where(observed.view_as(values), 0)
    return values.flatten(1).sum(1) if values.dim() > 1 else values


def _of_size(size: int, values: Tensor) -> Tensor:
    """As many samples; a single one may be taken several times."""
    return values.expand(size, *values.shape[1:])


def _any_noise(like: Tensor, copies: int) -> Tensor:
    return torch.randn(copies * len(like), *like.shape[1:], dtype=like.dtype, device=like.device)


class GaussianMoments(Objective):
    r"""Negative log-density of a normal fitted to the predictive moments.

    .. math:: m = \frac{1}{S} \sum_s m_s, \qquad
              v = \frac{1}{S} \sum_s (v_s + m_s^2) - m^2

    with mean and variance :math:`m_s, v_s` of the targets under sample s: the moments of the
    mixture of these S, independent or not. For likelihoods with a mean and a variance, such as
    the normal ones.

    Args:
        temperature: factor of the divergence from the prior.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__(temperature=temperature)

    def losses(self, predictions: Tensor, targets: Tensor, likelihood: Likelihood) -> Tensor:
        """Negative log-density of each item, summed over its dimensions, ``[B]``.

        Raises:
            ValueError: the likelihood has no mean or no variance, or is one of classes.
        """
        if isinstance(likelihood, Categorical):
            raise ValueError(
                "GaussianMoments fits a normal to real targets; a categorical likelihood has "
                "none. Use PredictiveNLL for classes."
            )
        likelihood.require_distribution("GaussianMoments")
        means = likelihood.mean(predictions)
        _, target, observed = likelihood.match(predictions, targets)
        mean = means.mean(0)
        variance = likelihood.variance(predictions).mean(0) + (means - mean).square().mean(0)
        losses = 0.5 * ((target - mean).square() / variance + (2 * math.pi * variance).log())
        return _summed(losses, observed)


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

    def for_pairs(self, sizes: Sequence[int]) -> Objective:
        """The wrapped objective for antithetic pairs, none of which a group may cut."""
        return self._wrapping(self.objective.for_pairs(sizes))

    def at_step(self, noise: energy.Noise) -> Objective:
        """The wrapped objective in one step."""
        return self._wrapping(self.objective.at_step(noise))

    def _wrapping(self, objective: Objective) -> Objective:
        other = copy.copy(self)
        other.objective, other.antithetic = objective, objective.antithetic
        return other

    def __repr__(self) -> str:
        """The wrapped objective."""
        return f"PlainAveraging({self.objective!r})"
