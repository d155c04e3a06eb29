"""What decides about the path of a run: written into its checkpoints, compared to go on from one.

The layout does not, nor does the device: every one of them computes the same run.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from spnb.maths.posteriors import Posterior
from spnb.run import files, identity, saved
from spnb.run.identity import Made
from spnb.run.loop import Loop

IN_WORDS = ("objective", "optimizer", "augment", "schedule")
"""Settings that older checkpoints know by name alone; newer ones describe what they are."""

OF_A_RANK = ("piece_of_model", "cross_entropy", "window", "first", "training")
"""Attributes of a posterior that say which part of it a rank holds, and what for."""

NOT_DECISIVE = ("params", "initial_lr", "fused", "foreach", "capturable", "differentiable")
"""Settings of an optimiser that do not change what it computes, or stand there twice."""

_ADDRESS = re.compile(r"\b0x[0-9a-f]{4,}")


def describe(
    loop: Loop,
    data: tuple[Tensor, Tensor],
    judged_on: tuple[Tensor, Tensor] | None,
    settings: dict[str, Any],
) -> dict[str, str]:
    """What decides about the path of a run that has not begun, in words.

    Args:
        loop: the run.
        data: what is learned from.
        judged_on: validation data by which the best checkpoint is chosen, if one is.
        settings: what else was said to `spnb.fit`.
    """
    about = of_run(loop, settings)
    data_too = json.loads(about["settings"]) | {"data": _fingerprint(data)}
    about["settings"] = json.dumps(data_too)
    return about if judged_on is None else {**about, "validation": _fingerprint(judged_on)}


def of_run(loop: Loop, settings: dict[str, Any]) -> dict[str, str]:
    """The same without the data."""
    work, posterior = loop.work, loop.work.posterior
    own = {n: v for n, v in vars(posterior).items() if n[0] != "_" and n not in OF_A_RANK}
    made_of = identity.describe(
        prior={site.name: site.prior for site in posterior.model.drawn},
        method=Made(type(posterior), own | posterior.options()),
        objective=work.objective,
        sample_groups=work.communicator.layout.sample if work.objective.local else None,
        optimizer=Made(type(loop.optimizer), {"groups": _groups(posterior, loop.optimizer)}),
        schedule=loop.schedule,
        augment=work.augment,
    )
    by_name = settings | {
        "rows": work.num_data,
        "num_samples": work.num_samples,
        "seed": work.seed,
        "objective": repr(work.objective),
        "optimizer": type(loop.optimizer).__name__,
        "augment": work.augment,
        "views": work.views,
    }
    plain = {name: _plain(value) for name, value in by_name.items()}
    return {**saved.describe(posterior), "settings": json.dumps(plain), "made_of": made_of}


def between_ranks(first: dict[str, str], own: dict[str, str]) -> list[str]:
    """Where two ranks were asked for different runs, in words.

    Args:
        first: what `of_run` says on rank 0.
        own: what it says on this one.
    """
    there, here = json.loads(first["settings"]), json.loads(own["settings"])
    found = [
        f"{name}={value!r} on rank 0, {here[name]!r} here"
        for name, value in there.items()
        if value != here[name] and name not in IN_WORDS
    ]
    found += [
        f"{name}={first[name]} on rank 0, {own[name]} here"
        for name in ("method", "sites")
        if first[name] != own[name]
    ]
    for name in ("model", "made_of"):
        found += identity.compare(first[name], own[name])[0].values()
    return found


def check(path: Path, about: dict[str, str], own: dict[str, str], kind: type[Posterior]) -> None:
    """Refuse a checkpoint of another run, and warn of what cannot be compared.

    Args:
        path: of the checkpoint.
        about: what it says, from `describe` among others; older ones say less.
        own: what `describe` says of this run.
        kind: this run's method.

    Raises:
        ValueError: says what differs.
    """
    described = "made_of" in about
    differ: dict[str, str] = {}
    doubts: list[str] = []
    try:
        noted, here = json.loads(about["settings"]), json.loads(own["settings"])
        saved.check_sites(path, json.loads(about["sites"]), json.loads(own["sites"]))
        there = noted | {"method": about["method"]}
        here["method"] = own["method"]
        if described:
            there = {name: value for name, value in there.items() if name not in IN_WORDS}
        else:
            there = {n: value for n, value in there.items() if not _ADDRESS.search(str(value))}
            there |= json.loads(about["options"])
            here |= json.loads(own["options"])
        for name in ("model", "made_of") if described else ():
            certain, unsure = identity.compare(about[name], own[name])
            differ |= certain
            doubts += unsure
        longer = here["epochs"] > there.get("epochs", here["epochs"])
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"'{path}' says nothing that makes sense here: {error!r}.") from None
    differ |= {
        name: f"{name}={value!r} there, {here.get(name)!r} here"
        for name, value in there.items()
        if value != here.get(name)
    }
    if len({each["validation"] for each in (about, own) if "validation" in each}) == 2:
        differ["validation"] = "the validation data are others"
    if longer:
        same = all(noted.get(name) == here[name] for name in ("schedule", "warmup_steps"))
        moved = same and (not described or any(_of_schedule(*each) for each in differ.items()))
        if ahead := _looking_ahead(kind, here, moved):
            differ = {n: words for n, words in differ.items() if not _of_schedule(n, words)}
            differ["epochs"] += f", and {' and '.join(ahead)} look{'s' * (len(ahead) == 1)} ahead"
        else:
            del differ["epochs"]
    if differ:
        raise ValueError(
            f"'{path}' belongs to another run: {identity.listed(differ.values(), '; ')}. Give the "
            "settings that it had, or this run another folder, where it can start from what was "
            f"learnt: spnb.fit(spnb.load('{path}', model), ...)."
        )
    if not described:
        warnings.warn(
            f"'{path}' was written by an earlier version, which did not note the values of prior, "
            "likelihood, network, objective, optimizer, schedule and augmentation: see that they "
            "are as they were.",
            stacklevel=2,
        )
    elif doubts:
        warnings.warn(
            f"Whether these are as they were, '{path}' cannot tell: {identity.listed(doubts)}. See "
            "that they are.",
            stacklevel=2,
        )


def collects(kind: type[Posterior]) -> bool:
    """Whether a method collects samples along the run, and so depends on its length."""
    return kind.observe is not Posterior.observe or kind.moves is not Posterior.moves


def _looking_ahead(kind: type[Posterior], here: dict[str, Any], moved: bool) -> list[str]:
    """What in a run depends on how long it will be.

    Args:
        kind: the method.
        here: the run's settings.
        moved: whether the schedule is not that of a shorter one, or may not be.
    """
    found = [kind.__name__] if collects(kind) else []
    if 0 < here["warmup_steps"] < 1:
        found.append(f"warmup_steps={here['warmup_steps']:g}, a share of the run,")
    if moved and here["schedule"] != "constant":
        found.append(f"schedule={here['schedule']!r}")
    return found


def _of_schedule(name: str, words: str) -> bool:
    """Whether a difference is in the numbers of the schedule."""
    return name.startswith("schedule.") and not words.endswith("code")


def _groups(posterior: Posterior, optimizer: Optimizer) -> list[dict[str, Any]]:
    """The settings of an optimiser before its first step, and to which parameters they apply.

    Raises:
        ValueError: it trains something besides the posterior.
    """
    names = {id(parameter): name for name, parameter in posterior.named_parameters()}
    if any(id(each) not in names for group in optimizer.param_groups for each in group["params"]):
        raise ValueError(
            "The optimizer trains parameters that are none of the posterior's, which no checkpoint "
            "holds: give it those of the posterior that it is called with."
        )
    return [
        {name: value for name, value in group.items() if name not in NOT_DECISIVE}
        | {"lr": group.get("initial_lr", group["lr"])}  # as it was before any warm-up
        | {"parameters": [names[id(parameter)] for parameter in group["params"]]}
        for group in optimizer.param_groups
    ]


def _plain(value: Any) -> Any:
    """A value that JSON can hold: functions and objects by their names."""
    if value is None or isinstance(value, str | int | float):
        return value
    if hasattr(value, "__qualname__"):  # a function, whose repr tells where it lies in memory
        return value.__qualname__
    words = repr(value)
    return type(value).__qualname__ if _ADDRESS.search(words) else words


def _fingerprint(tensors: tuple[Tensor, ...]) -> str:
    """A short name of some data, by their contents."""
    found = hashlib.sha256()
    for tensor in tensors:
        files.feed(found, tensor)
    return found.hexdigest()[:16]
