"""What users hand in, checked before any work begins: data and whole numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spnb.maths.models import BayesianModel
from spnb.maths.modules import check_forward
from spnb.maths.objectives import Objective
from spnb.maths.posteriors import Posterior


def positive(**numbers: int) -> None:
    """Refuse anything but whole numbers of at least 1.

    Raises:
        TypeError: not a whole number.
        ValueError: zero or negative.
    """
    for name, value in numbers.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name}={value!r} must be a whole number.")
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1.")


def samples(posterior: Posterior, wanted: int | None, usual: int, training: bool = False) -> int:
    """How many samples to take.

    Args:
        posterior: the posterior.
        wanted: what was asked for; None: all that there are, or the usual number.
        usual: of a posterior that has as many as one likes.
        training: whether for a step of training.

    Raises:
        TypeError: not a whole number.
        ValueError: not positive, or more than there are.
    """
    most = None
    if isinstance(posterior, Posterior):
        most = posterior.draws_in_training if training else posterior.num_draws
    if most == 0:
        raise ValueError(
            f"{type(posterior).__name__} holds finished samples, and has nothing to train."
        )
    if wanted is None:
        return most or usual
    positive(num_samples=wanted)
    if most is not None and wanted > most:
        raise ValueError(
            f"num_samples={wanted}, but this {type(posterior).__name__} has {most} different "
            f"sample{'s'[: most != 1]}{' in training' * training}: ask for at most that many, or "
            "leave num_samples out."
        )
    return wanted


def finite(name: str, values: Tensor) -> None:
    """Refuse NaN and infinity, and say where they are."""
    if not values.is_floating_point():
        return
    bad = ~torch.isfinite(values)
    if bad.any():
        first = bad.nonzero()[0].tolist()
        raise ValueError(
            f"{name} holds {int(bad.sum())} values that are NaN or infinite among "
            f"{values.numel()}, the first at index {first}: drop or fill those rows."
        )


def inputs(x: Any, like: Tensor) -> Tensor:
    """Inputs as a tensor in the precision of the net; they stay where they are."""
    tensor = torch.as_tensor(x)
    if tensor.dim() == 0 or len(tensor) == 0:
        raise ValueError(f"x has shape {tuple(tensor.shape)}: there must be at least one row.")
    finite("x", tensor)
    return tensor.to(like.dtype) if tensor.is_floating_point() else tensor


def data_set(posterior: Posterior, data: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """A data set (x, y) that fits the model.

    Args:
        posterior: the posterior that is to learn from it.
        data: inputs ``[N, ...]`` and targets ``[N, ...]``, tensors or arrays.

    Raises:
        TypeError: not a posterior, or not a pair.
        ValueError: lengths differ, values are not finite, shapes do not fit the model.
    """
    if not isinstance(posterior, Posterior):
        raise TypeError(
            f"posterior is a {type(posterior).__name__}; give a posterior such as "
            "spnb.MeanField(model)."
        )
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise TypeError("data must be a pair (x, y) of tensors or arrays.")
    like = next(posterior.model.net.parameters())
    x, y = inputs(data[0], like), torch.as_tensor(data[1])
    if y.dim() == 0 or len(x) != len(y):
        length = len(y) if y.dim() else "no"
        raise ValueError(f"x has {len(x)} rows and y has {length}: each input needs its target.")
    finite("y", y)
    y = y.to(like.dtype) if y.is_floating_point() else y
    return x, y


def probe(posterior: Posterior, x: Tensor, y: Tensor) -> Tensor:
    """Predictions ``[1, b, ...]`` of two rows: does the net take x, and does y fit?

    Raises:
        ValueError: the net is no plain function of its inputs, or y does not fit.
    """
    model: BayesianModel = posterior.model
    like = next(model.net.parameters())
    rows = x[:2].to(like.device)
    check_forward(model.net, rows)
    with torch.no_grad():
        weights = model.flatten(model.drawn).unsqueeze(0)
        predictions = model.predict(weights, posterior.point, rows)
        fits_all = predictions[:, :1].expand(1, len(y), *predictions.shape[2:])
        model.likelihood.check(fits_all, y.to(like.device))
    return predictions


def loss_per_item(
    posterior: Posterior, objective: Objective, predictions: Tensor, y: Tensor
) -> bool:
    """Whether an objective gives one loss an item, ``[b]``, rather than one for the batch.

    Args:
        posterior: the posterior.
        objective: the objective to try.
        predictions: of a few rows, ``[1, b, ...]``.
        y: targets of at least these rows.

    Raises:
        ValueError: it gives neither.
    """
    # Two samples of three rows, whatever there are, so that shapes cannot agree by accident.
    some = predictions[:, :1].expand(2, 3, *predictions.shape[2:])
    targets = y[:1].to(predictions.device).expand(3, *y.shape[1:])
    with torch.no_grad():
        losses = objective.losses(some, targets, posterior.model.likelihood)
    if not isinstance(losses, Tensor) or tuple(losses.shape) not in ((), (3,)):
        got = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
        raise ValueError(
            f"The objective gave {got} for predictions {tuple(some.shape)} of 2 samples and 3 "
            "items; it must give one loss an item, [B], or one scalar."
        )
    return losses.dim() == 1
