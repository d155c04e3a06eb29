"""The classic mistakes of sampling parallelism, to be made on purpose.

Each is silent: nothing crashes, the loss falls. `measure` computes the gradient of the negative
ELBO with such a mistake built in, really, on the live ranks of a pool or one rank after the other
in this process, and holds it against the serial one of `spnb.gradients`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from spnb.maths.posteriors import Posterior
from spnb.parallel.keyed import Key
from spnb.parallel.layout import share
from spnb.parallel.pool import WorkerPool
from spnb.run.training import gradients

MISTAKES = {
    "same_seed": "same seed everywhere",
    "sum_for_mean": "sum for mean",
    "kl_twice": "KL on every rank",
    "lost": "integer division",
}
"""The mistakes that can be built in: the switch's name, and what stands on it."""

ROUNDING = 1e-12
"""Largest difference, relative to the largest entry, that float64 rounding can explain."""

Data = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Reading:
    """A serial gradient and a parallel one.

    Attributes:
        serial: of all trained parameters, as one vector.
        parallel: likewise.
        sizes: how many entries belong to which parameter, by name and in order.
        live: whether ranks of a pool computed the parallel one.
    """

    serial: Tensor
    parallel: Tensor
    sizes: dict[str, int]
    live: bool

    @property
    def difference(self) -> float:
        """Largest absolute difference of two entries."""
        return (self.parallel - self.serial).abs().max().item()

    @property
    def equal(self) -> bool:
        """Whether rounding explains the difference."""
        return self.difference <= ROUNDING * max(1.0, self.serial.abs().max().item())


def contribution(
    posterior: Posterior,
    data: Data,
    num_samples: int,
    seed: int,
    rank: int,
    world_size: int,
    mistakes: Sequence[str] = (),
) -> Tensor:
    """One rank's part of the gradient of the negative ELBO, to be summed over the ranks.

    Args:
        posterior: the posterior, with a divergence that is known in closed form.
        data: the batch ``(x, y)``; it counts as the data set.
        num_samples: S, over all ranks.
        seed: the run's seed.
        rank: which rank's part.
        world_size: how many ranks share the samples.
        mistakes: which of `MISTAKES` to make.

    Returns:
        Gradient of all trained parameters as one vector.
    """
    x, y = data
    mine = share(num_samples, world_size, rank)
    divisor = num_samples
    kl_share = 1 / world_size
    if "lost" in mistakes:  # what does not divide evenly is forgotten
        each = max(1, num_samples // world_size)
        mine, divisor = range(rank * each, (rank + 1) * each), each * world_size
    if "sum_for_mean" in mistakes:  # a mean over one's own samples, then a sum over the ranks
        divisor = len(mine)
    if "kl_twice" in mistakes:  # each rank adds the whole divergence
        kl_share = 1.0
    if "same_seed" in mistakes:  # each rank starts counting, and drawing, at the same place
        mine = range(len(mine))
    key = Key(seed).fold("weights", 0)
    prepared = posterior.prepare()
    weights = posterior.draw(mine, key, prepared)
    predictions = posterior.model.predict(weights, posterior.point, x)
    log_likelihood = posterior.model.likelihood.log_likelihood(predictions, y)
    data_term = -log_likelihood.mean(1).sum() / divisor
    loss = data_term + kl_share * posterior.divergence(prepared) / len(x)
    parts = torch.autograd.grad(loss, list(posterior.parameters()))
    return torch.cat([part.flatten() for part in parts])


def on_this_rank(
    posterior: Posterior, data: Data, num_samples: int, seed: int, mistakes: Sequence[str]
) -> Tensor:
    """What each rank of a pool runs: its own part, then one sum over all of them."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    gradient = contribution(posterior, data, num_samples, seed, rank, world_size, mistakes)
    dist.all_reduce(gradient)
    return gradient


def measure(
    posterior: Posterior,
    data: Data,
    *,
    num_samples: int = 8,
    seed: int = 0,
    mistakes: Sequence[str] = (),
    ranks: int = 2,
    pool: WorkerPool | None = None,
) -> Reading:
    """Compute the gradient serially and in parallel, with or without mistakes.

    Args:
        posterior: the posterior, in float64.
        data: the batch ``(x, y)``.
        num_samples: S, over all ranks.
        seed: the run's seed.
        mistakes: names of `MISTAKES` to make.
        ranks: number of ranks, where no pool is given.
        pool: the live ranks to compute on; once it is closed, this process takes their place.

    Raises:
        ValueError: an unknown mistake.
    """
    for name in mistakes:
        if name not in MISTAKES:
            raise ValueError(f"'{name}' is none of {', '.join(MISTAKES)}.")
    reference = gradients(posterior, data, num_samples=num_samples, seed=seed)
    serial = torch.cat([part.flatten() for part in reference.values()])
    sizes = {name: part.numel() for name, part in reference.items()}
    if pool is None or pool.closed:
        ranks = ranks if pool is None else pool.size
        parts = [
            contribution(posterior, data, num_samples, seed, rank, ranks, mistakes)
            for rank in range(ranks)
        ]
        return Reading(serial, torch.stack(parts).sum(0), sizes, live=False)
    results = pool.run(on_this_rank, posterior, data, num_samples, seed, mistakes)
    return Reading(serial, results[0], sizes, live=True)
