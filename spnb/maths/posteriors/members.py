"""Members: posteriors whose samples have parameters of their own and never meet in training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from spnb.maths.models import BayesianModel
from spnb.maths.posteriors.base import Posterior
from spnb.maths.posteriors.drawing import Drawing, Key


class Members(Posterior):
    """Base of what trains several networks beside each other (`Ensemble`, `SGMCMC`).

    Sample s in training is member s. Members share the order of the data and differ in where they
    start: for each but the first, all modules that have ``reset_parameters`` are initialised anew.
    The divergence is the sum of -log prior over the members. They do not meet, so
    ranks along ``sample`` send each other nothing until the end.

    Args:
        model: the Bayesian model. Member 0 starts at the values that the net holds.
        size: number of members, at least 1.
        seed: names the initial values of the others.

    Attributes:
        members: the weights, ``[M, P]``; in the part that a rank trains, its own members'.
        size: M, number of all members.
        first: index of the first one in ``members``; 0 in the whole.
    """

    separate = True

    def __init__(self, model: BayesianModel, size: int, seed: int) -> None:
        super().__init__(model)
        self.members = nn.Parameter(starts(model, size, seed))
        self.size, self.first = size, 0

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
