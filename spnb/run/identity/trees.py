"""Values described as trees of numbers and words, the same in every process."""

from __future__ import annotations

import functools
import hashlib
import json
import keyword
import math
import random
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent
from torch.distributions.transforms import Transform, _InverseTransform
from torch.optim.lr_scheduler import LRScheduler

from spnb.run import files
from spnb.run.identity import code
from spnb.run.identity.code import library, short_hash

Tree = Any
"""A number, a text or None; or a dict of trees by name, of which ``is`` says what it is of."""

KIND, CODE, SAYS, DIGEST, DOUBTFUL = "is", "()", "repr()", "#", "~"
"""Names in a tree that no attribute has: what it is, its code, what it says of itself, the digest
of its values, and what may well differ."""

LONGEST = 64
"""Elements of a list that are described one by one."""

_DEVICE = re.compile(r"(cpu|cuda|mps|xpu)(:\d+)?")
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_OF_EVERY_SCHEDULER = {"optimizer", "verbose", "_is_initial", "_get_lr_called_within_step"}
_SHARED_PARTS = ("base_dist", "transforms", "mixture_distribution", "component_distribution")


@dataclass(frozen=True)
class Made:
    """An object of which only some parts are to be described.

    Attributes:
        kind: its class.
        parts: those, by name.
    """

    kind: type
    parts: Mapping[str, Any]


def describe(**parts: Any) -> str:
    """Describe some values, each under its name, as a text for `compare`."""
    describer = Describer()
    trees = {name: describer.tree(value, name) for name, value in parts.items()}
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return json.dumps(
        {
            "parts": trees,
            "shared": describer.shared,
            "unknown": describer.unknown,
            "python": python,
        }
    )


class Describer:
    """Describes values.

    Attributes:
        shared: functions and classes of the user's that many values can refer to, by name.
        unknown: what cannot be looked into.
    """

    def __init__(self) -> None:
        self.shared: dict[str, Tree] = {}
        self.unknown: list[str] = []
        self._open: set[int] = set()
        self._names: dict[int, tuple[str, Any]] = {}  # with the value, lest its id is reused

    def tree(self, value: Any, path: str) -> Tree:
        """The description of a value, whatever it is."""
        if id(value) in self._open:
            return "itself"
        self._open.add(id(value))
        try:
            return _tree(value, self, path)
        except Exception:  # what it is made of can be anything: nothing of it may stop a run
            return self.none_of(value, path)
        finally:
            self._open.remove(id(value))

    def trees(
        self, values: Iterable[tuple[str, Any]], path: str, own: bool = False
    ) -> dict[str, Tree]:
        """Descriptions of several values, by name.

        Args:
            values: names and values.
            path: what they belong to.
            own: whether a user keeps them there. Then a bag of settings among them may differ: in
                what a program was called with there is much that decides nothing.
        """
        trees = {}
        for name, value in values:
            trees[name] = self.tree(value, join(path, name))
            if own and _is_bag(value):
                trees[name] = {KIND: "settings", DOUBTFUL: trees[name]}
        return trees

    def share(self, value: type | FunctionType) -> str:
        """The name under which a function or class is described, once for all."""
        if id(value) not in self._names:
            name = value.__qualname__
            while name in self.shared:
                name += "'"
            self._names[id(value)], self.shared[name] = (name, value), None
            self.shared[name] = (
                _class_body(value, self, name)
                if isinstance(value, type)
                else _tree(value, self, name)
            )
        return f"<{self._names[id(value)][0]}>"

    def none_of(self, value: Any, path: str) -> Tree:
        """That it is there, and no more."""
        self.unknown.append(path)
        return {KIND: self.kind(type(value))}

    def kind(self, kind: type) -> str:
        """Name of a class; in brackets if it is of the user's."""
        top = library(kind.__module__)
        return f"{top}.{kind.__qualname__}" if top else self.share(kind)


@functools.singledispatch
def _tree(value: Any, describer: Describer, path: str) -> Tree:
    """An object, by what pickle would write of it."""
    kind, own = type(value), describer.kind(type(value))
    reduced = value.__reduce_ex__(4)
    if isinstance(reduced, str):
        return {KIND: f"{own} {reduced}"}
    _, made_of, state, items, pairs = (*reduced, None, None, None)[:5]
    attributes: dict[str, Any] = {}
    for part in state if isinstance(state, tuple) else (state,):  # with slots there are two
        if isinstance(part, Mapping):
            attributes |= part
        elif part is not None:
            attributes["state"] = state
    top = library(kind.__module__)
    if top and top not in sys.stdlib_module_names:  # its workings are its own affair
        attributes = {name: part for name, part in attributes.items() if name[0] != "_"}
    attributes |= {f"[{n}]": part for n, part in enumerate(made_of) if part is not kind}
    attributes |= {f"[{n}]": part for n, part in enumerate(items or ())}
    attributes |= {_key(name): part for name, part in pairs or ()}
    found = describer.trees(attributes.items(), path, own=not top)
    if (text := _own_words(value)) is not None:
        return {KIND: own, SAYS: text, DOUBTFUL: {KIND: "state", **found}}
    if top and top not in {*sys.stdlib_module_names, "spnb", "torch", "pyro", "numpy"}:
        return {KIND: own, DOUBTFUL: {KIND: "state", **found}}
    return {KIND: own, **found}


