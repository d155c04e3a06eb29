"""Stochastic-gradient MCMC: chains that walk over the posterior with noisy gradients."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from spnb.maths.models import BayesianModel
from spnb.maths.posteriors.base import whole
from spnb.maths.posteriors.drawing import Key
from spnb.maths.posteriors.members import Members


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
        chains: M, number of chains.
        cycles: how often the step size starts anew.
        keep: how many places are kept of each cycle.
        exploring: share of each cycle that goes without noise, from 0 to below 1.
        friction: :math:`\alpha`, above 0 and at most 1; 1 less the momentum.
        seed: names where the other chains start.

    Attributes:
        members: where the chains are, ``[M, P]``.
        kept: the places, ``[M, K, P]`` with K = cycles × keep; sample s after training is place
            s // M of chain s % M, so that few samples come from all chains.
    """

    kept: Tensor

    def __init__(
        self,
        model: BayesianModel,
        chains: int = 4,
        cycles: int = 4,
        keep: int = 4,
        exploring: float = 0.5,
        friction: float = 0.1,
        seed: int = 0,
    ) -> None:
        for name, value in (("chains", chains), ("cycles", cycles), ("keep", keep)):
            whole(name, value, 1)
        if not 0 <= exploring < 1:
            raise ValueError(
                f"exploring={exploring} must be a share of a cycle, from 0 to below 1."
            )
        if not 0 < friction <= 1:
            raise ValueError(f"friction={friction} must be above 0 and at most 1, which is SGLD.")
        super().__init__(model, chains, seed)
        self.cycles, self.keep = cycles, keep
        self.exploring, self.friction = exploring, friction
        kept = torch.zeros(chains, cycles * keep, self.members.shape[1])
        self.register_buffer("kept", kept.to(self.members.detach()))

    def options(self) -> dict[str, Any]:
        """Numbers of chains, cycles, and places kept in each."""
        return {"chains": self.size, "cycles": self.cycles, "keep": self.keep}

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
        wanted, sampling = self.cycles * self.keep, (1 - self.exploring) * total
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
        before, after = (self._places(at, total) for at in (step - 1, step))
        if after > before:
            self.kept[:, after - 1] = self.members.detach()

    def _places(self, step: int, total: int) -> int:
        """How many places have been kept after a step."""
        cycle, share = self.progress(step, total)
        sampled = max(0.0, share - self.exploring) / (1 - self.exploring)
        return cycle * self.keep + int(sampled * self.keep)

    def prepare(self) -> tuple[Tensor]:
        """In training the chains ``[M, P]``; then all places, in the order of the samples."""
        if self.training:
            return super().prepare()
        return (self.kept.transpose(0, 1).flatten(0, 1),)


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
