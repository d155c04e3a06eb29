"""Keeps a run: writes its checkpoints, and takes it up again, on this layout or on another."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spnb.maths.posteriors import Posterior
from spnb.run import checkpoint, files, saved, separate, state
from spnb.run.checkpoint import Checkpoints
from spnb.run.history import History
from spnb.run.loop import Loop

Resume = bool | str | os.PathLike[str]


class Keeper:
    """Writes checkpoints of a run, if it is to have any, and knows how to go on from one.

    Args:
        plan: where to, how often; a folder alone; None: no checkpoints.
        loop: the run.
        history: its record.
        per_epoch: how many steps an epoch has.
    """

    def __init__(
        self,
        plan: Checkpoints | str | os.PathLike[str] | None,
        loop: Loop,
        history: History,
        per_epoch: int,
    ) -> None:
        if isinstance(plan, str | os.PathLike):
            plan = Checkpoints(plan)
        if not isinstance(plan, Checkpoints | None):
            raise TypeError(
                f"checkpoints is a {type(plan).__name__}; give spnb.Checkpoints(folder), or a "
                "folder."
            )
        self.plan, self.loop, self.history, self.per_epoch = plan, loop, history, per_epoch
        self._joined = 0  # steps of the history that tell of all samples
        self._best: float | None = None
        self._about: dict[str, str] = {}

    def resume(
        self, wanted: Resume, data: tuple[Tensor, Tensor], *, scored: bool, **settings: Any
    ) -> None:
        """Go on where a checkpoint was written; all ranks call it together.

        Args:
            wanted: True: the last whole one in the folder, or from the start if there is none;
                a path: that one; False: from the start.
            data: what is learned from.
            scored: whether there are validation data.
            **settings: what else decides about the path of the run, besides its `Work`.

        Raises:
            TypeError: `wanted` is neither.
            OSError: there is no such file, or the folder cannot be written to.
            ValueError: it is damaged or of another run, there are no checkpoints to go on from, or
                there are some and nothing was said of them.
        """
        if not isinstance(wanted, bool | str | os.PathLike):
            raise TypeError(f"resume={wanted!r} must be True, False or the path of a checkpoint.")
        if self.plan is None and wanted is False:
            return
        if self.plan and self.plan.best and not scored:
            raise ValueError(f"best='{self.plan.best}' needs validation data to be judged on.")
        self._about = saved.describe(self.loop.work.posterior)
        self._about["settings"] = json.dumps(_decisive(self.loop, data, settings))
        comm = self.loop.work.communicator
        found: tuple[dict[str, Tensor], dict[str, str]] | None = None
        trouble: Exception | None = None
        if comm.rank == 0:  # the only one that needs to see the folder
            try:
                if self.plan:
                    self.plan.prepare()
                found = self._find(wanted)
            except (OSError, ValueError) as error:
                trouble = error
        if trouble := comm.tell(trouble, 0):
            raise trouble
        about = comm.tell(found and found[1], 0)
        if about is None:
            return
        state.restore(self.loop, self.history, _Shared(self.loop, found and found[0]), about)
        self._joined = self.loop.done
        if name := self.plan and self.plan.best:
            known = [record.scores[name] for record in self.history.epochs if name in record.scores]
            self._best = self._better_of(known) if known else None

    def after_step(self, total: int, ends_epoch: bool) -> None:
        """Write a checkpoint if one is due; all ranks call it together."""
        plan, loop = self.plan, self.loop
        if plan is None or not plan.due(loop.done, ends_epoch, total):
            return
        self.join_history()
        tensors, about = state.capture(loop, self.history)
        is_best = ends_epoch and self._is_best()
        if loop.work.communicator.rank == 0:
            plan.write(loop.done, tensors, self._about | about, is_best)

    def join_history(self) -> None:
        """Have the record tell of all samples, where each rank knows its own alone."""
        if self.loop.work.posterior.separate:
            separate.join_history(self.history, self.loop.work, self._joined, self.per_epoch)
        self._joined = self.loop.done

    def _find(self, wanted: Resume) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """The checkpoint to go on from, on the rank that reads."""
        plan = self.plan
        if wanted is False:
            if plan and (steps := plan.steps()):
                raise ValueError(
                    f"'{plan.path}' holds a checkpoint of step {steps[0]}: say resume=True to go "
                    "on from there, or give this run another folder."
                )
            return None
        if wanted is not True:
            path, (tensors, about) = Path(wanted), checkpoint.load(wanted)
        elif plan is None:
            raise ValueError(
                "resume=True needs checkpoints=spnb.Checkpoints(folder), or give resume the path "
                "of a checkpoint."
            )
        else:
            last = plan.load_last()
            if last is None:
                return None
            path, tensors, about = last
        self._check(path, about)
        return tensors, about

    def _check(self, path: Path, about: dict[str, str]) -> None:
        """Refuse a checkpoint of another run.

        Raises:
            ValueError: says what differs.
        """
        own = self._about
        try:
            there = json.loads(about["settings"])
            method = {name: about[name] for name in ("method", "options")}
            sites = json.loads(about["sites"])
        except (KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"'{path}' says nothing that makes sense here: {error!r}.") from None
        saved.check_sites(path, sites, json.loads(own["sites"]))
        here = json.loads(own["settings"])
        here |= {name: own[name] for name in method}
        if self._may_be_longer(there, here):
            here["epochs"] = there.get("epochs")
        differ = [
            f"{name}={value!r} there, {here.get(name)!r} here"
            for name, value in {**there, **method}.items()
            if value != here.get(name)
        ]
        if differ:
            raise ValueError(
                f"'{path}' belongs to another run: {'; '.join(differ)}. Give the settings that it "
                "had, or this run another folder."
            )

    def _may_be_longer(self, there: dict[str, Any], here: dict[str, Any]) -> bool:
        """Whether nothing in this run's steps so far depends on how many there will be."""
        kind = type(self.loop.work.posterior)
        no_total = kind.observe is Posterior.observe and kind.moves is Posterior.moves
        steady = here["schedule"] == "constant" and not 0 < here["warmup_steps"] < 1
        return no_total and steady and here["epochs"] > there.get("epochs", here["epochs"])

    def _is_best(self) -> bool:
        name = self.plan.best if self.plan else None
        if name is None:
            return False
        scores = self.history.epochs[-1].scores
        if name not in scores:
            there = ", ".join(scores)
            raise ValueError(f"best='{name}' is no score of this run; there are {there}.")
        before, now = self._best, scores[name]
        self._best = now if before is None else self._better_of([before, now])
        return self._best == now and now != before

    def _better_of(self, values: list[float]) -> float:
        assert self.plan is not None
        return max(values) if self.plan.best in checkpoint.LARGER_IS_BETTER else min(values)


