"""A sketch: the layers themselves are cut (tensor parallelism), under the sample axis.

Along ``shard`` ranks hold parts of the *posterior* and gather each sample's weights. For a network
whose one sample is too large for a device, the network has to be cut as well: each rank keeps its
rows of the first layer and its columns of the second (Megatron-LM, arXiv 1909.08053), draws only
those, and what is sent are activations. Samples are shared as ever, by other ranks.

It takes forty lines beside what spnb has, since a sample's noise belongs to the sample: a rank
takes its elements of the noise of all weights, so the sample is the same however it is cut. The
gradient equals that of one process to rounding (``tests/run/test_tensor_parallel.py``). A sketch,
because a user's network has to be cut by hand; torch's ``parallelize_module`` could do that.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, softplus

import spnb
from spnb.maths.posteriors import noise
from spnb.parallel.collectives import Communicator


class SumOutputs(torch.autograd.Function):
    """The sum of all ranks' partial outputs; on the way back each takes the gradient as it is."""

    @staticmethod
    def forward(ctx: Any, partial: Tensor, comm: Communicator) -> Tensor:
        """Add up ``[B, C]``."""
        whole = partial.clone()
        comm.sum(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        """Every rank has formed the same loss of the sum."""
        return gradient, None


def own_elements(inputs: int, hidden: int, outputs: int, part: range) -> Tensor:
    """Which elements of the flat vector of weights a rank holds, in its own order.

    The vector is that of ``Sequential(Linear(inputs, hidden), Tanh(), Linear(hidden, outputs))``.

    Args:
        inputs: width of the input.
        hidden: width of the hidden layer.
        outputs: width of the output.
        part: the hidden units that belong to the rank.
    """
    every = torch.arange(hidden * inputs + hidden + outputs * hidden + outputs)
    first, bias, second, last = every.split([hidden * inputs, hidden, outputs * hidden, outputs])
    rows = first.view(hidden, inputs)[part.start : part.stop]
    columns = second.view(outputs, hidden)[:, part.start : part.stop]
    return torch.cat([rows.flatten(), bias[part.start : part.stop], columns.flatten(), last])


def gradient(
    posterior: spnb.MeanField, data: tuple[Tensor, Tensor], num_samples: int, seed: int, step: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The ELBO's gradient on one rank of a world of ``sample=2`` times two parts of the network.

    Args:
        posterior: of that network, with the prior Normal(0, 1); each rank uses its elements alone.
        data: the batch, which counts as the data set.
        num_samples: S, over all ranks.
        seed: the run's.
        step: index of the step.

    Returns:
        Which elements, and the gradients of their means and unconstrained scales.
    """
    x, y = data
    comm = Communicator.join(spnb.Layout(sample=2, data=2))  # ``data``: the two parts of a layer
    parts, samples = comm.along("data"), comm.along("sample")
    sites = posterior.model.drawn
    (hidden, inputs), outputs = sites[0].shape, sites[2].shape[0]
    half = hidden // 2
    at = own_elements(inputs, hidden, outputs, range(parts.rank * half, (parts.rank + 1) * half))
    loc, rho = (p.detach()[at].requires_grad_() for p in (posterior.loc, posterior.rho))
    key, whole = spnb.Key(seed).fold("weights", step), torch.empty_like(posterior.loc.detach())
    loss = loc.new_zeros(())
    for sample in comm.layout.tile(comm.rank, num_samples, 2).samples:
        noise.fill(whole, sample, key)
        weights = loc + softplus(rho) * whole[at]
        w1, b1, w2, b2 = weights.split([half * inputs, half, outputs * half, outputs])
        seen = torch.tanh(x @ w1.view(half, inputs).T + b1)
        partial = seen @ w2.view(outputs, half).T
        predictions = SumOutputs.apply(partial, parts) + b2
        loss = loss + cross_entropy(predictions, y) / num_samples
    if samples.rank == 0:
        scale = softplus(rho)
        divergence = ((loc.square() + scale.square() - 1) / 2 - scale.log()).sum()
        loss = loss + divergence / len(x)
    loss.backward()
    assert loc.grad is not None and rho.grad is not None
    for found in (loc.grad, rho.grad):
        samples.sum(found)
    return at, loc.grad, rho.grad