def _is_bag(value: Any) -> bool:
    """Whether a value holds others and does nothing with them."""
    plain = _tree.dispatch(type(value)) is _tree.dispatch(object)
    return isinstance(value, Mapping) or (plain and not callable(value))


def _own_words(value: Any) -> str | None:
    """What an object of a plain class of the user's says of itself, if it says something."""
    classes = [each for each in type(value).__mro__ if each is not object]
    if any(library(each.__module__) for each in classes):
        return None
    if all("__repr__" not in vars(each) for each in classes):
        return None
    text = repr(value)
    return None if re.search(r"\b0x[0-9a-f]{4,}", text) else text


@_tree.register(type(None))
@_tree.register(bool | int | float | str)
def _(value: Any, describer: Describer, path: str) -> Tree:
    if isinstance(value, str) and _DEVICE.fullmatch(value):
        return describer.tree(torch.device(value), path)
    if isinstance(value, str) and len(value) > 200:
        return {KIND: "text", DIGEST: short_hash(value.encode())}
    return value


@_tree.register(bytes | complex | torch.dtype | range | slice | type(Ellipsis))
def _(value: Any, describer: Describer, path: str) -> Tree:
    return short_hash(value) if isinstance(value, bytes) else repr(value)


@_tree.register
def _(value: torch.device, describer: Describer, path: str) -> Tree:
    return "a device"  # which one does not matter


@_tree.register
def _(value: PurePath, describer: Describer, path: str) -> Tree:
    return {KIND: "a path", DOUBTFUL: {KIND: "state", "path": str(value)}}


@_tree.register(random.Random | np.random.Generator | np.random.RandomState | torch.Generator)
def _(value: Any, describer: Describer, path: str) -> Tree:
    return describer.none_of(value, path)  # it moves on with every number


@_tree.register
def _(value: Tensor, describer: Describer, path: str) -> Tree:
    if value.requires_grad:
        return "trained"
    kind = f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    found = hashlib.sha256()
    files.feed(found, value)
    tree: dict[str, Tree] = {KIND: kind, DIGEST: found.hexdigest()[:12]}
    if value.is_floating_point():  # to tell another order of a sum from other numbers
        square = turned = 0.0
        for part in value.detach().flatten().split(2**20):
            numbers = part.cpu().double()
            square += numbers.square().sum().item()
            turned += (numbers @ torch.arange(len(part)).double().cos()).item()
        tree |= {"norm": math.sqrt(square), "turned": turned}
    return tree


@_tree.register(np.ndarray | np.generic)
def _(value: Any, describer: Describer, path: str) -> Tree:
    if isinstance(value, np.generic):
        return describer.tree(value.item(), path)
    numeric = value.dtype.kind in "bifu"
    return describer.tree(torch.as_tensor(value) if numeric else value.tolist(), path)


@_tree.register(list | tuple | set | frozenset)
def _(value: Any, describer: Describer, path: str) -> Tree:
    unordered = isinstance(value, set | frozenset)
    kind = "set" if unordered else "list" if isinstance(value, list) else "tuple"
    found = [describer.tree(each, f"{path}[{n}]") for n, each in enumerate(value)]
    if unordered:
        found.sort(key=json.dumps)
    if len(found) > LONGEST:
        return {KIND: f"{kind} of {len(found)}", DIGEST: short_hash(json.dumps(found).encode())}
    return {KIND: kind, **{f"[{n}]": each for n, each in enumerate(found)}}


@_tree.register
def _(value: Mapping, describer: Describer, path: str) -> Tree:  # type: ignore[type-arg]
    return {KIND: "dict", **describer.trees(((_key(k), v) for k, v in value.items()), path)}


@_tree.register
def _(value: Made, describer: Describer, path: str) -> Tree:
    return {KIND: describer.kind(value.kind), **describer.trees(value.parts.items(), path)}


@_tree.register
def _(value: ModuleType, describer: Describer, path: str) -> Tree:
    return value.__name__


@_tree.register
def _(value: type, describer: Describer, path: str) -> Tree:
    return describer.kind(value)


@_tree.register
def _(value: BuiltinFunctionType, describer: Describer, path: str) -> Tree:
    of = value.__self__
    if of is None or isinstance(of, ModuleType):
        return f"{value.__module__}.{value.__qualname__}"
    return {KIND: value.__qualname__, "of": describer.tree(of, path)}


