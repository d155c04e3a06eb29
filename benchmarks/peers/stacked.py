"""No library: the shortest way to write the step in torch, `torch.vmap` over stacked weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.functional import cross_entropy

from benchmarks.peers.common import Parameters, Step, adam, copied
from benchmarks.workloads import INIT_SCALE, Workload


def make_step(work: Workload, num_samples: int) -> Step:
    """Draws ``[S, ...]`` of every parameter, one vmapped forward pass, analytic KL, Adam.

    All parameters are Bayesian.
    """
    net = work.net()
    x, y = work.batch()
    means = {name: nn.Parameter(p.detach().clone()) for name, p in net.named_parameters()}
    log_scales = {
        name: nn.Parameter(torch.full_like(p, math.log(INIT_SCALE))) for name, p in means.items()
    }
    net.requires_grad_(False)
    optimizer = adam([*means.values(), *log_scales.values()])
    targets = y.expand(num_samples, -1).flatten()

    def predict(weights: dict[str, Tensor]) -> Tensor:
        return functional_call(net, weights, (x,))

    def train() -> Tensor:
        optimizer.zero_grad()
        weights, kl = {}, x.new_zeros(())
        for name, mean in means.items():
            scale = log_scales[name].exp()
            weights[name] = mean + scale * torch.randn(num_samples, *mean.shape)
            kl = kl + 0.5 * (mean.square() + scale.square() - 1).sum() - log_scales[name].sum()
        logits = vmap(predict)(weights)
        loss = cross_entropy(logits.flatten(0, 1), targets) + kl / work.num_data
        loss.backward()
        optimizer.step()
        return loss.detach()

    def parameters() -> Parameters:
        return {name: copied(mean, log_scales[name].exp()) for name, mean in means.items()}

    return Step(train, parameters)
