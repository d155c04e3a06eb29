"""One step: the gradient of the objective, from the tiles of all ranks, exactly.

Every rank evaluates its own samples on its own rows. Where the objective is linear in the samples
their gradients simply add up. Where it is not, the predictions of all samples are gathered, each
rank forms the same loss and the same gradient at the predictions, keeps the slice that belongs to
its tile, and carries on backwards from there: the backward pass needs no communication. Either
way one sum over all ranks ends the step, and the divergence from the prior is counted once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spnb.parallel.keyed import Key
from spnb.parallel.layout import Tile
from spnb.run.work import Work


@dataclass(frozen=True)
class StepInfo:
    """What a step found, over all ranks.

    Attributes:
        loss: data term + temperature / N * divergence.
        data_term: the objective's mean loss of the batch.
        divergence: KL(posterior || prior), in nats.
    """

    loss: float
    data_term: float
    divergence: float


def compute_gradient(work: Work, x: Tensor, y: Tensor, step: int) -> StepInfo:
    """Write the gradient of one step, summed over all ranks, into the posterior's parameters.

    Args:
        work: the run.
        x: inputs of the whole batch ``[B, ...]``, the same on every rank.
        y: targets of the whole batch ``[B, ...]``.
        step: index of the step, which names its random numbers.

    Raises:
        FloatingPointError: a loss or gradient is not finite; says on which rank and where.
    """
    comm, posterior, objective = work.communicator, work.posterior, work.objective
    tile = comm.layout.tile(comm.rank, work.num_samples, len(x))
    prepared = posterior.prepare()
    # The samples add up their gradients at these leaves; the chain rule from there to the
    # parameters, and the divergence, are computed once at the end.
    leaves = tuple(p.detach().requires_grad_() for p in prepared)
    run = _TileRun(work, tile, leaves, x, y, step)
    work.buffer.zero()
    gathers = not work.per_item or not (objective.linear_in_samples or objective.local)
    data_term, estimated = run.gathered() if gathers else run.separately()
    known = posterior.divergence(prepared)
    factor = objective.temperature / work.num_data
    roots: list[tuple[Tensor, Tensor | None]] = [
        (whole, leaf.grad) for whole, leaf in zip(prepared, leaves, strict=True)
    ]
    _backward([*roots, (known, torch.full_like(known, factor / comm.size))])
    total = work.buffer.reduce(comm, torch.stack([data_term, estimated]), tile, step)
    divergence = total[1].item() + known.item()
    data = total[0].item()
    return StepInfo(data + factor * divergence, data, divergence)


def chunks(samples: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Runs of at most ``size`` samples."""
    for start in range(0, len(samples), size):
        yield samples[start : start + size]


def _backward(roots: Sequence[tuple[Tensor, Tensor | None]]) -> None:
    """Carry gradients backwards from some tensors, leaving out those that nothing reached."""
    live = [(root, grad) for root, grad in roots if root.requires_grad and grad is not None]
    if live:
        torch.autograd.backward([root for root, _ in live], [grad for _, grad in live])


