"""Call a module with other tensors in the place of its parameters.

What `torch.func.functional_call` does, but for as many calls as one likes: a training step calls
the same module once for each sample of the weights, and the small networks of this course are so
quick that looking the parameters up anew each time would be felt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn


class Stateless:
    """A module that can be called with given parameters.

    Args:
        module: the module; a parameter that is tied stands in several places and is replaced in
            all of them.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        names = {id(p): name for name, p in module.named_parameters()}
        self._places = [
            (names[id(parameter)], owner, local)
            for owner in module.modules()
            for local, parameter in owner._parameters.items()
            if parameter is not None
        ]

    @contextmanager
    def at(self, values: Mapping[str, Tensor]) -> Iterator[nn.Module]:
        """The module, which within the block has these parameters and afterwards its own.

        Args:
            values: one tensor for each of the module's ``named_parameters``; others are ignored.
        """
        own = [owner._parameters[local] for _, owner, local in self._places]
        try:
            for name, owner, local in self._places:
                owner._parameters[local] = values[name]  # type: ignore[assignment]
            yield self.module
        finally:
            for parameter, (_, owner, local) in zip(own, self._places, strict=True):
                owner._parameters[local] = parameter
