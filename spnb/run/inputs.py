"""What users hand in, checked before any work begins: posteriors, data and numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spnb.maths.models import BayesianModel
from spnb.maths.modules import check_forward, check_indices
from spnb.maths.posteriors import Posterior
from spnb.parallel.arguments import whole
from spnb.parallel.keyed import Key
from spnb.run import files
from spnb.run.arrays import tensor_of

ROWS_TRIED = 8
"""Rows on which a net is tried before the first step, taken from all over the data."""

MARK_MISSING = (
    ", or mark what is missing, as in likelihood=spnb.likelihoods.Normal(missing=float('nan'))"
)


def posterior_of(given: Any) -> Posterior:
    """The posterior that was given, or that of what `spnb.fit` returned.

    Raises:
        TypeError: it is something else; says how to make one of it.
    """
    found = getattr(given, "posterior", given)
    if isinstance(found, Posterior):
        return found
    make = "a posterior such as spnb.MeanField(model)"
    if isinstance(given, BayesianModel):
        make = "a posterior of it, such as spnb.MeanField(model)"
    elif isinstance(given, nn.Module):
        make = "a posterior such as spnb.MeanField(model) of model = spnb.BayesianModel(net)"
    raise TypeError(f"posterior is a {type(given).__name__}; give {make}.")


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
    most = posterior.draws_in_training if training else posterior.num_draws
    if most == 0:
        raise ValueError(
            f"{type(posterior).__name__} holds finished samples, and has nothing to train."
        )
    if wanted is None:
        return most or usual
    wanted = whole("num_samples", wanted)
    if most is not None and wanted > most:
        raise ValueError(
            f"num_samples={wanted}, but this {type(posterior).__name__} has {most} different "
            f"sample{'s'[: most != 1]}{' in training' * training}: ask for at most that many, or "
            "leave num_samples out."
        )
    return wanted


def finite(name: str, values: Tensor, observed: Tensor | None = None, or_else: str = "") -> None:
    """Refuse NaN and infinity, and say where they are.

    Args:
        name: of the values.
        values: the values.
        observed: which of them count; None: all.
        or_else: what else may be done, for the message.
    """
    if not values.is_floating_point():
        return
    bad = ~torch.isfinite(values)
    if observed is not None:
        bad &= observed
    if bad.any():
        first = bad.nonzero()[0].tolist()
        raise ValueError(
            f"{name} holds {int(bad.sum())} values that are NaN or infinite among "
            f"{values.numel()}, the first at index {first}: drop or fill those rows{or_else}."
        )


def inputs(x: Any, model: BayesianModel) -> Tensor:
    """Inputs as a tensor of the type that the net takes; they stay where they are.

    Floating-point inputs get the precision of the net. Whole numbers stay what they are where the
    net takes them, as an embedding does, and become floating-point numbers where it does not.

    Raises:
        TypeError: no numbers, or several tensors.
        ValueError: no rows, or values that are not finite.
    """
    tensor = tensor_of("x", x)
    if tensor.dim() == 0 or len(tensor) == 0:
        raise ValueError(f"x has shape {tuple(tensor.shape)}: there must be at least one row.")
    finite("x", tensor)
    like = next(model.net.parameters())
    if like.is_meta and not tensor.is_floating_point():  # nothing can be tried
        return tensor
    if tensor.is_floating_point() or not _takes(model.net, tensor[:1].to(like.device)):
        return tensor.to(like.dtype)
    check_indices(model.net, tensor)
    return tensor


def _takes(net: nn.Module, x: Tensor) -> bool:
    """Whether a net takes inputs as they are, or would not take them as floats either."""
    for given, works in ((x, True), (x.to(next(net.parameters()).dtype), False)):
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                net(given)
        except Exception:
            continue
        return works
    return True


def data_set(posterior: Posterior, data: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """A data set (x, y) that fits the model.

    Args:
        posterior: the posterior that is to learn from it.
        data: inputs ``[N, ...]`` and targets ``[N, ...]``, tensors, arrays or tables.

    Raises:
        TypeError: not a pair of numbers.
        ValueError: lengths differ, values are not finite, shapes do not fit the model.
    """
    if not isinstance(data, tuple | list) or len(data) != 2:
        got = f"{len(data)} parts" if isinstance(data, tuple | list) else type(data).__name__
        raise TypeError(f"data must be a pair (x, y) of tensors or arrays, not {got}.")
    x, y = inputs(data[0], posterior.model), tensor_of("y", data[1])
    if y.dim() == 0 or len(x) != len(y):
        length = len(y) if y.dim() else "no"
        raise ValueError(f"x has {len(x)} rows and y has {length}: each input needs its target.")
    if y.is_floating_point():
        finite("y", y, posterior.model.likelihood.mask(y), MARK_MISSING)
        y = y.to(next(posterior.model.net.parameters()).dtype)
    return x, y


def few_rows(values: Tensor, most: int = ROWS_TRIED) -> Tensor:
    """Some rows from all over a data set, since neighbours may be alike."""
    places = torch.linspace(0, len(values) - 1, min(most, len(values))).round().long()
    return values[places.to(values.device)]


def fingerprint(x: Tensor, y: Tensor) -> str:
    """A data set in a line: shapes, types, and the contents of 64 rows that are drawn by key."""
    generator = Key(0).fold("fingerprint").generator()
    places = torch.randint(len(x), (64,), generator=generator)
    contents = hashlib.sha256()
    for values in (x, y):
        files.feed(contents, values[places.to(values.device)])
    kinds = " and ".join(
        f"{name} {str(values.dtype).removeprefix('torch.')} {list(values.shape)}"
        for name, values in (("x", x), ("y", y))
    )
    return f"{kinds}, some rows of which have the checksum {contents.hexdigest()[:8]}"


def probe(posterior: Posterior, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Evaluate a few rows: does the net take x, and does y fit?

    Returns:
        Predictions of these rows, ``[1, b, ...]``, and y in the type and shape of the likelihood.

    Raises:
        ValueError: the net is no plain function of its inputs, or y does not fit.
    """
    model = posterior.model
    model.refuse_changes()
    like = next(model.net.parameters())
    rows = few_rows(x).to(like.device)
    check_forward(model.net, rows)
    with torch.no_grad():
        weights = model.flatten(model.drawn).unsqueeze(0)
        predictions = model.predict(weights, posterior.point, rows)
        fits_all = predictions[:, :1].expand(1, len(y), *predictions.shape[2:])
        fitted = model.likelihood.targets(y.to(like.device), fits_all).to(y.device)
    posterior.check(predictions)
    posterior.meet(rows)
    return predictions, fitted
