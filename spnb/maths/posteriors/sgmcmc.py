"""Stochastic-gradient MCMC: chains that walk over the posterior with noisy gradients."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from spnb.maths.models import BayesianModel
from spnb.maths.posteriors.base import whole
from spnb.maths.posteriors.drawing import Key
from spnb.maths.posteriors.members import Members
from spnb.maths.posteriors.steps import fraction


class SGMCMC(Members):
    r"""Cyclical stochastic-gradient MCMC (Zhang et al., arXiv 1902.03932, algorithm 1).

    Each sample in training is a chain. With the gradient :math:`g` of the loss, a step of size
    :math:`\eta_t`, N items of data, temperature T and the friction :math:`\alpha` it moves by

    .. math:: v \leftarrow (1 - \alpha) v - \eta_t g
              + \sqrt{2 \alpha \eta_t T / N}\, \varepsilon, \qquad
              \theta \leftarrow \theta + v

    (SGHMC, Chen et al., arXiv 1402.4102, eq. 15); friction 1 is stochastic-gradient Langevin
    dynamics (SGLD, Welling and Teh 2011). The noise of chain m at step t belongs to m and t. In
    each of several cycles the step falls from ``learning_rate`` to zero along a cosine: first it
    explores without noise, then it samples, and keeps some of the places where it comes by.

    Args:
        model: the Bayesian model. Chain 0 starts at the values that the net holds.
        chains: M, number of chains; None: 4, or one for each of ``nets``.
        cycles: how often the step size starts anew.
        keep: how many places are kept of each cycle.
        exploring: share of each cycle that goes without noise, from 0 to below 1.
        friction: :math:`\alpha`, above 0 and at most 1; 1 less the momentum.
        seed: names where the other chains start.
        nets: trained networks like the model's, at whose values the chains start instead.

    Attributes:
        members: where the chains are, ``[M, P]``.
        kept: the places, ``[M, K, P]`` with K = cycles × keep; sample s after training is place
            s // M of chain s % M, so that few samples come from all chains. Zero before training.
    """

    kept: Tensor

    counted = ("chains", 4)

    def __init__(
        self,
        model: BayesianModel,
        chains: int | None = None,
        cycles: int = 4,
        keep: int = 4,
        exploring: float = 0.5,
        friction: float = 0.1,
        seed: int = 0,
        *,
        nets: Iterable[nn.Module] | None = None,
    ) -> None:
        for name, value in (("cycles", cycles), ("keep", keep)):
            whole(name, value, 1)
        if not 0 <= exploring < 1:
            raise ValueError(
                f"exploring={exploring} must be a share of a cycle, from 0 to below 1."
            )
        if not 0 < friction <= 1:
            raise ValueError(f"friction={friction} must be above 0 and at most 1, which is SGLD.")
        super().__init__(model, chains, seed, nets)
        self.cycles, self.keep = cycles, keep
        self.exploring, self.friction = exploring, friction
        kept = torch.zeros(self.size, cycles * keep, self.members.shape[1])
        self.register_buffer("kept", kept.to(self.members.detach()))

    def options(self) -> dict[str, Any]:
        """Numbers of chains, cycles and places kept in each, and how the chains move."""
        return {
            "chains": self.size,
            "cycles": self.cycles,
            "keep": self.keep,
            "exploring": self.exploring,
            "friction": self.friction,
        }

    @property
    def num_draws(self) -> int:
        """The chains; once they are trained, all places that were kept."""
        return self.size if self.training else self.size * self.cycles * self.keep

    def moves(self, learning_rate: float, noise_per_step: float, key: Key, total: int) -> Optimizer:
        """What moves the chains, in place of an optimiser that looks for the mode.

        Args:
            learning_rate: the first step of each cycle, for the loss as a mean over the data.
            noise_per_step: T / N; the loss is the negative log posterior times this.
            key: of the noise.
            total: how many steps there will be.

        Raises:
            ValueError: the run is too short to keep as many places.
        """
        wanted, sampling = self.cycles * self.keep, (1 - fraction(self.exploring)) * total
        if sampling < wanted:
            raise ValueError(
                f"{wanted} places are to be kept of each chain, and only {int(sampling)} of the "
                f"run's {total} steps sample: train for longer, or keep fewer."
            )
        return _Chains(self, learning_rate, noise_per_step, key, total)

    def progress(self, step: int, total: int) -> tuple[int, float]:
        """In which cycle a step is, and how much of it lies behind, from 0 to below 1."""
        cycle, within = divmod(step * self.cycles, total)
        return cycle, within / total

    def observe(self, step: int, total: int) -> None:
        """Keep the places at the ends of equal stretches of each cycle's sampling part."""
        place = places(total, self.cycles, self.keep, self.exploring).get(step)
        if place is not None:
            self.kept[:, place] = self.members.detach()

    def forget(self) -> None:
        """Drop the places of an earlier training; the chains go on from where they are."""
        self.kept.zero_()

    @property
    def lacks(self) -> str:
        """Places that were not kept yet."""
        empty = int((~self.kept.any(2)).any(0).sum())
        if not empty:
            return ""
        wanted = self.kept.shape[1]
        return f"{empty} of {wanted} places of each chain are not kept yet; train it to the end"

    def prepare(self) -> tuple[Tensor]:
        """In training the chains ``[M, P]``; then all places, in the order of the samples."""
        if self.training:
            return super().prepare()
        self._refuse_unfinished()
        return (self.kept.transpose(0, 1).flatten(0, 1),)


