"""Hamiltonian Monte Carlo by Pyro's NUTS, its chains spread over the ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyro.infer import MCMC, NUTS
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from torch import Tensor

from spnb.maths.models import BayesianModel
from spnb.maths.posteriors import Draws, Point
from spnb.maths.posteriors.members import starts
from spnb.maths.potential import potential
from spnb.parallel import progress
from spnb.parallel.arguments import whole
from spnb.parallel.collectives import Communicator
from spnb.parallel.keyed import Key
from spnb.parallel.layout import Layout
from spnb.run import checks, inputs
from spnb.run.place import placed


@dataclass(frozen=True)
class Chains:
    """What the chains found, and how far it may be trusted.

    Attributes:
        posterior: all draws, in random order, so that the first few stand for all.
        r_hat: split Gelman–Rubin statistic of each weight, ``[P]``: near 1 where the chains agree.
            In a neural network many weights mean the same, and chains that agree on every
            prediction need not agree on the weights.
        effective: how many independent draws those of each weight are worth, ``[P]``.
        divergent: how many draws came by a path that the integrator could not follow.
    """

    posterior: Draws
    r_hat: Tensor
    effective: Tensor
    divergent: int


def nuts(
    model: BayesianModel,
    data: Sequence[Any],
    *,
    num_chains: int = 4,
    num_samples: int = 100,
    warmup: int = 200,
    layout: Layout | None = None,
    seed: int = 0,
    max_tree_depth: int = 8,
) -> Chains:
    """Sample a model's posterior by the No-U-Turn sampler (Hoffman and Gelman, arXiv 1111.4246).

    A chain cannot be cut, so the ranks of a layout share the chains, along whatever axis they are
    laid out, and each gives the same draws on every layout. For models of at most a few thousand
    weights and rows: every step looks at all the data, up to ``2**max_tree_depth`` times.

    Args:
        model: the model; all of its parameters have a prior. Chain 0 starts at the values that
            its net holds, the others where its modules initialise themselves anew.
        data: inputs ``[N, ...]`` and targets ``[N, ...]``, the same on every rank.
        num_chains: number of chains, over all ranks.
        num_samples: draws kept of each chain, at least 4.
        warmup: steps of each chain in which it adapts, before those.
        layout: the ranks; None: this process runs all chains.
        seed: names all random numbers.
        max_tree_depth: a path doubles at most so many times.

    Returns:
        The draws of all chains, the same on every rank.

    Raises:
        ValueError: bad numbers, shapes or data, more ranks than chains, or a parameter without a
            prior.
    """
    num_chains, num_samples = whole("num_chains", num_chains), whole("num_samples", num_samples)
    warmup, max_tree_depth = whole("warmup", warmup), whole("max_tree_depth", max_tree_depth)
    seed = whole("seed", seed, None)
    if num_samples < 4:
        raise ValueError(f"num_samples={num_samples} must be at least 4, to compare halves.")
    if not isinstance(model, BayesianModel):
        raise TypeError(f"model is a {type(model).__name__}; give a spnb.BayesianModel.")
    if model.deterministic:
        raise ValueError(
            f"{', '.join(repr(site.name) for site in model.deterministic)} without a prior: NUTS "
            "samples all parameters or none. Give each a prior, or a likelihood with fixed noise."
        )
    point = placed(Point(model))
    x, y = inputs.data_set(point, data)
    _, y = inputs.probe(point, x, y)
    like = next(point.parameters())
    checks.net(point, inputs.few_rows(x).to(like.device), within=False)
    comm = Communicator.join(layout)
    if comm.size > num_chains:
        raise ValueError(
            f"{comm.size} ranks but num_chains={num_chains}: a chain cannot be cut; ask for at "
            "least one a rank."
        )
    comm = Communicator.join(None if layout is None else Layout(sample=comm.size))
    own = comm.layout.tile(comm.rank, num_chains, 1).samples
    # Drawn where the model is: a GPU would initialise the net with other numbers.
    start = starts(model, num_chains, seed).to(next(point.parameters()).device)
    energy = potential(point.model, x.to(start.device), y.to(start.device))
    total, done = len(own) * (warmup + num_samples), 0

    def report(kernel: NUTS, values: Any, stage: str, i: int) -> None:
        nonlocal done
        done += 1
        progress.report(done, total, samples=len(own))

    chains, divergent = [], 0
    for index in own:
        kernel = NUTS(potential_fn=energy, max_tree_depth=max_tree_depth)
        chain = MCMC(
            kernel, num_samples, warmup, {"w": start[index]}, hook_fn=report, disable_progbar=True
        )
        with torch.random.fork_rng():
            torch.manual_seed(Key(seed).fold("nuts", index).generator().initial_seed())
            chain.run()
        chains.append(chain.get_samples()["w"])
        divergent += len(chain.diagnostics()["divergences"]["chain 0"])
    sizes = comm.layout.sizes("sample", num_chains)
    draws = comm.gather(torch.stack(chains), "sample", 0, sizes)  # [chains, samples, P]
    trouble = torch.tensor(float(divergent), device=start.device)
    comm.sum(trouble)
    order = torch.randperm(num_chains * num_samples, generator=Key(seed).fold("order").generator())
    posterior = Draws(point.model, draws.flatten(0, 1)[order.to(draws.device)]).eval()
    return Chains(posterior, split_gelman_rubin(draws), effective_sample_size(draws), int(trouble))
