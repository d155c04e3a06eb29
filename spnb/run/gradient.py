"""The gradient of a step as one vector: summed over the ranks by one call, checked, given back.

The parameters' gradients are views of one buffer, so nothing is copied before or after the sum.
Behind them the buffer carries the step's losses and one flag a rank, so that a rank whose part is
not finite is known to all of them without a further message.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spnb.maths.posteriors import Posterior
from spnb.parallel.collectives import Communicator
from spnb.parallel.layout import Tile

NUM_LOSSES = 2


class GradientBuffer:
    """Room for the gradient of a posterior, two losses and a flag for each rank.

    Args:
        posterior: the posterior; the ``grad`` of its trained parameters is set.
        world_size: number of ranks.
    """

    def __init__(self, posterior: Posterior, world_size: int) -> None:
        self.posterior = posterior
        self.parameters = dict(posterior.named_parameters())
        first = next(iter(self.parameters.values()))
        self.length = sum(p.numel() for p in self.parameters.values())
        self.flat = first.new_zeros(self.length + NUM_LOSSES + world_size, requires_grad=False)
        start = 0
        for parameter in self.parameters.values():
            parameter.grad = self.flat[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()

    def zero(self) -> None:
        """Forget the last step."""
        self.flat.zero_()

    def norm(self) -> Tensor:
        """Euclidean length of the gradient, a scalar."""
        return torch.linalg.vector_norm(self.flat[: self.length])

    def reduce(
        self, comm: Communicator, losses: Tensor, tile: Tile, step: int, rank: int
    ) -> Tensor:
        """Sum the gradient and the losses over all ranks.

        Args:
            comm: the ranks that share the gradient.
            losses: this rank's share of the losses, ``[2]``.
            tile: what this rank evaluated, for the message.
            step: index of the step, for the message.
            rank: this rank among all of the world, for the message.

        Returns:
            The losses of all ranks together, ``[2]``.

        Raises:
            FloatingPointError: on every rank, naming the first one whose part is not finite.
        """
        self.flat[self.length : self.length + NUM_LOSSES] = losses
        # One pass: a sum is finite only if all its terms are.
        sound = bool(torch.isfinite(self.flat[: self.length + NUM_LOSSES].sum()))
        self.flat[self.length + NUM_LOSSES + comm.rank] = 0.0 if sound else 1.0
        report = None if sound else f"rank {rank}: {self._report(losses, tile)}"
        comm.sum(self.flat)
        flags = self.flat[self.length + NUM_LOSSES :]
        if bool(flags.any()):
            culprit = int(flags.nonzero()[0])
            report = comm.tell(report, culprit)
            raise FloatingPointError(
                f"Step {step}, {report}. A smaller learning_rate, clip_norm=1.0 "
                "or a smaller init_scale often helps; the posterior handed to fit is unchanged."
            )
        return self.flat[self.length : self.length + NUM_LOSSES]

    def _report(self, losses: Tensor, tile: Tile) -> str:
        """What is not finite on this rank: the parameters themselves, the loss, or a gradient."""
        where = (
            f"samples {tile.samples.start}–{tile.samples.stop - 1}, "
            f"rows {tile.rows.start}–{tile.rows.stop - 1} of the batch"
        )
        for name, parameter in self.parameters.items():
            bad = (~torch.isfinite(parameter)).flatten().nonzero()
            if len(bad):
                label = self.posterior.label(name, int(bad[0]))
                return f"{label} is no longer finite"
        for name, parameter in self.parameters.items():
            assert parameter.grad is not None
            bad = (~torch.isfinite(parameter.grad)).flatten().nonzero()
            if len(bad):
                label = self.posterior.label(name, int(bad[0]))
                loss = losses[0].item()
                return f"the gradient of {label} is not finite ({where}; this rank's loss {loss:g})"
        return f"the loss is {losses[0].item():g} ({where})"