class _Shared(Mapping[str, Tensor]):
    """Rank 0's tensors, sent to every rank when they are looked up: by all, in the same order."""

    def __init__(self, loop: Loop, tensors: dict[str, Tensor] | None) -> None:
        self._comm = loop.work.communicator
        self._place = next(loop.work.posterior.parameters()).device
        self._own = tensors or {}  # of rank 0
        forms = {name: (t.dtype, t.shape) for name, t in self._own.items()}
        self._forms = self._comm.tell(forms, 0)

    def __getitem__(self, name: str) -> Tensor:
        dtype, shape = self._forms[name]
        tensor = torch.empty(shape, dtype=dtype, device=self._place)
        if name in self._own:
            tensor.copy_(self._own[name])
        self._comm.copy_from_first(tensor)
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self._forms

    def __iter__(self) -> Iterator[str]:
        return iter(self._forms)

    def __len__(self) -> int:
        return len(self._forms)


def _decisive(loop: Loop, data: tuple[Tensor, Tensor], settings: dict[str, Any]) -> dict[str, Any]:
    """What decides about the path of a run, as values that JSON can hold."""
    work = loop.work
    found = settings | {
        "rows": work.num_data,
        "num_samples": work.num_samples,
        "seed": work.seed,
        "objective": repr(work.objective),
        "optimizer": type(loop.optimizer).__name__,
        "augment": work.augment,
        "views": work.views,
        "data": _fingerprint(data),
    }
    return {name: _plain(value) for name, value in found.items()}


def _plain(value: Any) -> Any:
    """A value that JSON can hold: functions and objects by their names."""
    if value is None or isinstance(value, str | int | float):
        return value
    if hasattr(value, "__qualname__"):  # a function, whose repr tells where it lies in memory
        return value.__qualname__
    words = repr(value)
    return type(value).__qualname__ if f"{id(value):x}" in words else words


def _fingerprint(tensors: tuple[Tensor, ...]) -> str:
    """A short name of some data, by their contents."""
    found = hashlib.sha256()
    for tensor in tensors:
        files.feed(found, tensor)
    return found.hexdigest()[:16]
