"""posteriors: `vi.diag`, a normal for every parameter, S samples under the library's `torch.vmap`.

All parameters are Bayesian. The library estimates the KL divergence from log-densities of the
samples, by default without the score term ("sticking the landing"), and updates with the functional
Adam of torchopt.
"""

from __future__ import annotations

import math
import warnings

import torch
import torchopt
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from benchmarks.peers.common import Parameters, Step, copied
from benchmarks.workloads import INIT_SCALE, LEARNING_RATE, Workload

with warnings.catch_warnings():
    # tensordict announces a change of its 0.17 for every class of the library, a screenful.
    warnings.simplefilter("ignore", FutureWarning)
    import posteriors

Batch = tuple[Tensor, Tensor]


def make_step(work: Workload, num_samples: int) -> Step:
    """One update of `posteriors.vi.diag`, written as in the library's quickstart.

    Not with its option `inplace=True`, which is no faster to speak of and drops the state of the
    optimiser, so that Adam's correction of its bias stays that of the first step.
    """
    net = work.net()
    batch = work.batch()
    start = {name: value.detach().clone() for name, value in net.named_parameters()}
    net.requires_grad_(False)

    def log_posterior(weights: dict[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        x, y = batch
        logits = functional_call(net, weights, (x,))
        prior = posteriors.diag_normal_log_prob(weights)
        return -cross_entropy(logits, y) + prior / work.num_data, torch.tensor([])

    transform = posteriors.vi.diag.build(
        log_posterior,
        torchopt.adam(lr=LEARNING_RATE),
        temperature=1 / work.num_data,
        n_samples=num_samples,
        init_log_sds=math.log(INIT_SCALE),
    )
    state = transform.init(start)

    def train() -> Tensor:
        nonlocal state
        state, _ = transform.update(state, batch)
        return state.nelbo

    def parameters() -> Parameters:
        return {name: copied(state.params[name], state.log_sd_diag[name].exp()) for name in start}

    return Step(train, parameters)
