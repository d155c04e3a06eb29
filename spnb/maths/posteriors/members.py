"""Members: posteriors whose samples have parameters of their own and never meet in training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from types import BuiltinFunctionType, FunctionType

import torch
from torch import Tensor, nn

from spnb.maths.models import BayesianModel
from spnb.maths.posteriors.base import Posterior, whole
from spnb.maths.posteriors.drawing import Drawing, Key


class Members(Posterior):
    """Base of what trains several networks beside each other (`Ensemble`, `SGMCMC`).

    Sample s in training is member s. Members share the order of the data and differ in where they
    start: for each but the first, all modules that have ``reset_parameters`` are initialised anew.
    The divergence is the sum of -log prior over the members. They do not meet, so
    ranks along ``sample`` send each other nothing until the end.

    Args:
        model: the Bayesian model. Member 0 starts at the values that the net holds.
        size: number of members, at least 1; None: the usual one, or as many as ``nets``.
        seed: names the initial values of the others.
        nets: networks like the model's, one for each member, at whose values they start instead.

    Attributes:
        members: the weights, ``[M, P]``; in the part that a rank trains, its own members'.
        size: M, number of all members.
        first: index of the first one in ``members``; 0 in the whole.

    Raises:
        TypeError: no whole number, or no networks.
        ValueError: there are fewer than 1, other networks than the model's, or two alike.
    """

    separate = True

    #: what the number of members is called, and how many there are where nothing is said
    counted: tuple[str, int] = ("size", 5)

    def __init__(
        self,
        model: BayesianModel,
        size: int | None,
        seed: int,
        nets: Iterable[nn.Module] | None = None,
    ) -> None:
        super().__init__(model)
        name, usual = self.counted
        if size is not None:
            whole(name, size, 1)
        if nets is None:
            start = starts(model, usual if size is None else size, seed)
        else:
            start = values_of(model, nets)
        if size not in (None, len(start)):
            raise ValueError(
                f"nets holds {len(start)} networks, but {name}={size}: leave {name} out."
            )
        self.members = nn.Parameter(start)
        self.size, self.first = len(start), 0

    @property
    def draws_in_training(self) -> int:
        """Number of members."""
        return self.size

    @property
    def drawing(self) -> type[Drawing]:
        """How a training step takes its members."""
        return MemberDrawing

    def part(self, samples: range) -> Members:
        """Some neighbouring members alone, under their own indices."""
        part = self._with(lambda tensor: tensor[samples.start : samples.stop].clone())
        part.first = samples.start
        return part

    def join(self, gather: Callable[[Tensor], Tensor]) -> Members:
        """The whole again, from the parts of all ranks."""
        whole = self._with(gather)
        whole.first = 0
        return whole

    def _with(self, change: Callable[[Tensor], Tensor]) -> Members:
        """A copy with other members, and another of every buffer ``[M, ...]``."""
        other = copy.copy(self)
        other._parameters, other._buffers = dict(self._parameters), dict(self._buffers)
        other.members = nn.Parameter(change(self.members.detach()))
        for name, buffer in self.named_buffers():
            if name != "point":
                other._buffers[name] = change(buffer)
        return other

    def prepare(self) -> tuple[Tensor]:
        """The members ``[M, P]``."""
        return (self.members,)

    def draw(
        self, sample_ids: Sequence[int], key: Key, prepared: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Weights ``[C, P]`` of some members."""
        (members,) = self.prepare() if prepared is None else prepared
        return members[[sample - self.first for sample in sample_ids]]

    def divergence(self, prepared: Sequence[Tensor], part: int = 0, parts: int = 1) -> Tensor:
        """-log prior of all members where it is normal; the parts share out the weights."""
        return self.cross_entropy.known_of_points(prepared[0], part, parts)

    def label(self, name: str, index: int) -> str:
        """Which parameter of which member an element belongs to, for messages."""
        if name != "members":
            return super().label(name, index)
        member, index = divmod(index, self.members.shape[1])
        for site in self.model.drawn:
            if index < site.size:
                return f"'{site.name}' of member {self.first + member}"
            index -= site.size
        raise IndexError(f"'{name}' has no element {index}.")


class MemberDrawing(Drawing):
    """Members one after the other, their gradients put where they belong."""

    posterior: Members

    def draw(self, sample: int, weights: Tensor) -> None:
        """Write a member into a vector ``[P]``."""
        self._at = sample - self.posterior.first
        weights.copy_(self.leaves[0].detach()[self._at])

    def carry_back(self, gradient: Tensor) -> None:
        """Add to the member's gradient."""
        into = self.leaves[0].grad
        assert into is not None
        into[self._at].add_(gradient)


