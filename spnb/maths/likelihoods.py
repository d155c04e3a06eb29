"""Likelihoods: how predictions become a distribution of the targets.

The *predictions* of a sample are the parameters of its likelihood, one row an item: logits for
`Categorical`, means for a `Normal` of known noise, means and log-scales side by side where the
noise is learned. A likelihood is a function of these predictions alone, so an objective sees all
that matters in one tensor ``[S, B, ...]``.
"""

from __future__ import annotations

from collections.abc import Callable

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin as Distribution
from torch import Tensor, nn


class Likelihood(nn.Module):
    """Base of all likelihoods; wraps any callable ``predictions -> pyro distribution``.

    The distribution's batch shape must begin with the leading shape of the predictions,
    ``[S, B]``, and it must treat all of them alike.

    Args:
        function: maps predictions ``[S, B, ...]`` to a distribution of the targets.
    """

    #: parameters of the likelihood that have a prior, by name
    priors: dict[str, Distribution]

    def __init__(self, function: Callable[[Tensor], Distribution] | None = None) -> None:
        super().__init__()
        self.function = function
        self.priors = {}

    def forward(self, predictions: Tensor) -> Distribution:
        """Distribution of the targets, given predictions ``[..., B, ...]``."""
        assert self.function is not None
        return self.function(predictions)

    def attach(self, outputs: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """Predictions from a net's outputs ``[B, ...]`` and the likelihood's own parameters."""
        return outputs

    def mean(self, predictions: Tensor) -> Tensor:
        """Mean of the targets ``[S, B, ...]``; for classes, their probabilities."""
        return self(predictions).mean

    def encode(self, targets: Tensor, predictions: Tensor) -> Tensor:
        """Targets in the space of `mean`: themselves; for classes, one-hot vectors."""
        return targets

    def log_likelihood(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Log-density of each item under each sample.

        Args:
            predictions: ``[S, B, ...]``.
            targets: ``[B, ...]``.

        Returns:
            ``[S, B]``, summed over the dimensions within an item.
        """
        values = self(predictions).log_prob(targets)
        return values.flatten(2).sum(2) if values.dim() > 2 else values

    def total_nll(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Negative sum of the log-densities over items and samples, a scalar."""
        return -self.log_likelihood(predictions, targets).sum()

    def divergence(self, predictions: Tensor, others: Tensor) -> Tensor:
        """KL(targets by some predictions || targets by others), summed over all, a scalar.

        Raises:
            ValueError: torch knows no formula for it.
        """
        p, q = self(predictions), self(others)
        try:
            return torch.distributions.kl_divergence(p, q).sum()
        except NotImplementedError:
            raise ValueError(
                f"torch knows no KL divergence between two {type(p).__name__} distributions, which "
                "is needed here: take another likelihood, or another method."
            ) from None

    def check(self, predictions: Tensor, targets: Tensor) -> None:
        """Refuse targets that do not fit the predictions ``[1, B, ...]``.

        Raises:
            ValueError: shape or range of the targets is wrong; says which.
        """
        distribution = self(predictions)
        expected = tuple(distribution.batch_shape[1:] + distribution.event_shape)
        if tuple(targets.shape) != expected:
            raise ValueError(
                f"y has shape {tuple(targets.shape)} where the predictions of the net, "
                f"{tuple(predictions.shape[1:])}, ask for {expected}: reshape y or change the "
                "last layer."
            )
        support = distribution.support
        if not bool(support.check(targets).all()):
            raise ValueError(
                f"y holds values from {targets.min().item():g} to {targets.max().item():g} "
                f"outside the support of the likelihood, {support}."
            )


class Categorical(Likelihood):
    """Classes from logits ``[..., C]``; targets are integers from 0 to C-1."""

    def forward(self, predictions: Tensor) -> Distribution:
        """Categorical distribution over the last dimension."""
        return dist.Categorical(logits=predictions, validate_args=False)

    def log_likelihood(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Log-probability of each item's class under each sample, ``[S, B]``."""
        values = -self._cross_entropy(predictions, targets, "none").view(predictions.shape[:-1])
        return values.flatten(2).sum(2) if values.dim() > 2 else values

    def total_nll(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Their sum with the other sign, in one operation."""
        return self._cross_entropy(predictions, targets, "sum")

    @staticmethod
    def _cross_entropy(predictions: Tensor, targets: Tensor, reduction: str) -> Tensor:
        flat = predictions.flatten(0, -2)
        if flat.shape[0] != targets.numel():  # of several samples
            targets = targets.expand(predictions.shape[:-1])
        return nn.functional.cross_entropy(flat, targets.reshape(-1).long(), reduction=reduction)

    def divergence(self, predictions: Tensor, others: Tensor) -> Tensor:
        """The same for classes, in operations that `torch.vmap` knows."""
        logs, other_logs = predictions.log_softmax(-1), others.log_softmax(-1)
        return (logs.exp() * (logs - other_logs)).sum()

    def mean(self, predictions: Tensor) -> Tensor:
        """Class probabilities ``[S, B, C]``."""
        return predictions.softmax(-1)

    def encode(self, targets: Tensor, predictions: Tensor) -> Tensor:
        """One-hot vectors ``[B, C]``."""
        return nn.functional.one_hot(targets, predictions.shape[-1]).to(predictions.dtype)

    def check(self, predictions: Tensor, targets: Tensor) -> None:
        """Refuse targets that are not integers, besides what every likelihood refuses."""
        if targets.dtype not in (torch.int64, torch.int32, torch.uint8, torch.int16):
            raise ValueError(
                f"y has dtype {targets.dtype}; class labels are integers: pass y.long()."
            )
        super().check(predictions, targets)


class Normal(Likelihood):
    """Normal noise around the net's output ``[..., D]``, the same for all items.

    Args:
        scale: the noise's standard deviation, in the units of the targets. A number: known.
            ``"learned"``: one value, learned as in a plain network. A pyro distribution over
            positive numbers: learned with that prior.
        init_scale: where a learned noise starts.
    """

    def __init__(
        self, scale: float | str | Distribution = "learned", init_scale: float = 0.5
    ) -> None:
        super().__init__()
        self.known: float | None = None
        if isinstance(scale, int | float):
            if not scale > 0:
                raise ValueError(f"scale={scale} must be positive.")
            self.known = float(scale)
            return
        if isinstance(scale, str) and scale != "learned":
            raise ValueError(f"scale='{scale}' must be a number, 'learned' or a distribution.")
        self.log_scale = nn.Parameter(torch.tensor(float(init_scale)).log())
        if isinstance(scale, Distribution):
            self.priors["log_scale"] = _of_the_log(scale)

    def attach(self, outputs: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """Means, followed by the log-scale for each of them if it is learned: ``[B, 2 D]``."""
        if self.known is not None:
            return outputs
        return torch.cat([outputs, parameters["log_scale"].expand_as(outputs)], -1)

    def forward(self, predictions: Tensor) -> Distribution:
        """Normal distribution of the targets."""
        if self.known is not None:
            return dist.Normal(predictions, self.known, validate_args=False)
        return _mean_and_log_scale(predictions)


class HeteroscedasticNormal(Likelihood):
    """Normal noise that the net predicts: its output is ``[..., 2 D]``, means then log-scales.

    Args:
        dim: along which means and log-scales are stacked, counted from the end: -1 for vectors, -3
            for the channels of images and fields ``[..., 2 L, H, W]``.

    Raises:
        ValueError: the dimension is not counted from the end.
    """

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        if dim >= 0:
            # From the front it would be another one for [S, B, ...] than for [B, ...].
            raise ValueError(f"dim={dim} must be negative, counted from the end, such as -1.")
        self.dim = dim

    def forward(self, predictions: Tensor) -> Distribution:
        """Normal distribution of the targets."""
        if predictions.shape[self.dim] % 2:
            raise ValueError(
                f"A heteroscedastic net gives a mean and a log-scale for each target, an even "
                f"number of outputs; this one gives {predictions.shape[self.dim]}."
            )
        return _mean_and_log_scale(predictions, self.dim)


def _mean_and_log_scale(predictions: Tensor, dim: int = -1) -> Distribution:
    mean, log_scale = predictions.chunk(2, dim)
    return dist.Normal(mean, log_scale.exp(), validate_args=False)


def _of_the_log(positive: Distribution) -> Distribution:
    """Distribution of log(z) for a positive z; a plain normal where z is log-normal."""
    if isinstance(positive, torch.distributions.LogNormal):
        return dist.Normal(positive.loc, positive.scale)
    return dist.TransformedDistribution(positive, [dist.transforms.ExpTransform().inv])


def named(likelihood: str | Likelihood | Callable[[Tensor], Distribution]) -> Likelihood:
    """The likelihood called by a name, or made of a callable.

    Raises:
        ValueError: no likelihood has this name.
        TypeError: neither a name, nor a likelihood, nor a callable.
    """
    if isinstance(likelihood, Likelihood):
        return likelihood
    if isinstance(likelihood, str):
        known = {
            "categorical": Categorical,
            "normal": Normal,
            "heteroscedastic": HeteroscedasticNormal,
        }
        if likelihood not in known:
            raise ValueError(f"likelihood='{likelihood}' is none of {', '.join(known)}.")
        return known[likelihood]()
    if callable(likelihood):
        return Likelihood(likelihood)
    raise TypeError(
        f"likelihood is a {type(likelihood).__name__}; give a name, an object of "
        "spnb.likelihoods, or a function from predictions to a pyro distribution."
    )
