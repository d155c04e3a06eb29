"""The state of a run, independent of its layout: to be written down, and to be taken up again.

Where ranks hold parts of the posterior, the parts are put together first, and cut again afterwards,
perhaps in another way. A tensor of the optimiser that has the shape of its parameter is treated as
the parameter is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from spnb.maths.posteriors import Posterior
from spnb.run.history import EpochRecord, History, StepRecord
from spnb.run.loop import Loop

_STEP = tuple(StepRecord.__dataclass_fields__)


def capture(loop: Loop, history: History) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What has to be written down after a step. All ranks call it together.

    One tensor after the other is put together, so that a device never holds more than one whole.

    Args:
        loop: the run.
        history: its record, the same on all ranks.

    Returns:
        On rank 0 tensors, on the CPU, and words; on the others no tensors.

    Raises:
        TypeError: the optimiser or the schedule holds something that cannot be written down.
    """
    posterior, parts = loop.work.posterior, loop.work.parts
    tensors: dict[str, Tensor] = {}

    def put(place: str, whole: Tensor) -> None:
        if loop.work.communicator.rank == 0:
            tensors[place] = whole.detach().to("cpu", copy=True)

    for name, tensor in posterior.state_dict().items():
        put(f"posterior/{name}", parts.join(name, tensor))
    words: dict[str, dict[str, Any]] = {}
    for name, parameter, state in _optimizer_states(posterior, loop.optimizer):
        for key, value in state.items():
            if not isinstance(value, Tensor):
                words.setdefault(name, {})[key] = value
            elif value.shape == parameter.shape:
                put(f"optimizer/{name}/{key}", parts.join(name, value))
            elif value.dim() and parts.cuts:
                raise TypeError(
                    f"{type(loop.optimizer).__name__} keeps '{key}' of shape {tuple(value.shape)} "
                    f"for '{name}', which cannot be put together from the parts of the ranks: use "
                    "Adam, or a layout in which each rank holds all of the posterior."
                )
            else:
                put(f"optimizer/{name}/{key}", value)
    rows = [[float(getattr(record, name)) for name in _STEP] for record in history.steps]
    put("history", torch.tensor(rows, dtype=torch.float64).view(-1, len(_STEP)))
    groups = [_without_parameters(group) for group in loop.optimizer.param_groups]
    schedule = None if loop.schedule is None else loop.schedule.state_dict()
    try:
        about = {
            "step": json.dumps(loop.done),
            "epochs": json.dumps([asdict(record) for record in history.epochs]),
            "optimizer": json.dumps({"groups": groups, "states": words}),
            "schedule": json.dumps(schedule),
        }
    except TypeError as error:
        raise TypeError(
            f"The optimiser or the schedule holds something that no checkpoint can: {error}."
        ) from None
    return tensors, about


def restore(
    loop: Loop, history: History, tensors: Mapping[str, Tensor], about: dict[str, str]
) -> None:
    """Put a run where another one was. All ranks call it together.

    Args:
        loop: a run that has not begun.
        history: its empty record.
        tensors: what `capture` returned on rank 0. Each is looked up once, in the same order on
            all ranks.
        about: likewise.

    Raises:
        ValueError: it does not fit this run.
    """
    posterior, parts = loop.work.posterior, loop.work.parts
    try:
        saved, schedule = json.loads(about["optimizer"]), json.loads(about["schedule"])
        groups, words, step = saved["groups"], saved["states"], int(json.loads(about["step"]))
        epochs = [EpochRecord(**record) for record in json.loads(about["epochs"])]
        steps = [StepRecord(int(row[0]), *row[1:]) for row in tensors["history"].tolist()]
        if loop.schedule is not None:
            loop.schedule.load_state_dict(schedule)
        if missing := [n for n in posterior.state_dict() if f"posterior/{n}" not in tensors]:
            raise KeyError(missing[0])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"The checkpoint says nothing that makes sense here: {error!r}.") from None
    with torch.no_grad():
        for name, own in posterior.state_dict(keep_vars=True).items():
            own.copy_(_fitting(parts.cut(name, tensors[f"posterior/{name}"]), own, name))
    _restore_optimizer(loop, groups, words, tensors)
    loop.done, history.epochs[:], history.steps[:] = step, epochs, steps


def _restore_optimizer(
    loop: Loop,
    groups: list[dict[str, Any]],
    words: dict[str, dict[str, Any]],
    tensors: Mapping[str, Tensor],
) -> None:
    posterior, parts = loop.work.posterior, loop.work.parts
    state: dict[int, dict[str, Any]] = {}
    for index, (name, parameter, _) in enumerate(_optimizer_states(posterior, loop.optimizer)):
        found = dict(words.get(name, {}))
        start = f"optimizer/{name}/"
        for full in tensors:
            if full.startswith(start):
                key, tensor = full.removeprefix(start), tensors[full]
                shaped = tensor.dim() and parts.cuts
                found[key] = (
                    _fitting(parts.cut(name, tensor), parameter, key).clone() if shaped else tensor
                )
        if found:
            state[index] = found
    present = loop.optimizer.state_dict()["param_groups"]
    if len(groups) != len(present):
        raise ValueError(
            f"The optimiser had {len(groups)} groups of parameters, {len(present)} now"
        )
    merged = [
        {**saved, "params": own["params"]} for saved, own in zip(groups, present, strict=True)
    ]
    loop.optimizer.load_state_dict({"state": state, "param_groups": merged})


def _optimizer_states(
    posterior: Posterior, optimizer: Optimizer
) -> list[tuple[str, Tensor, dict[str, Any]]]:
    """Name, parameter and state, in the order in which the optimiser counts parameters."""
    names = {id(parameter): name for name, parameter in posterior.named_parameters()}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return [(names[id(p)], p, optimizer.state.get(p, {})) for p in parameters]


def _without_parameters(group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}


def _fitting(tensor: Tensor, own: Tensor, name: str) -> Tensor:
    if tensor.shape != own.shape or tensor.dtype != own.dtype:
        raise ValueError(
            f"The checkpoint's '{name}' is {tensor.dtype} {list(tensor.shape)}, this run's "
            f"{own.dtype} {list(own.shape)}."
        )
    return tensor.to(own.device)
