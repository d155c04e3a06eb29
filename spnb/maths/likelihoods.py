"""Likelihoods: how predictions become a distribution of the targets.

The *predictions* of a sample are the parameters of its likelihood, one row an item: logits for
`Categorical`, means for a `Normal` of known noise, means and log-scales side by side where the
noise is learned. A likelihood is a function of these predictions alone, so an objective sees all
that matters in one tensor ``[S, B, ...]``.

Targets may be missing: ``missing=`` says which value stands for them, or `Likelihood.observed`
which of them are there. What is missing adds nothing to a loss or to its gradient, and no score
looks at it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin as Distribution
from torch import Tensor, nn
from torch.distributions.constraints import Constraint


class UnknownMoment(ValueError):
    """A distribution has no mean or variance, or torch does not know it."""


class Likelihood(nn.Module):
    """Base of all likelihoods; wraps any callable ``predictions -> pyro distribution``.

    The distribution's batch shape must begin with the leading shape of the predictions,
    ``[S, B]``, and it must treat all of them alike.

    A likelihood of your own defines `forward`, which gives the distribution of the targets; or
    `log_likelihood` alone, and then the negative log-likelihood is the only score it has. If its
    `log_likelihood` leaves some targets out, `observed` must say which.

    Args:
        function: maps predictions ``[S, B, ...]`` to a distribution of the targets.
        missing: the value that stands for a missing target, such as ``float("nan")``; None: there
            are none.

    Raises:
        TypeError: ``missing`` is not a number.
    """

    #: parameters of the likelihood that have a prior, by name
    priors: dict[str, Distribution]

    #: value that stands for a missing target; None: there are none
    missing: float | None = None

    #: dimension of the predictions, counted from the end, along which the parameters of one target
    #: are stacked; None: each target has one number
    dim: int | None = None

    def __init__(
        self,
        function: Callable[[Tensor], Distribution] | None = None,
        missing: float | None = None,
    ) -> None:
        super().__init__()
        if isinstance(missing, bool) or not isinstance(missing, Real | None):
            raise TypeError(f"missing={missing!r} must be a number, such as -1 or float('nan').")
        self.function = function
        self.missing = int(missing) if isinstance(missing, Integral) else missing
        self.priors = {}

    def forward(self, predictions: Tensor) -> Distribution:
        """Distribution of the targets, given predictions ``[..., B, ...]``.

        Raises:
            NotImplementedError: the likelihood has only a `log_likelihood`.
        """
        if self.function is None:
            raise NotImplementedError(
                f"{type(self).__name__} does not say how its targets are distributed: define its "
                "forward(predictions), which returns a pyro distribution."
            )
        return self.function(predictions)

    def attach(self, outputs: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """Predictions from a net's outputs ``[B, ...]`` and the likelihood's own parameters."""
        return outputs

    # -- what is known of it ------------------------------------------------------------------

    @property
    def has_distribution(self) -> bool:
        """Whether it gives the distribution of the targets, or their `log_likelihood` alone."""
        return self.function is not None or type(self).forward is not Likelihood.forward

    @property
    def hides_missing(self) -> bool:
        """Whether a `log_likelihood` of one's own may leave out targets that `observed` counts."""
        own, rule = (
            next(kind for kind in type(self).__mro__ if name in vars(kind))
            for name in ("log_likelihood", "observed")
        )
        ours = own.__module__ == __name__
        return self.missing is None and not ours and own is not rule and issubclass(own, rule)

    def require_distribution(self, purpose: str) -> None:
        """Refuse to look at the distribution alone where that is not the whole likelihood.

        Args:
            purpose: what looks at it, for the message.

        Raises:
            NotImplementedError: there is none, or targets may be left out that it knows nothing of.
        """
        if not self.has_distribution:
            raise NotImplementedError(
                f"{purpose} needs the distribution of the targets, and {type(self).__name__} has "
                "only a log_likelihood: define its forward(predictions), which returns a pyro "
                "distribution, or use an objective of the log-likelihood, such as spnb.ELBO()."
            )
        if self.hides_missing:
            raise NotImplementedError(
                f"{purpose} looks at every target, and the log_likelihood of "
                f"{type(self).__name__} may leave some out: define its observed(targets), which "
                "returns the mask of those that count, or None for all."
            )

    # -- targets ------------------------------------------------------------------------------

    def observed(self, targets: Tensor) -> Tensor | None:
        """Which targets count: a mask of their shape, or None for all of them."""
        if self.missing is None:
            return None
        return ~targets.isnan() if math.isnan(self.missing) else targets != self.missing

    def targets(self, y: Tensor, predictions: Tensor) -> Tensor:
        """Targets in the type and shape that the likelihood takes.

        Classes become int64, other integers and truth values floating point. Dimensions of one
        element within an item do not matter: ``[N]`` and ``[N, 1]`` are the same.

        Args:
            y: targets ``[B, ...]``.
            predictions: ``[1, B, ...]``.

        Raises:
            ValueError: they do not fit the predictions; says what is wrong.
        """
        self.check(predictions, y)
        return self._fit(y, predictions, self(predictions)) if self.has_distribution else y

    def check(self, predictions: Tensor, targets: Tensor) -> None:
        """Refuse targets that do not fit the predictions ``[1, B, ...]``.

        Raises:
            TypeError: `observed` does not give a mask.
            ValueError: type, shape or range of the targets is wrong, or all or a part of an item
                is missing that must not be; says which.
        """
        if not self.has_distribution:
            observed = self.mask(targets)
        else:
            self._check_outputs(predictions)
            distribution, filled, observed = self.match(predictions, targets)
            self._check_values(distribution, filled, observed)
        if observed is not None and not bool(observed.any()):
            raise ValueError(f"y holds {targets.numel()} targets, and all of them are missing.")

    def match(
        self, predictions: Tensor, targets: Tensor, leading: int = 1
    ) -> tuple[Distribution, Tensor, Tensor | None]:
        """The distribution of the targets, and targets that it can judge.

        Args:
            predictions: ``[S, B, ...]``.
            targets: ``[B, ...]``.
            leading: how many dimensions of the predictions come before B.

        Returns:
            The distribution; the targets in its type and shape, where they are missing with some
            value of its support, so that neither densities nor their gradients become NaN there;
            and which targets count (None: all).

        Raises:
            ValueError: the targets have another shape.
        """
        distribution = self(predictions)
        targets = self._fit(targets, predictions, distribution, leading)
        observed = self.mask(targets)
        if observed is not None:
            targets = torch.where(observed, targets, _within(distribution.support, targets))
        return distribution, targets, observed

    def _fit(
        self, targets: Tensor, predictions: Tensor, distribution: Distribution, leading: int = 1
    ) -> Tensor:
        expected = distribution.batch_shape[leading:] + distribution.event_shape
        targets = self._cast(targets, predictions, distribution)
        if targets.shape == expected:
            return targets
        if targets.shape[:1] == expected[:1] and _wide(targets.shape) == _wide(expected):
            return targets.reshape(expected)
        raise ValueError(self._misfit(targets, predictions.shape[leading:], expected))

    def _cast(self, targets: Tensor, predictions: Tensor, distribution: Distribution) -> Tensor:
        if targets.is_floating_point():
            return targets
        classes = isinstance(unwrapped(distribution), torch.distributions.Categorical)
        return targets.to(torch.int64 if classes else predictions.dtype)

    def _misfit(self, targets: Tensor, predicted: Sequence[int], expected: Sequence[int]) -> str:
        return (
            f"y has shape {tuple(targets.shape)} where the predictions of the net, "
            f"{tuple(predicted)}, ask for {tuple(expected)}: reshape y or change the last layer."
        )

    def mask(self, targets: Tensor) -> Tensor | None:
        """What `observed` gives, if it is a mask.

        Raises:
            TypeError: it is something else.
        """
        observed = self.observed(targets)
        if observed is None or (observed.dtype == torch.bool and observed.shape == targets.shape):
            return observed
        raise TypeError(
            f"{type(self).__name__}.observed gave {observed.dtype} {tuple(observed.shape)} for "
            f"targets {tuple(targets.shape)}; it must give a mask of their shape, or None."
        )

    def _check_outputs(self, predictions: Tensor) -> None:
        if self.dim is not None and predictions.dim() + self.dim < 2:
            given = tuple(predictions.shape[2:]) or "one number"
            raise ValueError(
                f"The net gives {given} for a row, and {type(self).__name__} expects several "
                f"numbers for each target, along dim={self.dim}: change the last layer."
            )

    def _check_values(
        self, distribution: Distribution, filled: Tensor, observed: Tensor | None
    ) -> None:
        """Refuse values outside the support, and items of which a part is missing."""
        event = distribution.event_shape
        if observed is not None and event:
            numbers = observed.flatten(-len(event))
            torn = int((numbers.all(-1) != numbers.any(-1)).sum())
            if torn:
                raise ValueError(
                    f"{torn} items of y are missing in part, and a "
                    f"{type(distribution).__name__} judges the {event.numel()} numbers of an item "
                    "together: mark the whole item, or use a distribution without event "
                    "dimensions."
                )
        support = distribution.support
        if not bool(support.check(filled).all()):
            there = filled if observed is None else filled[observed]
            raise ValueError(self._outside(there.min().item(), there.max().item(), support))

    def _outside(self, least: float, most: float, support: Constraint) -> str:
        return (
            f"y holds values from {least:g} to {most:g} outside the support of the likelihood, "
            f"{support}."
        )

    # -- how targets are judged ---------------------------------------------------------------

    def mean(self, predictions: Tensor) -> Tensor:
        """Mean of the targets ``[S, B, ...]``; for classes, their probabilities.

        Raises:
            UnknownMoment: the distribution has none.
        """
        return self._moment("mean", predictions)

    def variance(self, predictions: Tensor) -> Tensor:
        """Variance of the targets ``[S, B, ...]``.

        Raises:
            UnknownMoment: the distribution has none.
        """
        return self._moment("variance", predictions)

    def _moment(self, name: str, predictions: Tensor) -> Tensor:
        distribution = self(predictions)
        reason: Exception | None = None
        try:
            value: Tensor = getattr(distribution, name)
            # Where gradients are wanted a step is under way: it was looked at before the first, and
            # a GPU would have to wait for the answer.
            if value.requires_grad or not value.isnan().any() or predictions.isnan().any():
                return value
        except NotImplementedError as error:
            reason = error
        kind = type(unwrapped(distribution)).__name__
        raise UnknownMoment(
            f"The {name} of a {kind} distribution is not known: use a likelihood that has one, or "
            "what needs the log-likelihood alone, such as spnb.ELBO() or "
            "spnb.scores.predictive_nll."
        ) from reason

    def encode(self, targets: Tensor, predictions: Tensor) -> Tensor:
        """Targets in the space of `mean`: themselves; for classes, one-hot vectors."""
        return self.match(predictions, targets)[1]

    def log_likelihood(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Log-density of each item under each sample.

        Args:
            predictions: ``[S, B, ...]``.
            targets: ``[B, ...]``.

        Returns:
            ``[S, B]``, summed over the dimensions within an item; those that are missing add
            nothing.
        """
        distribution, targets, observed = self.match(predictions, targets)
        values = distribution.log_prob(targets)
        if observed is not None:
            values = values.where(whole_events(observed, distribution), 0)
        return values.flatten(2).sum(2) if values.dim() > 2 else values

    def total_nll(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Negative sum of the log-densities over items and samples, a scalar."""
        return -self.log_likelihood(predictions, targets).sum()

    def divergence(
        self, predictions: Tensor, others: Tensor, observed: Tensor | None = None
    ) -> Tensor:
        """KL(targets by some predictions || targets by others), summed over all, a scalar.

        Args:
            predictions: ``[S, B, ...]``.
            others: ``[S, B, ...]``.
            observed: which targets count, ``[B, ...]``; None: all.

        Raises:
            NotImplementedError: the likelihood does not give the distribution of its targets.
            ValueError: torch knows no formula for it.
        """
        self.require_distribution("A KL divergence")
        p, q = self(predictions), self(others)
        try:
            values = torch.distributions.kl_divergence(p, q)
        except NotImplementedError:
            raise ValueError(
                f"torch knows no KL divergence between two {type(p).__name__} distributions, which "
                "is needed here: take another likelihood, or another method."
            ) from None
        return (
            values.sum() if observed is None else values.where(whole_events(observed, p), 0).sum()
        )


class Categorical(Likelihood):
    """Classes from logits ``[..., C]``; targets are integers from 0 to C-1.

    An item may have several labels, such as one for each pixel: logits ``[B, H, W, C]`` and targets
    ``[B, H, W]``.

    Args:
        missing: the label of what is missing, such as -1; None: there are none.
        dim: along which dimension of the logits the classes lie, counted from the end: -3 for
            ``[B, C, H, W]``, the order of `torch.nn.functional.cross_entropy`.

    Raises:
        TypeError: ``missing`` is not a whole number.
        ValueError: the dimension is not counted from the end.
    """

    dim: int

    def __init__(self, missing: int | None = None, dim: int = -1) -> None:
        super().__init__(missing=missing)
        if not isinstance(missing, Integral | None):
            raise TypeError(
                f"missing={missing!r}: labels are integers; mark what is missing by -1."
            )
        self.dim = _from_the_end(dim)

    def _logits(self, predictions: Tensor) -> Tensor:
        """Logits with the classes last."""
        return predictions if self.dim == -1 else predictions.movedim(self.dim, -1)

    def forward(self, predictions: Tensor) -> Distribution:
        """Categorical distribution of the targets."""
        return dist.Categorical(logits=self._logits(predictions), validate_args=False)

    def log_likelihood(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Log-probability of each item's class under each sample, ``[S, B]``."""
        values = -self._cross_entropy(predictions, targets, "none")
        return values.flatten(2).sum(2) if values.dim() > 2 else values

    def total_nll(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Their sum with the other sign, in one operation."""
        return self._cross_entropy(predictions, targets, "sum")

    def _cross_entropy(self, predictions: Tensor, targets: Tensor, reduction: str) -> Tensor:
        """Cross entropies of the labels, ``[S, B, ...]`` or summed; 0 where they are missing."""
        logits = self._logits(predictions)
        labels = logits.shape[:-1]
        if targets.shape != labels[1:] or targets.dtype != torch.int64:
            targets = self._fit(targets, predictions, self(predictions))
        observed = self.mask(targets)
        if observed is not None:
            targets = targets.where(observed, _IGNORED)
        if targets.numel() != labels.numel():  # of several samples
            targets = targets.expand(labels)
        values = nn.functional.cross_entropy(
            logits.flatten(0, -2), targets.reshape(-1), reduction=reduction, ignore_index=_IGNORED
        )
        return values.view(labels) if reduction == "none" else values

    def divergence(
        self, predictions: Tensor, others: Tensor, observed: Tensor | None = None
    ) -> Tensor:
        """The same for classes, in operations that `torch.vmap` knows."""
        self.require_distribution("A KL divergence")
        logs, other_logs = (self._logits(p).log_softmax(-1) for p in (predictions, others))
        values = logs.exp() * (logs - other_logs)
        return values.sum() if observed is None else values.sum(-1).where(observed, 0).sum()

    def mean(self, predictions: Tensor) -> Tensor:
        """Class probabilities ``[S, B, ..., C]``."""
        return self._logits(predictions).softmax(-1)

    def encode(self, targets: Tensor, predictions: Tensor) -> Tensor:
        """One-hot vectors ``[B, ..., C]``; of the first class where the label is missing."""
        _, labels, _ = self.match(predictions, targets)
        return nn.functional.one_hot(labels, predictions.shape[self.dim]).to(predictions.dtype)

    def _check_outputs(self, predictions: Tensor) -> None:
        super()._check_outputs(predictions)
        if predictions.shape[self.dim] == 1:
            raise ValueError(
                "The net gives one logit for a target, and a single class leaves nothing to learn: "
                "let the last layer give one for each class, at least 2, or use the likelihood "
                "lambda logits: pyro.distributions.Bernoulli(logits=logits)."
            )

    def _cast(self, targets: Tensor, predictions: Tensor, distribution: Distribution) -> Tensor:
        if targets.is_floating_point() or targets.is_complex():
            raise ValueError(
                f"y has dtype {targets.dtype}; class labels are integers: pass y.long()."
            )
        if targets.dtype == torch.bool and predictions.shape[self.dim] != 2:
            raise ValueError(
                f"y holds truth values, which tell 2 classes apart, and the net gives "
                f"{predictions.shape[self.dim]} logits: pass class labels, or give it 2 outputs."
            )
        return targets.long()

    def _misfit(self, targets: Tensor, predicted: Sequence[int], expected: Sequence[int]) -> str:
        dim = 1 - len(predicted)
        if self.dim != dim and _wide(targets.shape) == _wide([predicted[0], *predicted[2:]]):
            return (
                f"y has shape {tuple(targets.shape)} where the logits of the net, "
                f"{tuple(predicted)}, seem to hold the {predicted[1]} classes in dimension 1: use "
                f"likelihood=spnb.likelihoods.Categorical(dim={dim}), or move the classes to the "
                "end."
            )
        return super()._misfit(targets, predicted, expected)

    def _outside(self, least: float, most: float, support: Constraint) -> str:
        classes = int(getattr(support, "upper_bound", 0)) + 1
        sign = ", or name the label of what is missing, as in Categorical(missing=-1)"
        return (
            f"y holds labels from {least:.0f} to {most:.0f}, outside the classes 0 to "
            f"{classes - 1} of a net with {classes} outputs: count the classes from 0, or change "
            f"the last layer{sign * (least < 0)}."
        )


_IGNORED = -100
"""Label that torch's cross entropy leaves out."""


class Normal(Likelihood):
    """Normal noise around the net's output ``[..., D]``, the same for all items.

    Args:
        scale: the noise's standard deviation, in the units of the targets. A number: known.
            ``"learned"``: one value, learned as in a plain network. A pyro distribution over
            positive numbers: learned with that prior.
        init_scale: where a learned noise starts.
        missing: the value that stands for a missing target, such as ``float("nan")``; None: there
            are none.
    """

    def __init__(
        self,
        scale: float | str | Distribution = "learned",
        init_scale: float = 0.5,
        missing: float | None = None,
    ) -> None:
        super().__init__(missing=missing)
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
        if outputs.dim() == 1:  # one number a row: the rows are no place for the log-scales
            outputs = outputs.unsqueeze(-1)
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
        missing: the value that stands for a missing target, such as ``float("nan")``; None: there
            are none.

    Raises:
        ValueError: the dimension is not counted from the end.
    """

    dim: int

    def __init__(self, dim: int = -1, missing: float | None = None) -> None:
        super().__init__(missing=missing)
        self.dim = _from_the_end(dim)

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


def _from_the_end(dim: int) -> int:
    if dim >= 0:
        # From the front it would be another one for [S, B, ...] than for [B, ...].
        raise ValueError(f"dim={dim} must be negative, counted from the end, such as -1.")
    return dim


def _wide(shape: Sequence[int]) -> list[int]:
    """The lengths within an item that are not 1."""
    return [length for length in shape[1:] if length != 1]


def _within(support: Constraint, like: Tensor) -> Tensor:
    """Some value that a support holds: zero, if it does."""
    try:
        into = torch.distributions.transform_to(support)
        value: Tensor = into(torch.zeros(into.inverse_shape(like.shape)).to(like))
        return value
    except NotImplementedError:  # of integers
        return torch.as_tensor(getattr(support, "lower_bound", 0)).to(like)


def unwrapped(distribution: Distribution) -> Distribution:
    """The distribution whose last batch dimensions are those of the events."""
    while isinstance(distribution, torch.distributions.Independent):
        distribution = distribution.base_dist
    return distribution


def whole_events(observed: Tensor, distribution: Distribution) -> Tensor:
    """A mask of the targets, as one of what a distribution judges together."""
    event = len(distribution.event_shape)
    return observed.flatten(-event).all(-1) if event else observed


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
