"""TyXe: `VariationalBNN` on Pyro, all parameters Bayesian.

Its defaults: `tyxe.guides.AutoNormal`, the KL divergence in closed form (computed for each particle
anew), the particles a loop in Pyro, `pyro.optim.Adam`. TyXe's loss is Pyro's, the number of data
times ours, to which Adam is blind. Pyro's validation is switched off.
"""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from typing import Any

import pyro.distributions as dist
import pyro.util
import torch
import tyxe
from pyro.infer import SVI, TraceMeanField_ELBO
from pyro.optim import Adam
from torch import Tensor

from benchmarks.peers.common import Parameters, Step, copied
from benchmarks.peers.pyro import quick
from benchmarks.workloads import INIT_SCALE, LEARNING_RATE, Workload

if not hasattr(pyro.util, "deep_getattr"):
    # TyXe's guide calls this helper, which Pyro has dropped since TyXe's last release.
    pyro.util.deep_getattr = lambda module, name: attrgetter(name)(module)


def make_step(work: Workload, num_samples: int) -> Step:
    """What `VariationalBNN.fit` does for each batch, without its loop over epochs."""
    x, y = work.batch()
    store: dict[str, Any] = {}
    with quick(store):
        net = work.net()
        start = tyxe.guides.PretrainedInitializer.from_net(net)
        bnn = tyxe.VariationalBNN(
            net,
            tyxe.priors.IIDPrior(dist.Normal(torch.zeros(()), torch.ones(()))),
            tyxe.likelihoods.Categorical(dataset_size=work.num_data),
            partial(tyxe.guides.AutoNormal, init_loc_fn=start, init_scale=INIT_SCALE),
        )
        bnn.net_guide(x)  # makes its parameters
        optimizer = Adam({"lr": LEARNING_RATE, "fused": True})
        svi = SVI(bnn.model, bnn.guide, optimizer, loss=TraceMeanField_ELBO(num_samples))

    def train() -> Tensor:
        with quick(store):
            return torch.tensor(svi.step((x,), y) / work.num_data)

    def parameters() -> Parameters:
        guide = bnn.net_guide
        with quick(store):
            return {
                name.removeprefix("net."): copied(guide.get_loc(name), guide.get_scale(name))
                for name, _ in guide.prototype_trace.iter_stochastic_nodes()
            }

    return Step(train, parameters)
