"""torch_blue, the library of the paper "Sampling Parallelism" (arXiv 2604.04736).

The plain network is converted by `convert_to_vimodule`, which keeps the `torch.nn.LayerNorm`
layers deterministic: the library's default, and its advice. All S samples are evaluated at once by
the library's own `torch.vmap`. Two things differ from the other peers, as the library documents
them:

- Its loss for classes, `Categorical`, is the negative logarithm of the *mean* probability over the
  samples, where the others take the mean of the negative logarithms. The time is the same. We
  divide the loss by the number of data, so that Adam sees gradients of the usual size.
- With the analytic KL divergence, the linear layers do not draw weights: they draw their outputs
  (local reparameterisation), by a second matrix product, for each row and token anew.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch_blue import vi
from torch_blue.vi.distributions import Categorical, MeanFieldNormal

from benchmarks.peers.common import Parameters, Step, adam, copied
from benchmarks.workloads import INIT_SCALE, Workload


def make_step(work: Workload, num_samples: int) -> Step:
    """KL divergence from the log-probabilities of the samples: `KullbackLeiblerLoss`."""
    net = converted(work)
    loss_function = vi.KullbackLeiblerLoss(Categorical(), dataset_size=work.num_data)
    return step(work, num_samples, net, net, loss_function)


def make_step_analytic(work: Workload, num_samples: int) -> Step:
    """Analytic KL divergence, sampled outputs: `AnalyticalKullbackLeiblerLoss`."""
    net = converted(work)
    loss_function = vi.AnalyticalKullbackLeiblerLoss(net, Categorical(), work.num_data)
    return step(work, num_samples, net, net, loss_function)


def converted(work: Workload) -> nn.Module:
    """The workload's network, made Bayesian by the library."""
    net = work.net()
    vi.convert_to_vimodule(
        net,
        keep_weights=True,
        variational_distribution=MeanFieldNormal(std=INIT_SCALE),
        prior=MeanFieldNormal(mean=0.0, std=1.0),
        kaiming_initialization=False,  # True would divide the scale by sqrt(fan-in)
    )
    return net


def step(
    work: Workload,
    num_samples: int,
    net: nn.Module,
    model: nn.Module,
    loss_function: nn.Module,
) -> Step:
    """The training step; `model` is `net`, or a wrapper around it."""
    x, y = work.batch()
    optimizer = adam(model.parameters())

    def train() -> Tensor:
        optimizer.zero_grad()
        loss = loss_function(model(x, samples=num_samples), y) / work.num_data
        loss.backward()
        optimizer.step()
        return loss.detach()

    return Step(train, lambda: parameters_of(net))


def parameters_of(net: nn.Module) -> Parameters:
    """Means and standard deviations; what the library left deterministic has none."""
    found: Parameters = {}
    for prefix, module in net.named_modules():
        if isinstance(module, vi.VIModule):
            for variable in module.random_variables or ():
                if module.variational_distribution[variable] is None:  # no bias
                    continue
                mean, log_scale = module.get_variational_parameters(variable)
                found[f"{prefix}.{variable}".lstrip(".")] = copied(mean, log_scale.exp())
        else:
            for name, value in module.named_parameters(prefix, recurse=False):
                found[name] = copied(value)
    return found
