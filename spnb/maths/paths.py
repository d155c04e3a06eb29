"""Which layers the inputs come to first, and which one makes the predictions, by a forward pass.

The order in which the layers of a net were made does not tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.hooks import RemovableHandle

from spnb.maths.models import BayesianModel


def layers_of_inputs(model: BayesianModel, x: Tensor, layers: Mapping[str, nn.Module]) -> list[str]:
    """Which of some layers the inputs reach without passing through another one of them.

    What an embedding looks up counts as an input. Where no layer can be seen to be reached, since
    the net cuts the gradient on the way, it is the one that is called first.

    Args:
        model: the model; its net is called once.
        x: a few inputs ``[b, ...]``.
        layers: the layers by name.
    """
    reached: set[str] = set()
    called: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def entered(module: nn.Module, args: Any, kwargs: Any) -> None:
            called.append(name)
            if any(isinstance(v, Tensor) and v.requires_grad for v in tree_leaves((args, kwargs))):
                reached.add(name)

        return entered

    x = x.detach().clone().requires_grad_(x.is_floating_point())
    values = model.unflatten(model.flatten(model.drawn), model.drawn)
    point = model.flatten(model.deterministic)
    with torch.enable_grad(), _hooks() as hooks, model.at(values, point) as predict:
        for module in model.net.modules():
            if isinstance(module, nn.Embedding | nn.EmbeddingBag):
                hooks.append(module.register_forward_hook(_as_inputs))
        for name, layer in layers.items():
            hooks.append(layer.register_forward_pre_hook(watch(name), with_kwargs=True))
            hooks.append(layer.register_forward_hook(_detached))
        predict(x)
    found = [name for name in layers if name in reached]
    return found or called[:1] or list(layers)[:1]


def layer_of_predictions(model: BayesianModel, x: Tensor) -> str:
    """Name of the layer whose outputs the predictions are made of.

    It is the one layer whose parameters reach them without passing through another layer. (Modules
    that hold others, and parameters of their own beside them, are not layers that one passes.)

    Args:
        model: the model; its net is called once.
        x: a few inputs ``[b, ...]``.

    Raises:
        ValueError: parameters of no layer do, or of several.
    """
    values = model.unflatten(model.flatten(model.drawn).requires_grad_(), model.drawn)
    drawn = {name: v for name, v in values.items() if not name.startswith("likelihood.")}
    values = {name: v if name in drawn else v.detach() for name, v in values.items()}
    layers = _layers(model.net)
    point = model.flatten(model.deterministic)
    with torch.enable_grad(), _hooks() as hooks, model.at(values, point) as predict:
        for layer in layers.values():
            hooks.append(layer.register_forward_pre_hook(_cut_off, with_kwargs=True))
        predictions = predict(x)
    ways: tuple[Tensor | None, ...] = (None,) * len(drawn)
    if predictions.requires_grad:
        ways = torch.autograd.grad(predictions.sum(), list(drawn.values()), allow_unused=True)
    reach = [name for name, way in zip(drawn, ways, strict=True) if way is not None]
    found = list(dict.fromkeys(_layer_of(name, layers) for name in reach))
    if len(found) == 1 and found[0] in layers:
        return found[0] + ".out_proj" * isinstance(layers[found[0]], nn.MultiheadAttention)
    if not found:
        raise ValueError(
            "weights='last': the layer that makes the predictions has no parameter with a prior. "
            f"Name others, such as weights={owners(drawn)[-1:]}."
        )
    raise ValueError(
        f"weights='last': the predictions are made of more than one layer, {_words(found)}. Name "
        f"those whose weights are to vary, such as weights={found}."
    )


def _layers(net: nn.Module) -> dict[str, nn.Module]:
    """Modules with parameters, and no module with parameters in them, by name."""
    found: dict[str, nn.Module] = {}
    for name, module in net.named_modules():
        inside = any(name.startswith(f"{layer}.") or not layer for layer in found)
        if inside or not list(module.parameters()):
            continue
        within = [
            child
            for path, child in module.named_modules()
            if path and "parametrizations" not in path.split(".") and list(child.parameters())
        ]
        if isinstance(module, nn.MultiheadAttention) or not within:  # attention calls no module
            found[name] = module
    return found


def _layer_of(parameter: str, layers: Mapping[str, nn.Module]) -> str:
    """The layer that a parameter belongs to; itself if it is one beside layers."""
    return next((n for n in layers if not n or parameter.startswith(f"{n}.")), parameter)


def layer_made_last(model: BayesianModel) -> str:
    """Name of the layer that the last parameter of the net with a prior belongs to.

    Args:
        model: the model.

    Raises:
        ValueError: no parameter of the net has a prior.
    """
    names = [site.name for site in model.drawn if not site.name.startswith("likelihood.")]
    if not names:
        raise ValueError("weights='last': no parameter of the net has a prior, only the noise has.")
    layer, parametrised, _ = f".{names[-1]}".partition(".parametrizations.")
    return (layer if parametrised else layer.rpartition(".")[0]).removeprefix(".")


def drawn_in(model: BayesianModel, layers: Iterable[str]) -> set[str]:
    """Names of the parameters with a prior that belong to some layers of a model's net.

    Args:
        model: the model.
        layers: names of modules, with all that is in them, or of parameters.

    Raises:
        ValueError: the net has no such layer, or it has no parameter with a prior.
    """
    drawn = {id(model.initial(site.name)): site.name for site in model.drawn}
    modules = dict(model.net.named_modules())
    parameters = dict(model.net.named_parameters(remove_duplicate=False))
    found = set()
    for layer in layers:
        if layer not in modules and layer not in parameters:
            known = owners(name for name in drawn.values() if not name.startswith("likelihood."))
            raise ValueError(f"weights: the net has no layer {layer!r}; it has {_words(known)}.")
        own = [parameters[layer]] if layer in parameters else modules[layer].parameters()
        of_layer = {drawn[id(parameter)] for parameter in own if id(parameter) in drawn}
        if not of_layer:
            raise ValueError(f"weights: no parameter of '{layer}' has a prior.")
        found |= of_layer
    return found


def owners(parameters: Iterable[str]) -> list[str]:
    """Names of the modules that some parameters belong to; of a parameter if that is the net."""
    found = []
    for name in parameters:
        layer, parametrised, _ = name.partition(".parametrizations.")
        found.append(layer if parametrised else name.rpartition(".")[0] or name)
    return list(dict.fromkeys(found))


def _words(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _detached(module: nn.Module, args: Any, outputs: Any) -> Any:
    """A forward hook after which nothing leads back to what was before."""
    return tree_map(lambda v: v.detach() if isinstance(v, Tensor) else v, outputs)


def _cut_off(module: nn.Module, args: Any, kwargs: Any) -> Any:
    """A hook before which nothing leads back."""
    return tree_map(lambda v: v.detach() if isinstance(v, Tensor) else v, (args, kwargs))


def _as_inputs(module: nn.Module, args: Any, outputs: Tensor) -> Tensor:
    """A forward hook after which the outputs are leaves, as inputs are."""
    return outputs.detach().requires_grad_()


@contextmanager
def _hooks() -> Iterator[list[RemovableHandle]]:
    """A list of hooks that are removed at the end."""
    hooks: list[RemovableHandle] = []
    try:
        yield hooks
    finally:
        for hook in hooks:
            hook.remove()