@dataclass
class _TileRun:
    """The evaluation of one rank's tile in one step."""

    work: Work
    tile: Tile
    leaves: tuple[Tensor, ...]
    x: Tensor
    y: Tensor
    step: int

    def __post_init__(self) -> None:
        key = Key(self.work.seed)
        self.weights_key = key.fold("weights", self.step)
        self.views_key = key.fold("augment", self.step)
        self.rows = slice(self.tile.rows.start, self.tile.rows.stop)
        self.targets = self.y[self.rows]
        self.estimated = self.leaves[0].new_zeros(())
        if self.work.augment is None or self.work.views == "per_sample":
            self.view = self.x[self.rows]
        else:
            self.view = self._augmented("shared")

    def _augmented(self, owner: int | str) -> Tensor:
        """This rank's rows of the view that belongs to one sample, or to all.

        The whole batch is augmented, so that a row's view does not depend on how many ranks share
        the batch.
        """
        assert self.work.augment is not None
        generator = self.views_key.fold(owner).generator(self.x.device)
        return self.work.augment(self.x, generator)[self.rows]

    def predict(self, samples: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Weights ``[C, P]`` and predictions ``[C, b, ...]`` of some samples on the tile's rows."""
        posterior = self.work.posterior
        weights = posterior.draw(samples, self.weights_key, self.leaves)
        if not len(self.targets):
            return weights, weights.new_zeros(len(samples), 0, *self.work.prediction_shape)
        if self.work.augment is not None and self.work.views == "per_sample":
            views = torch.stack([self._augmented(s) for s in samples])
            return weights, posterior.model.predict(weights, posterior.point, views, True)
        return weights, posterior.model.predict(weights, posterior.point, self.view)

    def divergence_of(self, weights: Tensor) -> Tensor:
        """Loss of the divergence's estimated part; the first rank along ``data`` counts it."""
        zero = weights.new_zeros(())
        if self.work.communicator.coordinate("data") > 0:
            return zero
        sampled = self.work.posterior.sampled_divergence(weights, self.leaves)
        if sampled is None:
            return zero
        mean = sampled.sum() / self.work.num_samples
        self.estimated += mean.detach()
        return mean * (self.work.objective.temperature / self.work.num_data)

    def separately(self) -> tuple[Tensor, Tensor]:
        """Losses that need only this rank's samples, chunk by chunk.

        Returns:
            This rank's share of the data term, and of the estimated divergence.
        """
        work, objective = self.work, self.work.objective
        if objective.local:  # a loss of all the rank's samples, and the mean over the groups
            size = len(self.tile.samples)
            whole = size * work.communicator.layout.sample
        else:
            size, whole = work.samples_in_flight, work.num_samples
        total = self.leaves[0].new_zeros(())
        for samples in chunks(self.tile.samples, size):
            weights, predictions = self._predict_in_chunks(samples)
            loss = self.divergence_of(weights)
            if len(self.targets):
                likelihood = work.posterior.model.likelihood
                losses = objective.losses(predictions, self.targets, likelihood)
                term = losses.sum() * (len(samples) / whole / len(self.x))
                total += term.detach()
                loss = loss + term
            if loss.requires_grad:
                loss.backward()
        return total, self.estimated

    def _predict_in_chunks(self, samples: Sequence[int]) -> tuple[Tensor, Tensor]:
        parts = [self.predict(chunk) for chunk in chunks(samples, self.work.samples_in_flight)]
        if len(parts) == 1:
            return parts[0]
        weights, predictions = zip(*parts, strict=True)
        return torch.cat(weights), torch.cat(predictions)

    def gathered(self) -> tuple[Tensor, Tensor]:
        """A loss that needs the predictions of all samples, or of all rows.

        Returns:
            This rank's share of the data term, and of the estimated divergence.
        """
        work, comm, objective = self.work, self.work.communicator, self.work.objective
        with torch.set_grad_enabled(not work.recompute):
            parts = [self.predict(c) for c in chunks(self.tile.samples, work.samples_in_flight)]
        whole = torch.cat([predictions.detach() for _, predictions in parts])
        if work.recompute:
            parts = []
        over_samples = not (objective.linear_in_samples or objective.local)
        if over_samples:
            sizes = comm.layout.sizes("sample", work.num_samples)
            whole = comm.gather(whole, "sample", 0, sizes)
        if not work.per_item:
            whole = comm.gather(whole, "data", 1, comm.layout.sizes("data", len(self.x)))
        loss, gradient = self._at_predictions(whole)
        if over_samples:
            gradient = gradient[self.tile.samples.start : self.tile.samples.stop]
        if not work.per_item:
            gradient = gradient[:, self.rows]
        for index, samples in enumerate(chunks(self.tile.samples, work.samples_in_flight)):
            weights, predictions = self.predict(samples) if work.recompute else parts[index]
            start = samples[0] - self.tile.samples.start
            own = gradient[start : start + len(samples)]
            divergence = self.divergence_of(weights)
            _backward([(predictions, own), (divergence, torch.ones_like(divergence))])
        return loss, self.estimated

    def _at_predictions(self, whole: Tensor) -> tuple[Tensor, Tensor]:
        """The loss at gathered predictions, counted once, and its gradient at all of them."""
        work, comm, objective = self.work, self.work.communicator, self.work.objective
        likelihood = work.posterior.model.likelihood
        if not whole.numel():
            return whole.new_zeros(()), whole
        whole.requires_grad_()
        if work.per_item:
            loss = objective.losses(whole, self.targets, likelihood).sum() / len(self.x)
        else:
            loss = objective.losses(whole, self.y, likelihood)
        counted = work.per_item or comm.coordinate("data") == 0
        if objective.local:
            loss = loss / comm.layout.sample
        elif objective.linear_in_samples:
            loss = loss * (len(whole) / work.num_samples)
        else:
            counted = counted and comm.coordinate("sample") == 0
        (gradient,) = torch.autograd.grad(loss, whole)
        return loss.detach() * counted, gradient
