"""A step that is planned and not taken, checked as `spnb.fit` would check it before the first one.

Where posterior or data lie on the meta device there are no numbers to look at, and shapes and kinds
alone are checked.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spnb.maths.models import BayesianModel
from spnb.maths.objectives import ELBO, Objective
from spnb.maths.posteriors import MeanField, Posterior
from spnb.maths.posteriors.pieces import PieceOfModel, Window
from spnb.parallel.arguments import whole_or_none
from spnb.run import checks, inputs, separate
from spnb.run.passes import look
from spnb.run.training import USUAL_SAMPLES


@dataclass(frozen=True)
class Job:
    """A step of S samples on B rows.

    Attributes:
        posterior: the posterior.
        x: inputs of the batch ``[B, ...]``.
        y: targets of the batch ``[B, ...]``.
        num_samples: S, over all ranks.
        objective: what is minimised.
        per_item: whether the objective gives a loss for each item, or one for the batch.
    """

    posterior: Posterior
    x: Tensor
    y: Tensor
    num_samples: int
    objective: Objective
    per_item: bool

    @classmethod
    def of(
        cls,
        posterior: Posterior,
        data: Sequence[Any],
        num_samples: int | None,
        batch_size: int | None,
        objective: Objective | None,
    ) -> Job:
        """The step that the arguments of a plan describe; they are those of `spnb.fit`.

        Raises:
            TypeError: something is of the wrong kind.
            ValueError: bad numbers, shapes or data, or an objective that the posterior cannot have.
        """
        objective = ELBO() if objective is None else objective
        if not isinstance(objective, Objective):
            raise TypeError(
                f"objective is a {type(objective).__name__}; wrap a function of predictions and "
                "targets as spnb.Objective(function)."
            )
        posterior = inputs.posterior_of(posterior)
        x, y = first_rows(posterior, data, batch_size)
        wanted = whole_or_none("num_samples", num_samples)
        num_samples = inputs.samples(posterior, wanted, USUAL_SAMPLES, training=True)
        predictions, targets = _predicted(posterior, x, y)
        some = predictions.expand(3, *predictions.shape[1:])
        per_item = checks.objective(posterior, objective, some, targets)
        if posterior.separate:
            separate.check(posterior, objective, per_item, num_samples)
        _warn_of_method(posterior)
        return cls(posterior, x, y, num_samples, objective, per_item)

    @property
    def rows(self) -> int:
        """B."""
        return len(self.x)

    def check_shards(self) -> None:
        """Refuse a posterior whose parameters ranks cannot share out.

        Raises:
            TypeError: its weights are not drawn one by one.
            ValueError: its prior does not take them one by one.
        """
        model = self.posterior.model
        size = sum(site.size for site in model.drawn)
        self.posterior.piece(Window(0, 0, size))  # nothing is copied
        _ = PieceOfModel(model, Window(0, size, size)).drawn

    @property
    def shards(self) -> bool:
        """Whether ranks can share out the posterior's parameters."""
        try:
            self.check_shards()
        except (TypeError, ValueError):
            return False
        return True


def first_rows(
    posterior: Posterior, data: Sequence[Any], batch_size: int | None
) -> tuple[Tensor, Tensor]:
    """The first batch of a data set that fits the model; on the meta device if one of both is.

    Args:
        posterior: the posterior.
        data: inputs ``[N, ...]`` and targets ``[N, ...]``.
        batch_size: B; None: all rows.

    Raises:
        TypeError: something is of the wrong kind.
        ValueError: bad numbers, shapes or data.
    """
    size = whole_or_none("batch_size", batch_size)
    kinds = data if isinstance(data, tuple | list) else ()
    if any(isinstance(values, Tensor) and values.is_meta for values in kinds):
        x, y = inputs.data_set(posterior, tuple(_zeros(values, size) for values in data))
        return x.to("meta"), y.to("meta")
    x, y = inputs.data_set(posterior, data)
    if has_numbers(posterior, x, y):
        inputs.probe(posterior, x, y)
    return x[:size], y[:size]


def has_numbers(posterior: Posterior, x: Tensor, y: Tensor) -> bool:
    """Whether neither the posterior nor its data lie on the meta device."""
    return not any(values.is_meta for values in (next(posterior.parameters()), x, y))


def check_numbers(posterior: Posterior, x: Tensor, y: Tensor) -> None:
    """Refuse to time what has no numbers.

    Raises:
        ValueError: posterior or data lie on the meta device.
    """
    if not has_numbers(posterior, x, y):
        raise ValueError(
            "Passes are timed on real numbers, and posterior or data lie on the meta device: make "
            "them on a CPU, or plan without a pool, for a machine and a world_size."
        )


def _zeros(values: Any, size: int | None) -> Tensor:
    """Zeros in the place of the first rows, without memory of their own."""
    like = torch.as_tensor(values)
    return torch.zeros((), dtype=like.dtype).expand(like.shape)[:size] if like.dim() else like


def _predicted(posterior: Posterior, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Predictions ``[1, b, ...]`` of a few rows, or zeros of their shape, and targets."""
    if has_numbers(posterior, x, y):
        predictions, y = inputs.probe(posterior, x, y)
        return predictions, inputs.few_rows(y)

    def see(model: BayesianModel, point: Tensor, x: Tensor, y: Tensor) -> torch.Size:
        weights = model.flatten(model.drawn).unsqueeze(0).requires_grad_()  # as in training
        return model.predict(weights, point, x).shape

    shape = look(posterior, x[:1], y[:1], see)
    like = next(posterior.model.net.parameters())
    return torch.zeros(shape, dtype=like.dtype), torch.zeros(y[:1].shape, dtype=y.dtype)


def _warn_of_method(posterior: Posterior) -> None:
    """Say that memory and traffic are those of another method, if they are."""
    if not isinstance(posterior, MeanField):
        trained = sum(p.numel() for name, p in posterior.named_parameters() if name != "point")
        each = trained / sum(site.size for site in posterior.model.drawn)
        warnings.warn(
            "Memory and traffic are counted for spnb.MeanField, which trains 2 numbers for each "
            f"weight; this {type(posterior).__name__} trains {each:.3g}, and differs accordingly.",
            stacklevel=4,
        )
