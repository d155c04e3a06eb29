"""Which nets can be made Bayesian, and which cannot, with the reason.

One sample of the weights must be one function of the inputs, the same for each row of the batch,
whichever process evaluates it. A layer whose output for one row depends on the other rows, or on
random numbers that belong to no sample, breaks that.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.dropout import _DropoutNd


def refuse_unsupported(net: nn.Module) -> None:
    """Refuse a net that cannot be made Bayesian as it is.

    Tied parameters are drawn once. Buffers that the forward pass only reads are kept as they are.

    Raises:
        TypeError: not a `torch.nn.Module`.
        ValueError: no parameters, parameters of several kinds, BatchNorm, or active dropout.
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"net is a {type(net).__name__}, not a torch.nn.Module.")
    parameters = dict(net.named_parameters())
    if not parameters:
        raise ValueError(f"The net, a {type(net).__name__}, has no parameters to put a prior on.")
    kinds = {(str(p.dtype), str(p.device)) for p in parameters.values()}
    if len(kinds) > 1:
        raise ValueError(
            f"The net's parameters are of {len(kinds)} kinds, {sorted(kinds)}; bring them to one "
            "device and one precision with net.to(...)."
        )
    if any(name.startswith("likelihood.") for name in parameters):
        raise ValueError("The net has a child called 'likelihood'; rename it.")
    for name, module in net.named_modules():
        _refuse(name or type(net).__name__, module)


def _refuse(name: str, module: nn.Module) -> None:
    kind = type(module).__name__
    running = isinstance(module, _NormBase) and module.track_running_stats
    if isinstance(module, _BatchNorm) or running:
        raise ValueError(
            f"'{name}' is a {kind}: its output for one row depends on the other rows of the "
            "batch and its running statistics on every sample before, so no two layouts could "
            "agree. Use LayerNorm or GroupNorm."
        )
    rate = getattr(module, "p", 0) if isinstance(module, _DropoutNd) else 0
    if isinstance(module, nn.MultiheadAttention | nn.RNNBase):
        rate = module.dropout
    if rate:
        raise ValueError(
            f"'{name}' is a {kind} with dropout {rate:g}: its masks are random numbers that "
            "belong to no sample of the weights, so no two layouts could agree. Set it to 0; the "
            "prior regularises already."
        )


def check_forward(net: nn.Module, x: Tensor) -> Tensor:
    """Run the net once on a few rows and see that it is a plain function of them.

    Args:
        net: the network, with parameters of any values.
        x: a few rows of inputs ``[B, ...]``.

    Returns:
        The outputs ``[B, ...]``.

    Raises:
        ValueError: the forward pass changed a buffer, drew random numbers, or lost rows.
    """
    versions = {name: buffer._version for name, buffer in net.named_buffers()}
    before = torch.get_rng_state()
    with torch.no_grad():
        outputs = net(x)
    changed = [name for name, buffer in net.named_buffers() if buffer._version != versions[name]]
    if changed:
        raise ValueError(
            f"The forward pass changed the buffer '{changed[0]}': a sample would depend on those "
            "evaluated before it. Keep buffers constant."
        )
    if not torch.equal(before, torch.get_rng_state()):
        raise ValueError(
            "The forward pass drew random numbers of its own (functional dropout?); they belong "
            "to no sample of the weights, so no two layouts could agree. Take them out."
        )
    if not isinstance(outputs, Tensor) or outputs.dim() == 0 or len(outputs) != len(x):
        got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(
            f"The net made {got} of {len(x)} rows; it must give a tensor with one row an input."
        )
    return outputs
