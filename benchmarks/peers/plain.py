"""The unit of the comparison: S plain forward and backward passes of the same network.

Nothing is Bayesian and nothing is updated: this is the least that a step with S samples can cost
when the samples are evaluated one after another.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.peers.common import Parameters, Step, copied
from benchmarks.workloads import Workload


def make_step(work: Workload, num_samples: int) -> Step:
    """S passes in a loop: cross-entropy, gradients dropped before each, no optimiser."""
    net = work.net()
    x, y = work.batch()

    def train() -> Tensor:
        for _ in range(num_samples):
            net.zero_grad(set_to_none=True)
            loss = cross_entropy(net(x), y)
            loss.backward()
        return loss.detach()

    def parameters() -> Parameters:
        return {name: copied(value) for name, value in net.named_parameters()}

    return Step(train, parameters)
