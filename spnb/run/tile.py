"""The evaluation of one rank's tile in one step: its samples, on its rows.

Where the objective is linear in the samples their gradients simply add up, chunk by chunk. Where
it is not, the predictions of all samples are gathered, each rank forms the same loss and the same
gradient at the predictions, keeps the slice that belongs to its tile, and carries on backwards from
there: the backward pass needs no communication.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from spnb.maths.energy import StepNoise
from spnb.parallel.keyed import Key
from spnb.parallel.layout import Tile
from spnb.run import checks
from spnb.run.samples import Chunk, Lane, Source
from spnb.run.work import Work

AT_ONCE = 2**14
"""Predicted numbers for which a loss is formed at once where memory must not grow with S."""


@dataclass
class TileRun:
    """A tile in evaluation; the gradient gathers in `source`.

    Attributes:
        work: the run.
        tile: this rank's samples and rows.
        source: what the samples are drawn from.
        x: inputs of the whole batch.
        y: targets of the whole batch.
        step: index of the step.
        first: whether it is the first one of the run, in which augmentations are looked at.
        estimated: this rank's share of the divergence that is estimated from the samples.
    """

    work: Work
    tile: Tile
    source: Source
    x: Tensor
    y: Tensor
    step: int
    first: bool = False

    def __post_init__(self) -> None:
        self.views_key = Key(self.work.seed).fold("augment", self.step)
        self.noise_key = Key(self.work.seed).fold("objective", self.step)
        self.rows = slice(self.tile.rows.start, self.tile.rows.stop)
        self.targets = self.y[self.rows]
        self.estimated = self.source.leaves[0].new_zeros(())
        self.span = self.work.communicator.trace.span
        if self.work.augment is None or self.work.views == "per_sample":
            self.view = self.x[self.rows]
        else:
            self.view = self._augmented("shared")

    def separately(self) -> Tensor:
        """Evaluate samples whose losses add up, chunk by chunk; memory does not grow with S.

        Returns:
            This rank's share of the data term.
        """
        work, likelihood = self.work, self.work.posterior.model.likelihood
        total = self.estimated.new_zeros(())
        share = 1 / work.averaged / len(self.x)  # of one sample and row
        size, weight = 0, total
        with self._lane() as lane:
            for samples in self._chunks():
                drawn, predictions = self._predict(samples, lane)
                ends = self._divergence_of(drawn)
                if len(self.targets):
                    with self.span("forward"):
                        summed = work.objective.total(predictions, self.targets, likelihood)
                    if len(samples) != size:
                        size = len(samples)
                        weight = summed.new_tensor(size * share)
                    total.add_(summed.detach(), alpha=size)
                    ends.append((summed, weight))
                self._backward(drawn, ends)
        return total * share

    def gathered(self) -> Tensor:
        """Evaluate a loss that needs the predictions of several samples, or of all rows, at once.

        Returns:
            This rank's share of the data term.
        """
        work, comm, objective = self.work, self.work.communicator, self.work.objective
        if work.recompute:
            whole = self._predictions()
        else:
            parts = [self._predict(c, None) for c in self._chunks()]
            whole = torch.cat([predictions.detach() for _, predictions in parts])
        over_samples = not (objective.linear_in_samples or objective.local)
        if over_samples:
            sizes = comm.layout.sizes("sample", work.num_samples)
            whole = comm.gather(whole, "sample", 0, sizes)
        if not work.per_item:
            whole = comm.gather(whole, "rows", 1, comm.layout.sizes("rows", len(self.x)))
        loss, gradient = self._into_gradient(whole, over_samples)
        if over_samples:
            gradient = gradient[self.tile.samples.start : self.tile.samples.stop]
        if not work.per_item:
            gradient = gradient[:, self.rows]
        own = gradient.split(work.samples_in_flight)
        with self._lane() if work.recompute else nullcontext() as lane:
            for samples, at in zip(self._chunks(), own, strict=True):
                drawn, predictions = (
                    self._predict(samples, lane) if work.recompute else parts.pop(0)
                )
                self._backward(drawn, [*self._divergence_of(drawn), (predictions, at)])
        return loss

    def explain_not_finite(self) -> str | None:
        """Whose fault it is that a loss or gradient is not finite, if not the weights'.

        Returns:
            A sentence without its full stop; None if nothing else is found.
        """
        work, samples = self.work, self.tile.samples
        if work.augment is not None:
            owners: Sequence[int | str] = samples if work.views == "per_sample" else ["shared"]
            for view in map(self._augmented, owners):
                if view.is_floating_point() and not torch.isfinite(view).all():
                    return "It is augment that made inputs which are NaN or infinite"
        gathers = work.sharing is not None or not work.per_item and len(self.x) > len(self.targets)
        if gathers or not len(self.targets):
            return None
        predictions = self._predictions()
        if not torch.isfinite(predictions).all():
            return None
        least, most = predictions.min().item(), predictions.max().item()
        with torch.enable_grad():
            predictions.requires_grad_()
            likelihood = work.posterior.model.likelihood
            loss = work.objective.losses(predictions, self.targets, likelihood)
            (gradient,) = torch.autograd.grad(loss.sum(), predictions)
        if torch.isfinite(loss).all() and torch.isfinite(gradient).all():
            return None
        return (
            f"Predictions are finite, from {least:g} to {most:g}: it is {work.objective!r} or the "
            "likelihood that is not finite there, or has no finite gradient"
        )

    def _chunks(self) -> Iterator[Sequence[int]]:
        """This rank's samples, as many at a time as are to be evaluated at once."""
        for start in range(0, len(self.tile.samples), self.work.samples_in_flight):
            yield self.tile.samples[start : start + self.work.samples_in_flight]

    def _lane(self) -> AbstractContextManager[Lane | None]:
        """The lane for samples that are evaluated one by one; None for several at once."""
        return nullcontext() if self.work.lane is None else self.work.lane.over(self.source)

    def _predict(self, samples: Sequence[int], lane: Lane | None) -> tuple[Chunk | Lane, Tensor]:
        """Some samples and their predictions ``[C, b, ...]`` on the tile's rows."""
        with self.span("draw"):
            drawn = Chunk(self.source, samples) if lane is None else lane.draw(samples[0])
        with self.span("forward"):
            if not len(self.targets):
                return drawn, self.estimated.new_zeros(len(samples), 0, *self.work.prediction_shape)
            if self.work.augment is not None and self.work.views == "per_sample":
                views = torch.stack([self._augmented(s) for s in samples])
                return drawn, drawn.predict(views, own_views=True)
            return drawn, drawn.predict(self.view)

    def _predictions(self) -> Tensor:
        """The predictions of all samples of the tile, ``[C, b, ...]``, without a graph."""
        rows, shape = len(self.targets), self.work.prediction_shape
        whole = self.estimated.new_empty(len(self.tile.samples), rows, *shape)
        with torch.no_grad(), self._lane() as lane:
            for samples, into in zip(
                self._chunks(), whole.split(self.work.samples_in_flight), strict=True
            ):
                into.copy_(self._predict(samples, lane)[1])
        return whole

    def _backward(self, drawn: Chunk | Lane, ends: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Carry gradients back from some ends of the graph to what the samples were drawn from."""
        with self.span("backward"):
            live = [(end, gradient) for end, gradient in ends if end.requires_grad]
            if live:
                with drawn.in_place():
                    torch.autograd.backward(
                        [end for end, _ in live], [gradient for _, gradient in live]
                    )
            drawn.carry_back()

    def _into_gradient(self, whole: Tensor, over_samples: bool) -> tuple[Tensor, Tensor]:
        """The loss at gathered predictions, counted once, and its gradient in their place.

        Where memory must not grow with S, what a loss keeps for its way back must not either: a
        loss for each row is formed for a few rows after the other.
        """
        work, comm, objective = self.work, self.work.communicator, self.work.objective
        total = self.estimated.new_zeros(())
        if not whole.numel():
            return total, whole
        factor = 1.0
        counted = work.per_item or comm.coordinate("rows") == 0
        if objective.local:
            factor = 1 / comm.layout.sample
        elif objective.linear_in_samples:
            factor = len(whole) / work.num_samples
        else:
            counted = counted and comm.coordinate("sample") == 0
        rows, targets = range(len(self.y)), self.y
        at_once = len(rows)
        if work.per_item:
            factor /= len(self.x)
            rows, targets = self.tile.rows, self.targets
            at_once = max(1, AT_ONCE * len(rows) // whole.numel()) if work.recompute else len(rows)
        samples = range(work.num_samples) if over_samples else self.tile.samples
        noise = StepNoise(self.noise_key, samples, rows, len(self.x))
        for start in range(0, len(rows), at_once):
            part = slice(start, start + at_once)
            piece = whole[:, part]
            predictions = piece.clone().requires_grad_()
            losses = objective.at_step(noise.part(part)).losses(
                predictions, targets[part], work.posterior.model.likelihood
            )
            loss = losses.sum() * factor
            (gradient,) = torch.autograd.grad(loss, predictions)
            piece.copy_(gradient)
            total += loss.detach()
        return total * counted, whole

    def _augmented(self, owner: int | str) -> Tensor:
        """This rank's rows of the view that belongs to one sample, or to all.

        The whole batch is augmented, so that a row's view does not depend on how many ranks share
        the batch.
        """
        assert self.work.augment is not None
        generator = self.views_key.fold(owner).generator(self.x.device)
        if self.first:
            return checks.augmentation(self.work.augment, self.x, generator)[self.rows]
        return self.work.augment(self.x, generator)[self.rows]

    def _divergence_of(self, drawn: Chunk | Lane) -> list[tuple[Tensor, Tensor]]:
        """The divergence's estimated part, if there is one, and its weight in the loss.

        The first rank along ``data`` counts it; those along ``shard`` each that of their weights.
        """
        work = self.work
        if not work.posterior.estimates or work.communicator.coordinate("data") > 0:
            return []
        mean = drawn.sampled_divergence().sum() / work.averaged
        self.estimated += mean.detach()
        return [(mean, mean.new_tensor(work.objective.temperature / work.num_data))]