def starts(model: BayesianModel, size: int, seed: int) -> Tensor:
    """Weights that several networks start from, ``[M, P]``; the model itself is left as it is.

    Args:
        model: the model; the first network starts at the values that it holds.
        size: M, how many.
        seed: names the initial values of the others.

    Raises:
        ValueError: none of the net's modules can be initialised anew.
    """
    seeds = torch.randint(2**62, (size,), generator=torch.Generator().manual_seed(seed))
    net = copy.deepcopy(model.net)
    starts = [model.flatten(model.drawn)]
    for member in range(1, size):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(seeds[member]))
            for module in net.modules():
                # attention calls it by another name
                for name in ("reset_parameters", "_reset_parameters"):
                    getattr(module, name, lambda: None)()
        own = dict(net.named_parameters())
        values = [own.get(site.name, model.initial(site.name)) for site in model.drawn]
        starts.append(torch.cat([value.detach().reshape(-1) for value in values]))
    if size > 1 and torch.equal(starts[0], starts[1]):
        raise ValueError(
            "No module of the net has reset_parameters(), so all members would start alike, and "
            "end alike: give the net's modules one."
        )
    return torch.stack(starts)


def values_of(model: BayesianModel, nets: Iterable[nn.Module]) -> Tensor:
    """The values of the model's parameters that other networks hold, ``[M, P]``.

    Args:
        model: the model.
        nets: networks like the model's.

    Raises:
        TypeError: there are no networks.
        ValueError: one is not like the model's, or two of them hold the same values.
    """
    try:
        nets = list(nets)
    except TypeError as error:
        raise TypeError(f"nets is a {type(nets).__name__}; give a list of networks.") from error
    if not nets:
        raise ValueError("nets is empty: give a network for each member, or leave it out.")
    rows: list[Tensor] = []
    like = model.flatten(model.drawn)
    for index, net in enumerate(nets):
        if not isinstance(net, nn.Module):
            raise TypeError(f"nets[{index}] is a {type(net).__name__}, not a torch.nn.Module.")
        if difference := _difference(model, net):
            raise ValueError(
                f"nets[{index}] is not like the model's net: {difference}. Members share all but "
                "the values of parameters that have a prior."
            )
        own = dict(net.named_parameters())
        values = [own.get(site.name, model.initial(site.name)) for site in model.drawn]
        row = torch.cat([value.detach().reshape(-1) for value in values]).to(like)
        for other, before in enumerate(rows):
            if torch.equal(before, row):
                raise ValueError(
                    f"nets[{other}] and nets[{index}] hold the same values, so their members would "
                    "be the same: train each from initial values of its own."
                )
        rows.append(row)
    return torch.stack(rows)


PLAIN = (bool, int, float, str, tuple, type(None), type, FunctionType, BuiltinFunctionType)
"""Kinds of attributes that say how a module computes."""


def _difference(model: BayesianModel, net: nn.Module) -> str:
    """What sets a network apart from the model's besides the values that have a prior; in words."""
    like, found = dict(model.net.named_modules()), dict(net.named_modules())
    for name in [*like, *(name for name in found if name not in like)]:
        here, there = like.get(name), found.get(name)
        if type(here) is not type(there):
            place = f"its '{name}'" if name else "it"
            kinds = ["missing" if m is None else f"a {type(m).__name__}" for m in (there, here)]
            return f"{place} is {kinds[0]}, not {kinds[1]}"
        own, other = _settings(here), _settings(there)
        for setting in own | other:
            if own.get(setting) != other.get(setting):
                place = f"{name}.{setting}".removeprefix(".")
                return f"its '{place}' is {other.get(setting)}, not {own.get(setting)}"
    drawn = {site.name for site in model.drawn}
    held, given = _tensors(model.net), _tensors(net)
    for name in held | given:
        shapes = [str(tuple(of[name].shape)) if name in of else "missing" for of in (given, held)]
        if shapes[0] != shapes[1]:
            return f"its '{name}' is {shapes[0]}, not {shapes[1]}"
        if name not in drawn and not torch.equal(held[name], given[name].to(held[name])):
            return f"it holds other values in '{name}', which has no prior"
    return ""


def _settings(module: nn.Module | None) -> dict[str, str]:
    """How a module computes, as far as its attributes say so, in words."""
    return {
        name: getattr(value, "__qualname__", None) or repr(value)
        for name, value in vars(module).items()
        if isinstance(value, PLAIN) and not name.startswith("_") and name != "training"
    }


def _tensors(net: nn.Module) -> dict[str, Tensor]:
    """Parameters, buffers, and what embeddings hold for padding, which is no value like others."""
    found: dict[str, Tensor] = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    for name, module in net.named_modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.padding_idx is not None:
            found[f"{name}.weight[{module.padding_idx}]"] = module.weight[module.padding_idx]
    return found
