"""What all adapters share: the object that is one training step, and its optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor
from torch.optim import Adam

from benchmarks.workloads import LEARNING_RATE

#: name of a network's parameter -> its mean and its standard deviation; None: deterministic
Parameters = dict[str, tuple[Tensor, Tensor | None]]


class Step:
    """One whole training step at each call.

    Args:
        train: does the step and returns its loss, detached.
        parameters: copies of what is trained now, under the names of the plain network.
    """

    def __init__(self, train: Callable[[], Tensor], parameters: Callable[[], Parameters]) -> None:
        self.train = train
        self.parameters = parameters
        self.loss: Tensor | None = None

    def __call__(self) -> None:
        self.loss = self.train()


def adam(parameters: Iterable[Tensor]) -> Adam:
    """Adam in its fastest form on a CPU, for every library that leaves the choice to its user."""
    return Adam(parameters, lr=LEARNING_RATE, fused=True)


def copied(mean: Tensor, scale: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """A mean and a standard deviation that later steps do not change."""
    return mean.detach().clone(), None if scale is None else scale.detach().clone()
