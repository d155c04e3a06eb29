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
from torch.nn.parameter import is_lazy
from torch.nn.utils.weight_norm import WeightNorm

ROWS_ALIKE = {torch.float32: 1e-4, torch.float64: 1e-9}
"""By how much of the largest output rounding may change a row when others stand beside it."""


def refuse_unsupported(net: nn.Module) -> None:
    """Refuse a net that cannot be made Bayesian as it is.

    Tied parameters are drawn once. Buffers that the forward pass only reads are kept as they are.

    Raises:
        TypeError: not a `torch.nn.Module`, or one of TorchScript.
        ValueError: no parameters, all of them frozen, parameters of several kinds or of half
            precision, lazy ones, BatchNorm, or active dropout.
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"net is a {type(net).__name__}, not a torch.nn.Module.")
    if isinstance(net, torch.jit.ScriptModule):
        raise TypeError(
            f"net is a {type(net).__name__}: TorchScript keeps its parameters where no sample can "
            "take their place. Give the module that it was made of; torch.compile works."
        )
    parameters = dict(net.named_parameters())
    if not parameters:
        raise ValueError(f"The net, a {type(net).__name__}, has no parameters to put a prior on.")
    if lazy := [name for name, parameter in parameters.items() if is_lazy(parameter)]:
        raise ValueError(
            f"'{lazy[0]}' is of a lazy module, whose shape is not known yet: call net(x[:2]) once "
            "before making it Bayesian."
        )
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise ValueError(
            f"All {len(parameters)} parameters of the net are frozen (requires_grad=False): there "
            "is nothing to learn. Unfreeze some with net.requires_grad_(True)."
        )
    kinds = {(str(p.dtype), str(p.device)) for p in parameters.values()}
    if len(kinds) > 1:
        raise ValueError(
            f"The net's parameters are of {len(kinds)} kinds, {sorted(kinds)}; bring them to one "
            "device and one precision with net.to(...)."
        )
    refuse_half_precision(next(iter(parameters.values())).dtype)
    if any(name.startswith("likelihood.") for name in parameters):
        raise ValueError("The net has a child called 'likelihood'; rename it.")
    for name, module in net.named_modules():
        _refuse(name or type(net).__name__, module)


def refuse_half_precision(dtype: torch.dtype) -> None:
    """Refuse parameters in which the small steps of a posterior's scales would be lost.

    Raises:
        ValueError: neither float32 nor float64.
    """
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"The net's parameters are {dtype}: a posterior needs float32 or float64, since scales "
            "move by less than half precision can tell. Convert the net with net.float()."
        )


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
    if any(isinstance(hook, WeightNorm) for hook in module._forward_pre_hooks.values()):
        raise ValueError(
            f"'{name}' has torch.nn.utils.weight_norm, which is deprecated and cannot be copied: "
            "use torch.nn.utils.parametrizations.weight_norm."
        )


def padding_rows(net: nn.Module) -> dict[str, Tensor]:
    """Rows of embeddings that stand for padding and never get a gradient.

    Returns:
        By the name of each trained weight that has one, which of its rows they are, ``[V, 1]``.
        Weights that other layers use as well are left out: there the row gets a gradient.
    """
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    found: dict[str, Tensor] = {}
    others = set()
    for module in net.modules():
        for parameter in module.parameters(recurse=False):
            name = names[id(parameter)]
            index = getattr(module, "padding_idx", None)
            if not isinstance(module, nn.Embedding | nn.EmbeddingBag) or index is None:
                others.add(name)
            elif parameter.requires_grad:
                found[name] = torch.zeros(len(parameter), 1, dtype=torch.bool)
                found[name][index] = True
    return {name: rows for name, rows in found.items() if name not in others}


def check_indices(net: nn.Module, x: Tensor) -> None:
    """See that whole numbers which a net looks up in an embedding are all in its table.

    Args:
        net: the network, which takes x.
        x: all inputs ``[N, ...]``.

    Raises:
        ValueError: some are not.
    """
    found: list[int] = []

    def look(module: nn.Module, args: tuple[object, ...]) -> None:
        if isinstance(args[0], Tensor) and args[0].data_ptr() == rows.data_ptr():
            found.append(module.num_embeddings)  # type: ignore[arg-type]

    rows = x[:1].to(next(net.parameters()).device)
    tables = [m for m in net.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)]
    hooks = [module.register_forward_pre_hook(look) for module in tables]
    try:
        if tables:
            _forward(net, rows)
    finally:
        for hook in hooks:
            hook.remove()
    least, most = (int(x.min()), int(x.max())) if found else (0, 0)
    if found and (least < 0 or most >= min(found)):
        raise ValueError(
            f"x holds numbers from {least} to {most}, and the embedding has rows 0 to "
            f"{min(found) - 1} only."
        )


def check_forward(net: nn.Module, x: Tensor) -> Tensor:
    """Run the net on a few rows and see that it is a plain function of each of them.

    Args:
        net: the network, with parameters of any values.
        x: a few rows of inputs ``[B, ...]``, as different as they come.

    Returns:
        The outputs ``[B, ...]``.

    Raises:
        ValueError: the forward pass does not take the rows, changed them or a buffer, drew random
            numbers, lost rows, or mixed them.
    """
    kind, version = type(net).__name__, x._version
    versions = {name: buffer._version for name, buffer in net.named_buffers()}
    before = torch.get_rng_state()
    outputs = _forward(net, x)
    changed = [name for name, buffer in net.named_buffers() if buffer._version != versions[name]]
    if changed:
        raise ValueError(
            f"The forward pass changed the buffer '{changed[0]}': a sample would depend on those "
            "evaluated before it. Keep buffers constant; net.eval() does so for spectral_norm."
        )
    if x._version != version:
        raise ValueError(
            f"The forward pass of the {kind} wrote into its input, which the next sample would "
            "read: have it work on x.clone()."
        )
    if not torch.equal(before, torch.get_rng_state()):
        raise ValueError(
            "The forward pass drew random numbers of its own (functional dropout?); they belong "
            "to no sample of the weights, so no two layouts could agree. Take them out."
        )
    _check_rows(outputs, len(x))
    half = len(x) // 2
    for rows in (x[half:], x[-1:]):
        alone = _forward(net, rows)
        _check_rows(alone, len(rows))
        together = outputs[-len(rows) :]
        if alone.shape[1:] != together.shape[1:] or not _alike(alone, together):
            again = _forward(net, x)
            if not torch.equal(again.nan_to_num(), outputs.nan_to_num()):
                raise ValueError(
                    f"The {kind} gives other outputs each time it is called with the same rows: "
                    "one sample of the weights must be one function of its input."
                )
            raise ValueError(
                f"The {kind} mixes the rows of a batch: {len(rows)} of {len(x)} rows evaluated "
                "apart get other outputs than among the rest, so predictions would depend on the "
                "batch and no two layouts could agree. Recurrent and attention layers need "
                "batch_first=True; normalise over features, not over the batch."
            )
    return outputs


def _forward(net: nn.Module, x: Tensor) -> Tensor:
    try:
        with torch.no_grad():
            outputs: Tensor = net(x)
    except Exception as error:
        raise ValueError(
            f"The {type(net).__name__} cannot evaluate x, {len(x)} rows of shape "
            f"{tuple(x.shape[1:])} and type {x.dtype}: see the error above."
        ) from error
    return of_rows(outputs, len(x)) if isinstance(outputs, Tensor) else outputs


def of_rows(outputs: Tensor, rows: int) -> Tensor:
    """Outputs ``[B, ...]``, also of a net that squeezes the dimension of a single row away."""
    return outputs.unsqueeze(0) if rows == 1 and outputs.shape[:1] != (1,) else outputs


def _check_rows(outputs: Tensor, rows: int) -> None:
    if not isinstance(outputs, Tensor):
        raise ValueError(
            f"The net made a {type(outputs).__name__} of {rows} rows; it must give a tensor with "
            "one row an input: have forward return that alone."
        )
    if outputs.dim() == 0 or len(outputs) != rows:
        raise ValueError(
            f"The net made {tuple(outputs.shape)} of {rows} rows; it must give a tensor with one "
            "row an input."
        )


def _alike(some: Tensor, others: Tensor) -> bool:
    """Whether two evaluations agree but for rounding."""
    if not some.is_floating_point():
        return torch.equal(some, others)
    most = others.detach().abs().nan_to_num().max() if others.numel() else 0.0
    tolerance = ROWS_ALIKE.get(some.dtype, 1e-2) * float(most)
    return torch.allclose(some, others, rtol=0.0, atol=tolerance, equal_nan=True)
