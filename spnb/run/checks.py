"""What training takes for granted of a user's functions, tried on a few rows before it begins.

Each promise is compared with what the function does: a net with other weights is the net into which
these weights were written, and so are its gradients; an objective that says it is linear in the
samples is; an augmentation depends on its input and its generator alone.
"""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Generator, Tensor

from spnb.maths.augmentations import Augmentation
from spnb.maths.energy import StepNoise
from spnb.maths.models import BayesianModel
from spnb.maths.objectives import Objective
from spnb.maths.posteriors import Posterior
from spnb.parallel.keyed import Key

ROUNDING = {torch.float32: 1e-4, torch.float64: 1e-9}
"""Relative differences that are put down to rounding."""

Gradients = dict[str, Tensor | None]


def net(posterior: Posterior, x: Tensor, within: bool = True) -> Tensor:
    """See that the net's outputs and gradients are those of the weights that it is given.

    Args:
        posterior: the posterior, on the device where it computes.
        x: a few rows of inputs ``[b, ...]``.
        within: whether the backward pass will find the given weights in their places, too.

    Returns:
        Predictions ``[1, b, ...]`` at weights near those that the net holds.

    Raises:
        ValueError: outputs or gradients are of other weights, or no gradient reaches some weight
            that the outputs depend on.
    """
    model = posterior.model
    values = {
        site.name: _near(model.initial(site.name).detach()).requires_grad_() for site in model.sites
    }
    with torch.enable_grad():
        with model.at(values) as predict:
            found = predict(x)
            if within:
                _backward(found)
        if not within:
            _backward(found)
        given = {name: value.grad for name, value in values.items()}
        expected, own = _written_in(model, values, x)
    kind = type(model.net).__name__
    if not _close(found, expected):
        raise ValueError(
            f"The {kind} does not use the weights that it is given: with the same weights written "
            "into its parameters it predicts something else. Its forward must read parameters as "
            "self.layer.weight, not from copies, lists or the net that it was copied from."
        )
    _check_reached(model, given, values, x, found)
    _check_gradients(kind, given, own)
    return found.detach().unsqueeze(0)


def _near(values: Tensor) -> Tensor:
    """Numbers that are all a little different from some others."""
    return 1.05 * values + 0.01


def _backward(outputs: Tensor) -> None:
    """Write the gradients of a sum of all outputs, each with a weight of its own."""
    if outputs.requires_grad:
        numbers = torch.arange(outputs.numel(), device=outputs.device)
        outputs.backward((1 + numbers % 7).to(outputs).view_as(outputs) / outputs.numel())


def _written_in(
    model: BayesianModel, values: dict[str, Tensor], x: Tensor
) -> tuple[Tensor, Gradients]:
    """Outputs and gradients with values written into the model's own parameters, for a moment."""
    parameters = {name: model.initial(name) for name in values}
    before = {name: (p.detach().clone(), p.grad) for name, p in parameters.items()}
    try:
        for name, value in model.with_padding(values).items():
            parameters[name].data.copy_(value.detach())
            parameters[name].grad = None
        outputs = model.predict_held(x)
        _backward(outputs)
        return outputs.detach(), {name: p.grad for name, p in parameters.items()}
    finally:
        for name, parameter in parameters.items():
            parameter.data.copy_(before[name][0])
            parameter.grad = before[name][1]


def _check_reached(
    model: BayesianModel,
    gradients: Gradients,
    values: dict[str, Tensor],
    x: Tensor,
    found: Tensor,
) -> None:
    """Refuse weights that the outputs depend on and that no gradient reaches."""
    missed = [name for name, gradient in gradients.items() if gradient is None]
    if not missed:
        return
    if of_likelihood := [name for name in missed if name.startswith("likelihood.")]:
        raise ValueError(
            f"The parameter '{of_likelihood[0]}' would never be trained: predictions do not depend "
            "on it. The likelihood's attach(outputs, parameters) must put it into the predictions, "
            "and its forward read it from there."
        )
    with torch.no_grad(), model.at(values | {n: values[n] * 1.5 + 1.0 for n in missed}) as predict:
        changed = predict(x)
    if len(missed) == len(values) or not torch.equal(changed.nan_to_num(), found.nan_to_num()):
        raise ValueError(
            f"No gradient reaches {len(missed)} of the {len(values)} parameters, '{missed[0]}' "
            "among them, though the prediction depends on them (torch.no_grad or detach in "
            "forward?): freeze what is not to be learned with requires_grad_(False)."
        )


def _check_gradients(kind: str, given: Gradients, own: Gradients) -> None:
    """Compare gradients at the same weights."""
    largest = max(float(g.abs().max()) for g in own.values() if g is not None and g.numel())
    for name, gradient in given.items():
        expected = own[name]
        if gradient is None or expected is None:
            agree = gradient is expected
        else:
            agree = _close(gradient, expected, largest)
        if not agree:
            raise ValueError(
                f"The gradient of '{name}' is another one when the {kind} is given its weights "
                "than when they are written into it: what reads parameters in the backward pass "
                "(torch.utils.checkpoint, own autograd functions) finds others there. Do without."
            )


