"""Call a module with other tensors in the place of its parameters.

What `torch.func.functional_call` does, but for as many calls as one likes: a training step calls
the same module once for each sample of the weights, and the small networks of this course are so
quick that looking the parameters up anew each time would be felt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

Place = tuple[str, nn.Module, str]
"""The name of a parameter, a module that holds it, and under which name it does."""


class Stateless:
    """A module that can be called with given parameters.

    Parameters that are frozen (``requires_grad=False``) stay as they are.

    Args:
        module: the module; a parameter that is tied stands in several places and is replaced in
            all of them.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._places = trained_places(module)

    @contextmanager
    def at(self, values: Mapping[str, Tensor]) -> Iterator[nn.Module]:
        """The module, which within the block has these parameters and afterwards its own.

        Args:
            values: one tensor for each of the module's ``named_parameters`` that is not frozen;
                others are ignored.
        """
        own = [owner._parameters[local] for _, owner, local in self._places]
        try:
            for name, owner, local in self._places:
                owner._parameters[local] = values[name]  # type: ignore[assignment]
            yield self.module
        finally:
            for parameter, (_, owner, local) in zip(own, self._places, strict=True):
                owner._parameters[local] = parameter

    def refuse_changes(self) -> None:
        """Refuse a module that was changed: other layers, other shapes, or other ones frozen.

        Raises:
            ValueError: names a parameter that differs.
        """
        now, then = trained_places(self.module), self._places
        if len(now) == len(then) and all(
            a[0] == b[0] and a[1] is b[1] and a[2] == b[2] for a, b in zip(now, then, strict=True)
        ):
            return
        names = {name for name, _, _ in now} ^ {name for name, _, _ in then}
        which = f"'{min(names)}'" if names else "a layer"
        raise ValueError(
            f"The net was changed after BayesianModel(net): {which} was added, removed, replaced, "
            "frozen or unfrozen. Make the BayesianModel, and the posterior, from the changed net."
        )


def trained_places(module: nn.Module) -> list[Place]:
    """Where the parameters of a module stand, without the frozen ones."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return [
        (names[id(parameter)], owner, local)
        for owner in module.modules()
        for local, parameter in owner._parameters.items()
        if parameter is not None and parameter.requires_grad
    ]
