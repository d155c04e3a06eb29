"""What mini-batches add to the temperature of SG-MCMC: the equation of docs/methods.md."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from torch import nn

import spnb

ROWS, STEPS = 1000, 10_000


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "friction"), [(10, 0.2), (100, 1.0), (ROWS, 0.2)])
def test_minibatches_make_the_posterior_hotter(batch_size: int, friction: float) -> None:
    """The mean of N targets: its posterior has the variance T/N, the gradient of a row that of y.

    The chains walk so short a part of their only cycle that the step size stays what it is. All of
    them see the same rows, drawn anew at each step, so what is averaged is over steps.
    """
    rate, temperature = 0.02, 2.0
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(ROWS, generator=generator, dtype=torch.float64)
    y = 3 * (y - y.mean()) / y.std(correction=0)
    net = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(net.weight)
    model = spnb.BayesianModel(net, dist.Normal(0.0, 1.0), spnb.likelihoods.Normal(1.0))
    chains = spnb.SGMCMC(model, chains=16, exploring=0.0, friction=friction, cycles=1)
    chains.members.data.zero_()
    mover = chains.moves(rate, temperature / ROWS, spnb.Key(0), total=10**7)
    squares = []
    for _ in range(STEPS):
        batch = y[torch.randint(ROWS, (batch_size,), generator=generator)]
        seen = batch.mean() if batch_size < ROWS else 0.0  # of all rows: no noise of a batch
        chains.members.grad = chains.members.detach() - seen
        mover.step()
        squares.append(chains.members.detach().square().mean())
    found = torch.stack(squares[200:]).mean().item() * ROWS / temperature
    noise = 9.0 if batch_size < ROWS else 0.0
    excess = rate * noise * ROWS / (2 * friction * batch_size * temperature)
    assert found == pytest.approx(1 + excess, rel=0.1)
