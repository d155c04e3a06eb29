"""Which part of an object cannot be sent to another process, in one sentence."""

from __future__ import annotations

import contextlib
import inspect
import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any

from spnb.parallel.pool.pickling import can_travel

DEEPEST = 10


def explain(label: str, obj: Any, name: str, error: Exception) -> str:
    """Say what of an object cannot be pickled.

    Args:
        label: What the object is to the reader, such as ``argument 'data'``.
        obj: An object that failed to be pickled.
        name: How to write it in code.
        error: Why it failed.
    """
    path, part = _find(obj, name)
    if part is obj:
        return f"{label} cannot be sent: it is a {_kind(obj)}, which cannot be pickled ({error})."
    return f"{label} cannot be sent: {path} is a {_kind(part)}, which cannot be pickled."


def explain_call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception
) -> str:
    """Say what of a function or its arguments cannot be pickled."""
    if not can_travel(function):
        name = getattr(function, "__name__", type(function).__name__)
        return explain(f"the function {name!r}", function, name, error)
    names: dict[str, Any]
    try:
        names = dict(inspect.signature(function).bind(*args, **kwargs).arguments)
    except (TypeError, ValueError):  # it does not fit, or has no signature
        names = {f"args[{i}]": value for i, value in enumerate(args)} | kwargs
    for name, value in names.items():
        if not can_travel(value):
            return explain(f"argument {name!r}", value, name, error)
    return f"the call cannot be sent: {error}."


def _find(obj: Any, path: str) -> tuple[str, Any]:
    for _ in range(DEEPEST):
        for name, part in _parts(obj, path):
            if not can_travel(part):
                path, obj = name, part
                break
        else:
            break
    return path, obj


def _parts(obj: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Walk over what an object is made of, each with how to write it."""
    if isinstance(obj, dict):
        yield from ((f"{path}[{key!r}]", value) for key, value in obj.items())
    elif isinstance(obj, list | tuple | set | frozenset):
        yield from ((f"{path}[{i}]", value) for i, value in enumerate(obj))
    elif inspect.ismethod(obj):
        yield f"{path}.__self__", obj.__self__
    elif inspect.isfunction(obj):
        for name, cell in zip(obj.__code__.co_freevars, obj.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # it is empty: the name has no value yet
                yield name, cell.cell_contents
        yield from ((n, obj.__globals__[n]) for n in obj.__code__.co_names if n in obj.__globals__)
    elif not isinstance(obj, type | io.IOBase) and not _refuses(obj):
        attributes = getattr(obj, "__dict__", None)
        if isinstance(attributes, dict):
            yield from ((f"{path}.{name}", value) for name, value in attributes.items())


def _refuses(obj: Any) -> bool:
    """Whether an object does not want to be pickled, whatever it is made of."""
    try:
        obj.__reduce_ex__(pickle.DEFAULT_PROTOCOL)
    except Exception:
        return True
    return False


def _kind(obj: Any) -> str:
    kind = type(obj)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else (f"{kind.__module__}.{kind.__qualname__}")
    )
