"""What is known of torch's layers: how their weights meet their inputs.

A prior needs the number of inputs that a unit adds up, dropout the input unit that a weight belongs
to. Neither can be read from a weight's shape: a transposed convolution holds it the other way
round, one with groups in part, and a table of positions has no inputs at all.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.rnn import RNNCellBase
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.parametrize import ParametrizationList

PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
"""The weights of `torch.nn.MultiheadAttention` that meet its inputs."""


@dataclass(frozen=True)
class Place:
    """Where a parameter stands in a net; a tied one stands in several places.

    Attributes:
        layer: the module that works with it.
        name: its name there, such as ``weight``.
    """

    layer: nn.Module
    name: str


def places(net: nn.Module) -> Iterator[tuple[str, Tensor, Place]]:
    """Every place of a net's parameters, in the net's order: name, parameter, place.

    The parameters of containers and of parametrisations stand in the layer that these belong to.
    """
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    modules = dict(net.named_modules())
    for prefix, module in modules.items():
        layer, inner = module, ""
        if isinstance(module, nn.ParameterList | nn.ParameterDict | ParametrizationList):
            outer, _, inner = prefix.rpartition(".")
            if isinstance(module, ParametrizationList):
                outer, _, _ = outer.rpartition(".")
                inner = f"parametrizations.{inner}"
            layer, inner = modules[outer], f"{inner}."
        for local, parameter in module._parameters.items():
            if parameter is not None:
                yield names[id(parameter)], parameter, Place(layer, inner + local)


# -- how many inputs a unit adds up ------------------------------------------------------------


@dataclass(frozen=True)
class Sum:
    """The sum that a parameter takes part in.

    Attributes:
        inputs: how many inputs a unit adds up, on average over the units; 1 for what is added to a
            unit, multiplies one, or is looked up.
        centre: the value at which the parameter changes nothing, or at which it usually starts.
    """

    inputs: float = 1
    centre: float = 0


def _of_rows(layer: Any, name: str, shape: tuple[int, ...]) -> Sum:
    """A weight ``[outputs, inputs, ...]``."""
    return Sum(math.prod(shape[1:]))


def _of_convolution(layer: Any, name: str, shape: tuple[int, ...]) -> Sum:
    """The inputs of a group; a transposed one strides over its outputs, which share the filter."""
    if not layer.transposed:
        return _of_rows(layer, name, shape)
    taps = [
        max(1, size * math.gcd(stride, dilation) / stride)
        for size, stride, dilation in zip(
            layer.kernel_size, layer.stride, layer.dilation, strict=True
        )
    ]
    return Sum(shape[0] / layer.groups * math.prod(taps))


def _of_recurrence(layer: Any, name: str, shape: tuple[int, ...]) -> Sum:
    """One sum over inputs and state."""
    both = (name.replace("_hh", "_ih"), name.replace("_ih", "_hh"))
    return Sum(sum(layer.get_parameter(each).shape[1] for each in both))


KNOWN: tuple[tuple[Any, str, Callable[[Any, str, tuple[int, ...]], Sum]], ...] = (
    (nn.Linear | nn.Bilinear, "weight", _of_rows),
    (_ConvNd, "weight", _of_convolution),
    (nn.MultiheadAttention, "|".join(PROJECTIONS), _of_rows),
    (nn.RNNBase | RNNCellBase, "weight_(ih|hh).*", _of_recurrence),
    (nn.RNNBase, "weight_hr.*", _of_rows),
    (nn.Embedding | nn.EmbeddingBag, "weight", lambda *_: Sum()),
    (nn.LayerNorm | nn.RMSNorm | nn.GroupNorm | _NormBase, "weight", lambda *_: Sum(centre=1)),
    (nn.PReLU, "weight", lambda layer, *_: Sum(centre=layer.init)),
)
"""Layers, the names of their weights, and the sums that these take part in."""

ALONE = ("bias", "pos", "embed", "token", "table", "scale", "gamma", "beta", "shift")
"""Parts of the names that parameters have which meet no more than one input."""


def sum_of(place: Place, shape: tuple[int, ...]) -> Sum | None:
    """The sum that a parameter takes part in at a place; None if that cannot be known.

    Args:
        place: the place.
        shape: of the parameter.
    """
    if place.name.startswith("parametrizations."):
        return _of_parametrisation(place, shape)
    for kind, names, found in KNOWN:
        if isinstance(place.layer, kind) and re.fullmatch(names, place.name):
            return found(place.layer, place.name, shape)
    return by_name(place.name, shape)


def by_name(name: str, shape: tuple[int, ...]) -> Sum | None:
    """The same by name and shape, for modules that are not torch's."""
    if len(shape) < 2:
        return Sum(centre=1 if len(shape) == 1 and name.rpartition(".")[2] == "weight" else 0)
    if name.endswith("weight"):
        return _of_rows(None, name, shape)
    return Sum() if any(part in name.lower() for part in ALONE) else None


def _of_parametrisation(place: Place, shape: tuple[int, ...]) -> Sum | None:
    """Weight normalisation: each unit has a direction and a length, and its sum that length."""
    layer: Any = place.layer
    _, tensor, part = place.name.split(".")
    steps = layer.parametrizations[tensor]
    rows = isinstance(layer, nn.Linear | _ConvNd) and not getattr(layer, "transposed", False)
    if not rows or len(steps) > 1 or not isinstance(steps[0], _WeightNorm) or steps[0].dim != 0:
        return None
    return Sum() if part == "original0" else _of_rows(layer, tensor, shape)


# -- which input unit a weight belongs to ------------------------------------------------------


@dataclass(frozen=True)
class InputUnits:
    """The input units, or channels, of a layer.

    Attributes:
        count: how many there are.
        groups: into how many groups of neighbours they are divided, each for outputs of its own.
        first: whether they are the first dimension of the weight, not the second.
    """

    count: int
    groups: int = 1
    first: bool = False

    def over(self, values: Tensor, shape: tuple[int, ...]) -> Tensor:
        """One value a unit, as a factor of the weight.

        Args:
            values: ``[count]``.
            shape: of the weight.
        """
        within = [1] * (len(shape) - 2)
        if self.first:
            return values.view(-1, 1, *within)
        by_group = values.view(self.groups, -1, *within)
        if self.groups == 1:
            return by_group
        return by_group.repeat_interleave(shape[0] // self.groups, 0)


def input_units(net: nn.Module) -> dict[str, tuple[InputUnits, nn.Module]]:
    """Weights that multiply a layer's inputs, in the net's order, with the layer they stand in.

    A tied weight is one of them only if it has the same input units in all of its places.
    """
    found: dict[str, tuple[InputUnits, nn.Module]] = {}
    others = set()
    for name, parameter, place in places(net):
        units = _units(place, parameter)
        if units is None or found.get(name, (units,))[0] != units:
            others.add(name)
        else:
            found.setdefault(name, (units, place.layer))
    return {name: each for name, each in found.items() if name not in others}


def _units(place: Place, weight: Tensor) -> InputUnits | None:
    layer, name = place.layer, place.name
    if isinstance(layer, nn.Linear) and name == "weight":
        return InputUnits(layer.in_features)
    if isinstance(layer, _ConvNd) and name == "weight":
        return InputUnits(layer.in_channels, layer.groups, layer.transposed)
    if isinstance(layer, nn.MultiheadAttention) and name in PROJECTIONS:
        return InputUnits(weight.shape[1])
    return None
