"""The gradient of a step as one vector: summed over the ranks by one call, checked, given back.

The parameters' gradients are views of one buffer, so nothing is copied before or after the sum.
Behind them the buffer carries the step's losses and one flag a rank, so that a rank whose part is
not finite is known to all of them without a further message.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from spnb.maths.posteriors import Posterior
from spnb.parallel.collectives import Communicator
from spnb.parallel.layout import Tile

NUM_LOSSES = 2
TOLD = 1 + NUM_LOSSES
"""Numbers behind the gradient besides the flags: its square where it is shared out, the losses."""


class GradientBuffer:
    """Room for the gradient of a posterior, and behind it for what is told beside it.

    Where ranks share out the parameters, the gradients of what all of them hold lie last: they are
    summed over all ranks, the others over those that hold the same ones.

    Args:
        posterior: the posterior; the ``grad`` of its trained parameters is set.
        told: the ranks that learn of each other's troubles.
    """

    def __init__(self, posterior: Posterior, told: Communicator) -> None:
        self.posterior, self.told = posterior, told
        named = dict(posterior.named_parameters())
        common = {name: named.pop(name) for name in posterior.common if name in named}
        self.common = sum(p.numel() for p in named.values())
        named |= common
        self.parameters = named
        self.length = sum(p.numel() for p in named.values())
        numbers = self.length + TOLD + told.size
        self.flat = next(iter(named.values())).new_zeros(numbers, requires_grad=False)
        start = 0
        for parameter in named.values():
            parameter.grad = self.flat[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()
        self._square = self.flat[self.length]
        self._losses, self._flags = self.flat[self.length + 1 :].split([NUM_LOSSES, told.size])

    def zero(self) -> None:
        """Forget the last step."""
        self.flat.zero_()

    def norm(self) -> Tensor:
        """Euclidean length of the gradient, a scalar."""
        if self.posterior.window is None:
            return torch.linalg.vector_norm(self.flat[: self.length])
        common = self.flat[self.common : self.length]
        return (self._square + common.dot(common)).sqrt()

    def reduce(
        self,
        summing: Communicator,
        shard: Communicator | None,
        losses: Tensor,
        tile: Tile,
        step: int,
        rank: int,
        explain: Callable[[], str | None],
    ) -> Tensor:
        """Sum the gradient and the losses over all ranks.

        Args:
            summing: the ranks that share the gradient.
            shard: the ranks that share out the parameters, if there are any.
            losses: this rank's share of the losses, ``[2]``.
            tile: what this rank evaluated, for the message.
            step: index of the step, for the message.
            rank: this rank among all of the world, for the message.
            explain: what else than the weights makes this rank's part not finite, if anything.

        Returns:
            The losses of all ranks together, ``[2]``.

        Raises:
            FloatingPointError: on every rank, naming the first one whose part is not finite.
        """
        self._losses.copy_(losses)
        # One pass: a sum is finite only if all its terms are.
        sound = bool(torch.isfinite(self.flat[: self.length + TOLD].sum()))
        trouble, words = (0, "") if sound else self._report(losses, tile, explain)
        self._flags[self.told.rank] = trouble
        summing.sum(self.flat)
        if shard is not None:
            own = self.flat[: self.common]
            self._square.copy_(own.dot(own))
            shard.sum(self.flat[self.common :])
        if bool(self._flags.any()):
            culprit = int((self._flags == self._flags.max()).nonzero()[0])
            report = self.told.tell(f"rank {rank}: {words}", culprit)
            raise FloatingPointError(
                f"Step {step}, {report}; the posterior handed to fit is unchanged."
            )
        return self._losses

    def _report(
        self, losses: Tensor, tile: Tile, explain: Callable[[], str | None]
    ) -> tuple[int, str]:
        """What is not finite on this rank: the parameters themselves, the loss, or a gradient.

        Returns:
            2 for parameters, which spoil everybody's gradient where they are shared out, else 1;
            and the words.
        """
        where = (
            f"samples {tile.samples.start}–{tile.samples.stop - 1}, "
            f"rows {tile.rows.start}–{tile.rows.stop - 1} of the batch"
        )
        advice = "A smaller learning_rate, clip_norm=1.0 or a smaller init_scale often helps"
        for name, parameter in self.parameters.items():
            if label := self._first_not_finite(name, parameter):
                return 2, f"{label} is no longer finite. {advice}"
        words = f"the loss is {losses[0].item():g} ({where})"
        for name, parameter in self.parameters.items():
            assert parameter.grad is not None
            if label := self._first_not_finite(name, parameter.grad):
                loss = losses[0].item()
                words = f"the gradient of {label} is not finite ({where}; its loss {loss:g})"
                break
        return 1, f"{words}. {explain() or advice}"

    def _first_not_finite(self, name: str, values: Tensor) -> str | None:
        bad = (~torch.isfinite(values)).flatten().nonzero()
        return self.posterior.label(name, int(bad[0])) if len(bad) else None
