"""Pyro: SVI with an automatic mean-field guide, all parameters Bayesian.

The model is the plain network as a `PyroModule` whose parameters are `PyroSample`, as in Pyro's
tutorials. Training is written in the way of the documentation of `pyro.infer.ELBO`: the loss is a
torch module and a torch optimiser updates its parameters, which is faster than `SVI.step` with its
one optimiser for each parameter. The loss is divided by the number of data, so that Adam sees
gradients of the usual size. Pyro's validation is switched off.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import ELBO, JitTrace_ELBO, Trace_ELBO
from pyro.infer.autoguide import AutoDiagonalNormal, AutoGuide, AutoNormal
from pyro.infer.autoguide.initialization import init_to_value
from pyro.nn import PyroModule, PyroSample
from pyro.nn.module import to_pyro_module_
from torch import Tensor, nn
from torch.func import functional_call, vmap

from benchmarks.peers.common import Parameters, Step, adam, copied
from benchmarks.workloads import INIT_SCALE, Workload


def make_step(work: Workload, num_samples: int) -> Step:
    """`AutoNormal` and `Trace_ELBO`: the particles are a loop in Pyro."""
    return step(work, OneParticle, AutoNormal, Trace_ELBO(num_samples), normals)


def make_step_vectorised(work: Workload, num_samples: int) -> Step:
    """`AutoNormal` and `Trace_ELBO(vectorize_particles=True)`, `torch.vmap` within the model.

    Pyro hands all particles of a weight to the model at once. A network does not know what to do
    with them, so the model of this variant evaluates it by `functional_call` under `torch.vmap`.
    """
    elbo = Trace_ELBO(num_samples, max_plate_nesting=1, vectorize_particles=True)
    return step(work, AllParticles, AutoNormal, elbo, normals)


def make_step_jit(work: Workload, num_samples: int) -> Step:
    """`AutoDiagonalNormal` and `JitTrace_ELBO`: one flat guide, compiled by `torch.jit.trace`.

    The fastest way that we found in Pyro. The guide is the same distribution as `AutoNormal`, all
    weights in one vector. It is compiled beforehand.
    """
    elbo = JitTrace_ELBO(num_samples, ignore_jit_warnings=True)
    return step(work, OneParticle, AutoDiagonalNormal, elbo, flat_normal)


@contextmanager
def quick(store: dict[str, Any]) -> Iterator[None]:
    """No validation, and a parameter store of its own, which the global one could mix up.

    Args:
        store: state of the parameter store, empty at first; updated.
    """
    scope = pyro.get_param_store().scope(store or None)
    with pyro.validation_enabled(False), scope as state:
        yield
    store.update(state)


class OneParticle(PyroModule):
    """The model: the network with a prior over all its parameters, and the likelihood."""

    def __init__(self, work: Workload) -> None:
        super().__init__()
        self.num_data = work.num_data
        net = work.net()
        self.start = {f"net.{name}": p.detach().clone() for name, p in net.named_parameters()}
        to_pyro_module_(net)
        for module in net.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                setattr(module, name, PyroSample(prior(parameter)))
        self.net = net

    def forward(self, x: Tensor, y: Tensor) -> None:
        """Draw the weights while the network runs, then score the classes."""
        observe(self.net(x), y, self.num_data)


class AllParticles(nn.Module):
    """The same model for weights ``[S, 1, ...]``, as the plate of all particles makes them."""

    def __init__(self, work: Workload) -> None:
        super().__init__()
        self.num_data = work.num_data
        self.net = work.net().requires_grad_(False)
        self.start = {f"net.{name}": p.clone() for name, p in self.net.named_parameters()}
        self.priors = {name: prior(p) for name, p in self.net.named_parameters()}

    def forward(self, x: Tensor, y: Tensor) -> None:
        """Draw all weights of all particles, run the network under vmap, score the classes."""
        weights = {name: pyro.sample(f"net.{name}", p) for name, p in self.priors.items()}
        shapes = {name: p.event_shape for name, p in self.priors.items()}
        if all(value.shape == shapes[name] for name, value in weights.items()):
            logits = functional_call(self.net, weights, (x,))  # the guide's look at the model
        else:
            stacked = {name: w.reshape(-1, *shapes[name]) for name, w in weights.items()}
            logits = vmap(lambda one: functional_call(self.net, one, (x,)))(stacked)
        observe(logits, y, self.num_data)


def prior(parameter: Tensor) -> dist.Distribution:
    """Normal(0, 1) for each element."""
    scalar = dist.Normal(torch.zeros(()), torch.ones(()))
    return scalar.expand(parameter.shape).to_event(parameter.dim())


def observe(logits: Tensor, y: Tensor, num_data: int) -> None:
    """The classes of a mini-batch, scaled up to the whole data set."""
    with pyro.plate("data", num_data, subsample=y):
        pyro.sample("y", dist.Categorical(logits=logits), obs=y)


def step(
    work: Workload,
    model_class: type[nn.Module],
    guide_class: type[AutoGuide],
    elbo: ELBO,
    parameters_of: Callable[[AutoGuide], Parameters],
) -> Step:
    """The training step of a model, a guide and an ELBO."""
    x, y = work.batch()
    store: dict[str, Any] = {}
    with quick(store):
        model = model_class(work)
        start = init_to_value(values=model.start)
        guide = guide_class(model, init_loc_fn=start, init_scale=INIT_SCALE)
        guide(x, y)  # makes its parameters
        loss_function = elbo(model, guide)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit, which Pyro builds on
            loss_function(x, y)  # compiles, if it is of that kind
        optimizer = adam(guide.parameters())

    def train() -> Tensor:
        with quick(store):
            optimizer.zero_grad()
            loss = loss_function(x, y) / work.num_data
            loss.backward()
            optimizer.step()
        return loss.detach()

    def parameters() -> Parameters:
        with quick(store):
            return parameters_of(guide)

    return Step(train, parameters)


def normals(guide: AutoNormal) -> Parameters:
    """Means and standard deviations of an `AutoNormal`."""
    sites = [name for name, _ in guide.prototype_trace.iter_stochastic_nodes()]
    return {site.removeprefix("net."): copied(*guide._get_loc_and_scale(site)) for site in sites}


def flat_normal(guide: AutoDiagonalNormal) -> Parameters:
    """Means and standard deviations of an `AutoDiagonalNormal`."""
    means = guide._unpack_latent(guide.loc)
    scales = guide._unpack_latent(guide.scale)
    return {
        site["name"].removeprefix("net."): copied(mean, scale)
        for (site, mean), (_, scale) in zip(means, scales, strict=True)
    }