def _close(found: Tensor, expected: Tensor, size: float | None = None) -> bool:
    """Whether two tensors agree but for rounding, relative to the largest number."""
    if found.shape != expected.shape:
        return False
    size = float(expected.detach().abs().nan_to_num().max()) if size is None else size
    tolerance = ROUNDING.get(expected.dtype, 1e-3) * max(size, 1e-30)
    return torch.allclose(found, expected, rtol=0.0, atol=tolerance, equal_nan=True)


def several_at_once(posterior: Posterior, x: Tensor) -> bool:
    """Whether `torch.vmap` evaluates several samples of a net as they are one by one.

    Where it does not, the model says so and does without from then on.

    Args:
        posterior: the posterior.
        x: a few rows of inputs ``[b, ...]``.
    """
    model, point = posterior.model, posterior.point.detach()
    held = model.flatten(model.drawn)
    weights = torch.stack([held, _near(held)]).requires_grad_()
    together = model.predict(weights, point, x)  # notices itself what fails on the way there
    with torch.no_grad():
        apart = torch.cat([model.predict(one.unsqueeze(0), point, x) for one in weights])
    if not model.one_by_one:
        try:
            _backward(together)
            agree = _close(together, apart)
        except RuntimeError:
            agree = False
        if not agree:
            model.evaluate_one_by_one()
    return not model.one_by_one


def objective(posterior: Posterior, objective: Objective, predictions: Tensor, y: Tensor) -> bool:
    """Whether an objective gives one loss an item, ``[b]``, rather than one for the batch.

    Args:
        posterior: the posterior.
        objective: the objective to try.
        predictions: of three samples on a few rows, ``[3, b, ...]``.
        y: targets of these rows.

    Raises:
        ValueError: it gives neither; losses of items depend on other items; or it says that it is
            linear in the samples and is not.
    """
    likelihood = posterior.model.likelihood
    # Four rows, whatever there are, so that shapes cannot agree by accident.
    rows = torch.arange(4, device=y.device) % len(y)
    some, targets = predictions[:, rows.to(predictions.device)], y[rows].to(predictions.device)

    def losses_of(samples: range, items: int) -> Tensor:
        noise = StepNoise(Key(0).fold("try"), samples, range(4), 4).part(slice(0, items))
        own = some[samples.start : samples.stop, :items].clone()
        return objective.at_step(noise).losses(own, targets[:items], likelihood)

    with torch.no_grad():
        losses = losses_of(range(3), 4)
        if not isinstance(losses, Tensor) or tuple(losses.shape) not in ((), (4,)):
            got = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
            raise ValueError(
                f"The objective gave {got} for predictions {tuple(some.shape)} of 3 samples and 4 "
                "items; it must give one loss an item, [B], or one scalar."
            )
        per_item = losses.dim() == 1
        if per_item:
            if not _close(losses_of(range(3), 2), losses[:2]):
                raise ValueError(
                    f"{objective!r} gives other losses for 2 items than for the same items among "
                    "4: losses of items must not depend on the rest of the batch. Return one "
                    "scalar for the batch, such as their mean."
                )
        if objective.linear_in_samples:
            each = [losses_of(range(sample, sample + 1), 4) for sample in range(3)]
            if not _close(torch.stack(each).mean(0), losses):
                raise ValueError(
                    f"{objective!r} says linear_in_samples=True, and its loss of 3 samples is not "
                    "the mean of its losses of each: leave linear_in_samples out."
                )
    return per_item


def augmentation(augment: Augmentation, x: Tensor, generator: Generator) -> Tensor:
    """A view, after seeing that it keeps the rows, and depends on them and the generator alone.

    Args:
        augment: the augmentation.
        x: inputs ``[B, ...]``.
        generator: of the view.

    Raises:
        TypeError: it does not return a tensor.
        ValueError: it changes shape or type, its input, or uses other random numbers.
    """
    kind = getattr(augment, "__name__", repr(augment))
    before, states = x.clone(), _random_states(x.device)
    view = augment(x, generator)
    if not isinstance(view, Tensor):
        raise TypeError(f"augment={kind} returned a {type(view).__name__}, not a tensor.")
    if not torch.equal(before.nan_to_num(), x.nan_to_num()):
        raise ValueError(
            f"augment={kind} changed the inputs that it was given, which other samples see as "
            "well: return a new tensor, as x.clone() is."
        )
    forms = [f"{tuple(values.shape)} {values.dtype}" for values in (x, view)]
    if forms[0] != forms[1]:
        raise ValueError(
            f"augment={kind} made {forms[1]} of {forms[0]}: it must return as many rows, in the "
            "same shape and type."
        )
    if states != _random_states(x.device):
        raise ValueError(
            f"augment={kind} draws random numbers that do not come from its generator, so each "
            "process would see other views: draw them with generator=generator."
        )
    if view.is_floating_point() and not torch.isfinite(view).all():
        raise ValueError(f"augment={kind} made values that are NaN or infinite.")
    return view


def _random_states(device: torch.device) -> tuple[object, ...]:
    """Where the generators stand that everybody shares."""
    on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.empty(0)
    numbers = np.random.get_state(legacy=False)
    return (
        torch.get_rng_state().numpy().tobytes(),
        on_device.numpy().tobytes(),
        random.getstate(),
        repr(numbers["state"]) if isinstance(numbers, dict) else "",
    )
