"""Keeps a run: writes its checkpoints, and takes it up again, on this layout or on another."""

from __future__ import annotations

import copy
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spnb.maths.posteriors import Posterior
from spnb.run import checkpoint, decisive, files, lock, separate, state
from spnb.run.checkpoint import Checkpoints
from spnb.run.history import History
from spnb.run.loop import Loop
from spnb.run.predict import try_scores

Resume = bool | str | os.PathLike[str]


class Keeper:
    """Writes checkpoints of a run, if it is to have any, and knows how to go on from one.

    A ``with`` block, at the end of which another run may have the folder.

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
        self._best: float | None = None  # on rank 0
        self._about: dict[str, str] = {}  # on rank 0
        self._held = ExitStack()

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def resume(
        self,
        wanted: Resume,
        data: tuple[Tensor, Tensor],
        held_out: tuple[Tensor, Tensor] | None,
        settings: dict[str, Any],
    ) -> None:
        """Go on where a checkpoint was written; all ranks call it together.

        Args:
            wanted: True: the last whole one in the folder, or from the start if there is none;
                a path: that one; False: from the start.
            data: what is learned from.
            held_out: validation data, or None.
            settings: what else decides about the path of the run, besides its `Work`.

        Raises:
            TypeError: `wanted` is neither.
            OSError: there is no such file, or the folder cannot be written to.
            ValueError: it is damaged or of another run, there are no checkpoints to go on from,
                there are some and nothing was said of them, another run has the folder, or there
                is no such best.
        """
        if not isinstance(wanted, bool | str | os.PathLike):
            raise TypeError(f"resume={wanted!r} must be True, False or the path of a checkpoint.")
        if self.plan is None and wanted is False:
            return
        if self.plan and self.plan.best:
            _check_best(self.plan.best, self.loop.work.posterior, held_out)
        comm = self.loop.work.communicator
        found: tuple[dict[str, Tensor], dict[str, str]] | None = None
        trouble: Exception | None = None
        if comm.rank == 0:  # the only one that needs to see the folder
            try:
                if self.plan:
                    self.plan.prepare()
                    self._held.enter_context(lock.held(self.plan.path))
                    files.tidy(self.plan.path)
                judged_on = held_out if self.plan and self.plan.best else None
                self._about = decisive.describe(self.loop, data, judged_on, settings)
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
        if self.plan and self.plan.best and comm.rank == 0:
            self._best = self._best_so_far(self.plan, self.plan.best)

    def after_step(self, total: int, ends_epoch: bool) -> None:
        """Write a checkpoint if one is due; all ranks call it together."""
        plan, loop = self.plan, self.loop
        if plan is None:
            return
        due = plan.due(loop.done, ends_epoch, total)
        is_best = ends_epoch and plan.best is not None and self._is_best(plan.best)
        if not (due or is_best):
            return
        self.join_history()
        tensors, about = state.capture(loop, self.history)
        if loop.work.communicator.rank == 0:
            about = self._about | about
            if due:
                plan.write(loop.done, tensors, about, is_best)
            else:
                plan.write_best(tensors, about)

    def join_history(self) -> None:
        """Have the record tell of all samples, where each rank knows its own alone."""
        if self.loop.work.posterior.separate:
            separate.join_history(self.history, self.loop.work, self._joined, self.per_epoch)
        self._joined = self.loop.done

    def best(self, last: Posterior) -> Posterior | None:
        """The best posterior of the run, whole, on every rank; all of them call it together.

        Args:
            last: the whole posterior after the last step.

        Returns:
            None if no best one was asked for, or its file was lost meanwhile, of which it warns.
        """
        if self.plan is None or self.plan.best is None:
            return None
        comm = self.loop.work.communicator
        found: dict[str, Tensor] | None = None
        if comm.rank == 0 and self._best is not None:
            try:
                found, _ = checkpoint.load(self.plan.best_file)
            except (OSError, ValueError) as error:  # the run is done, and must not be lost for it
                warnings.warn(f"{error} There is no fitted.best.", stacklevel=2)
        if not comm.tell(found is not None, 0):
            return None
        tensors, best = _Shared(self.loop, found), copy.deepcopy(last)
        with torch.no_grad():
            for name, own in best.state_dict(keep_vars=True).items():
                own.copy_(tensors[f"posterior/{name}"])
        return best

    def _find(self, wanted: Resume) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """The checkpoint to go on from, on the rank that reads."""
        plan, there = self.plan, self.plan.holds() if self.plan else ""
        if wanted is False:
            if plan and there:
                raise ValueError(
                    f"'{plan.path}' holds {there}: say resume=True to go on from there, or give "
                    "this run another folder."
                )
            return None
        if wanted is not True:
            path = Path(wanted)
            if plan and there and path.resolve().parent != plan.path.resolve():
                raise ValueError(
                    f"'{plan.path}' holds {there}, and '{path}' is not from there: give this run "
                    "another folder."
                )
            tensors, about = checkpoint.load(path)
            if path.name == checkpoint.BEST or "best" in about:
                raise ValueError(
                    f"'{path}' is the best checkpoint, from which resume would train on to the "
                    f"last step: use resume=True for that, spnb.load('{path}', model) for the best "
                    f"posterior, and spnb.fit(spnb.load('{path}', model), ...) to train it further "
                    "in a run of its own."
                )
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
        decisive.check(path, about, self._about, type(self.loop.work.posterior))
        return tensors, about

    def _best_so_far(self, plan: Checkpoints, name: str) -> float | None:
        """The best score of the epochs behind, if its checkpoint is there; it warns if not."""
        best = None
        for record in self.history.epochs:
            if name in record.scores and checkpoint.better(name, record.scores[name], best):
                best = record.scores[name]
        if best is None:
            return None
        try:
            _, about = checkpoint.load(plan.best_file)
            there = json.loads(about["epochs"])[-1]["scores"][name]
            if about.get("best", name) == name and not checkpoint.better(name, best, there):
                return best
            trouble = f"'{plan.best_file}' is not the best by {name}."
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            trouble = str(error)
        warnings.warn(
            f"{trouble} The best of the {len(self.history.epochs)} epochs before is lost: the best "
            "is that of those to come.",
            stacklevel=2,
        )
        return None

    def _is_best(self, name: str) -> bool:
        """Whether the last epoch was the best so far, as rank 0 finds; all ranks ask together."""
        now = self.history.epochs[-1].scores[name]
        is_best = self.loop.work.communicator.tell(checkpoint.better(name, now, self._best), 0)
        if is_best:
            self._best = now
        return is_best


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


def _check_best(name: str, posterior: Posterior, held_out: tuple[Tensor, Tensor] | None) -> None:
    """Refuse a best checkpoint that there cannot be.

    Raises:
        ValueError: says why.
    """
    kind = type(posterior)
    if decisive.collects(kind):
        raise ValueError(
            f"best='{name}': {kind.__name__} collects what it samples from all along the run, so "
            "that no epoch before the last is a posterior of its own: leave best out."
        )
    if held_out is None:
        raise ValueError(f"best='{name}' needs validation data to be judged on.")
    there, _ = try_scores(posterior, *held_out)
    if name not in there:
        known = checkpoint.LARGER_IS_BETTER + checkpoint.SMALLER_IS_BETTER
        raise ValueError(
            f"best='{name}' is no score of this model; there are "
            f"{', '.join(each for each in there if each in known)}."
        )
