"""bayesian-torch: the plain network converted by `dnn_to_bnn`, reparameterised weights.

It makes the linear layers Bayesian and leaves the `torch.nn.LayerNorm` layers deterministic. The S
samples are S forward passes in a loop, as in the library's examples. Two things must be known:

- Its `get_kl_loss` adds up the *mean* KL divergence of each weight tensor, not the sum over its
  elements, so the prior counts far less than in the ELBO. The time is nearly the same, so the
  library is measured as it is.
- A layer draws its noise into one buffer and overwrites it at the next forward pass, behind
  autograd's back. With one backward pass after S forward passes all samples would use the last
  noise for the gradient of the scales. We call backward after each forward pass, which is correct.
"""

from __future__ import annotations

import math

import torch
from bayesian_torch.layers import LinearReparameterization
from bayesian_torch.models.dnn_to_bnn import dnn_to_bnn, get_kl_loss
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus

from benchmarks.peers.common import Parameters, Step, adam, copied
from benchmarks.workloads import INIT_SCALE, Workload

RHO = math.log(math.expm1(INIT_SCALE))  # softplus(RHO) = INIT_SCALE
PRIOR_PARAMETERS = {
    "prior_mu": 0.0,
    "prior_sigma": 1.0,
    "posterior_mu_init": 0.0,
    "posterior_rho_init": RHO,
    "type": "Reparameterization",
    "moped_enable": True,  # means start at the weights of the plain network
    "moped_delta": 0.1,
}


def make_step(work: Workload, num_samples: int) -> Step:
    """S forward and backward passes in a loop, the library's KL divergence once, Adam."""
    net = work.net()
    dnn_to_bnn(net, PRIOR_PARAMETERS)
    start_scales_alike(net)
    x, y = work.batch()
    optimizer = adam(net.parameters())

    def train() -> Tensor:
        optimizer.zero_grad()
        loss = get_kl_loss(net) / work.num_data
        loss.backward()
        total = loss.detach()
        for _ in range(num_samples):
            loss = cross_entropy(net(x), y) / num_samples
            loss.backward()
            total += loss.detach()
        optimizer.step()
        return total

    return Step(train, lambda: parameters_of(net))


@torch.no_grad()
def start_scales_alike(net: nn.Module) -> None:
    """All scales at INIT_SCALE: the conversion has made them a fraction of each weight."""
    for name, value in net.named_parameters():
        if name.rsplit(".", 1)[-1].startswith("rho_"):
            value.fill_(RHO)


def parameters_of(net: nn.Module) -> Parameters:
    """Means and standard deviations; what the library left deterministic has none."""
    found: Parameters = {}
    for prefix, module in net.named_modules():
        if isinstance(module, LinearReparameterization):
            found[f"{prefix}.weight"] = copied(module.mu_weight, softplus(module.rho_weight))
            if module.mu_bias is not None:
                found[f"{prefix}.bias"] = copied(module.mu_bias, softplus(module.rho_bias))
        else:
            for name, value in module.named_parameters(prefix, recurse=False):
                found[name] = copied(value)
    return found