@functools.lru_cache(maxsize=16)
def places(total: int, cycles: int, keep: int, exploring: float) -> dict[int, int]:
    """Which place is kept after which step, where a run has enough steps for all of them.

    Args:
        total: steps of the run.
        cycles: number of cycles.
        keep: places kept of each.
        exploring: share of each cycle in which none is kept.
    """
    share = fraction(exploring)
    ends = []
    for place in range(cycles * keep):
        cycle, number = divmod(place, keep)
        within = share + (1 - share) * Fraction(number + 1, keep)
        end = math.ceil(total * (cycle + within) / cycles)
        # Rounding may make it a step later, which earlier versions did: that stays, where it fits.
        reached = max(0.0, (end * cycles - total * cycle) / total - exploring) / (1 - exploring)
        ends.append(end + (int(reached * keep) <= number))
    for place in reversed(range(len(ends) - 1)):
        ends[place] = min(ends[place], ends[place + 1] - 1)
    return {end: place for place, end in enumerate(ends)}


class _Chains(Optimizer):
    """The moves of the chains; the deterministic parameters go along without noise."""

    def __init__(
        self, chains: SGMCMC, learning_rate: float, noise_per_step: float, key: Key, total: int
    ) -> None:
        super().__init__(chains.parameters(), {"lr": learning_rate, "done": 0})
        self.chains, self.key, self.total = chains, key, total
        self.largest, self.noise_per_step = learning_rate, noise_per_step
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter]["speed"] = torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move all chains once."""
        chains, group = self.chains, self.param_groups[0]
        rate, done = group["lr"], group["done"]
        _, share = chains.progress(done, self.total)
        spread = math.sqrt(2 * chains.friction * rate * self.noise_per_step)
        for parameter in group["params"]:
            speed = self.state[parameter]["speed"]
            speed.mul_(1 - chains.friction).add_(parameter.grad, alpha=-rate)
            if parameter is chains.members and share >= chains.exploring:
                for index, own in enumerate(speed, chains.first):
                    generator = self.key.fold(done, index).generator(own.device)
                    own.add_(torch.empty_like(own).normal_(generator=generator), alpha=spread)
            parameter.add_(speed)
        group["done"] = done + 1
        _, share = chains.progress(done + 1, self.total)
        group["lr"] = self.largest * (1 + math.cos(math.pi * share)) / 2