@_tree.register
def _(value: MethodType, describer: Describer, path: str) -> Tree:
    parts = [(CODE, value.__func__), ("of", value.__self__)]
    return {KIND: "method", **describer.trees(parts, path)}


@_tree.register
def _(value: functools.partial, describer: Describer, path: str) -> Tree:  # type: ignore[type-arg]
    parts = [(CODE, value.func), *((f"[{n}]", each) for n, each in enumerate(value.args))]
    return {KIND: "partial", **describer.trees([*parts, *value.keywords.items()], path)}


@_tree.register(functools._lru_cache_wrapper | functools.cached_property)
def _(value: Any, describer: Describer, path: str) -> Tree:
    return describer.tree(getattr(value, "__wrapped__", None) or value.func, path)


@_tree.register
def _(value: FunctionType, describer: Describer, path: str) -> Tree:
    bound = dict(code.bound(value))
    if top := library(value.__globals__.get("__name__")):
        name = f"{top}.{value.__qualname__}"
        return {KIND: name, **describer.trees(bound.items(), path)} if bound else name
    words = f"#{code.digest(value.__code__, value.__doc__)}"
    found = {KIND: "function", CODE: words, **describer.trees(bound.items(), path, own=True)}
    for name, used in code.used(value):
        if isinstance(used, FunctionType) and not library(used.__globals__.get("__name__")):
            found[name] = describer.share(used)
        elif name not in found:
            found |= describer.trees([(name, used)], path, own=True)
    return found


@_tree.register
def _(value: nn.Module, describer: Describer, path: str) -> Tree:
    """A module by its settings, constants and parts; parameters that are trained by name alone."""
    value = getattr(value, "_orig_mod", value)  # of `torch.compile`
    own, top = vars(value), library(type(value).__module__)
    hooks = [*own["_forward_pre_hooks"].values(), *own["_forward_hooks"].values()]
    # What weight_norm and pruning compute anew before each call.
    passing = {getattr(hook, name, None) for hook in hooks for name in ("name", "_tensor_name")}
    settings = {
        name: each
        for name, each in own.items()
        if name not in _OF_EVERY_MODULE | passing and not (top and name[0] == "_")
    }
    settings |= {f"hook[{n}]": hook for n, hook in enumerate(hooks)}
    for kind in ("_parameters", "_buffers", "_modules"):
        settings |= own[kind]
    found = describer.trees(settings.items(), path, own=not top)
    return {KIND: describer.kind(type(value)), **found}


@_tree.register
def _(value: Distribution, describer: Describer, path: str) -> Tree:
    """A distribution by its family and parameters; which shape they have is the sites' affair."""
    if isinstance(value, Independent):
        return describer.tree(value.base_dist, path)
    names = set(value.arg_constraints)
    if "probs" in names:  # several names of one thing, of which some come and go
        names.discard("logits")
    if "scale_tril" in names:
        names -= {"covariance_matrix", "precision_matrix"}
    parts = {name: _of_one_value(getattr(value, name)) for name in sorted(names)}
    parts = parts or {name: getattr(value, name) for name in _SHARED_PARTS if hasattr(value, name)}
    return {KIND: describer.kind(type(value)), **describer.trees(parts.items(), path)}


def _of_one_value(value: Any) -> Any:
    """The number that a tensor consists of, if there is but one."""
    if not isinstance(value, Tensor) or not value.numel():
        return value
    own = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in value.stride())
    part = value.detach()[own].flatten()
    return part[0].item() if bool((part == part[0]).all()) else value


@_tree.register
def _(value: Transform, describer: Describer, path: str) -> Tree:
    own = {name: each for name, each in vars(value).items() if name[0] != "_"}
    if isinstance(value, _InverseTransform):
        own["inv"] = value.inv
    return {KIND: describer.kind(type(value)), **describer.trees(own.items(), path)}


@_tree.register
def _(value: LRScheduler, describer: Describer, path: str) -> Tree:
    own = {n: each for n, each in vars(value).items() if n not in _OF_EVERY_SCHEDULER}
    return {KIND: describer.kind(type(value)), **describer.trees(own.items(), path)}


def _class_body(kind: type, describer: Describer, path: str) -> Tree:
    """What the classes of the user's among the bases of a class define, but how it is set up."""
    found: dict[str, Tree] = {KIND: "class"}
    for base in reversed([each for each in kind.__mro__ if not library(each.__module__)]):
        for name, value in vars(base).items():
            inner = getattr(value, "fget", None) or getattr(value, "__func__", None) or value
            data = not isinstance(inner, FunctionType)
            if name == "__init__" or (data and name.startswith(("__", "_abc"))):
                continue
            found[name] = describer.tree(inner, join(path, name))
    return found


def _key(key: Any) -> str:
    plain = isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key)
    return key if plain else f"[{key!r}]"


def join(path: str, name: str) -> str:
    """The path of a part."""
    if name in (CODE, SAYS, DOUBTFUL):
        return path
    return path + name if name[0] == "[" else f"{path}.{name}"
