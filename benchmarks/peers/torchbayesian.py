"""torchbayesian: the plain network within `BayesianModule`, all parameters Bayesian.

A parameter draws itself whenever the network reads it, so the S samples are S forward passes in a
loop. The KL divergence is the library's, analytic.
"""

from __future__ import annotations

import math

import torch
import torchbayesian.bnn as bnn
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.peers.common import Parameters, Step, adam, copied
from benchmarks.workloads import INIT_SCALE, Workload


def make_step(work: Workload, num_samples: int) -> Step:
    """S forward and backward passes in a loop, the analytic KL divergence once, Adam."""
    net = bnn.BayesianModule(
        work.net(), variational_posterior="pretrained_gaussian", prior="gaussian"
    )
    posteriors = {
        name: module
        for name, module in net.module.named_modules()
        if isinstance(module, bnn.VariationalPosterior)
    }
    with torch.no_grad():
        for posterior in posteriors.values():
            posterior.rho.fill_(math.log(math.expm1(INIT_SCALE)))  # its scale is softplus(rho)
    x, y = work.batch()
    optimizer = adam(net.parameters())

    def train() -> Tensor:
        optimizer.zero_grad()
        loss = net.kl_divergence() / work.num_data
        loss.backward()
        total = loss.detach()
        for _ in range(num_samples):
            loss = cross_entropy(net(x), y) / num_samples
            loss.backward()
            total += loss.detach()
        optimizer.step()
        return total

    def parameters() -> Parameters:
        return {plain_name(name): copied(p.mu, p.sigma) for name, p in posteriors.items()}

    return Step(train, parameters)


def plain_name(name: str) -> str:
    """``0.reparametrizations.weight.variational_posterior`` is ``0.weight`` of the plain net."""
    return name.replace("reparametrizations.", "").removesuffix(".variational_posterior")
