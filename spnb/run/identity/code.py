"""Functions and classes as what they do: their code, and the values that it refers to."""

from __future__ import annotations

import dis
import functools
import hashlib
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any


def bound(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Values that belong to a function: of its defaults, and of the variables it encloses."""
    code, defaults = function.__code__, function.__defaults__ or ()
    last = code.co_argcount
    yield from zip(code.co_varnames[last - len(defaults) : last], defaults, strict=True)
    yield from (function.__kwdefaults__ or {}).items()
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        if name != "__class__":
            with suppress(ValueError):  # it is empty yet
                yield name, cell.cell_contents


def used(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Globals that a function reads, and what it takes from modules of the user's."""
    names = function.__globals__
    for name, attribute in dict.fromkeys(_references(function.__code__)):
        if name not in names:
            continue
        value = names[name]
        if not isinstance(value, ModuleType):
            yield name, value
        elif attribute and not library(value.__name__) and hasattr(value, attribute):
            yield f"{name}.{attribute}", getattr(value, attribute)


def _references(code: CodeType) -> Iterator[tuple[str, str | None]]:
    """Names that code looks up among the globals, each with the attribute that it takes of it."""
    steps = list(dis.get_instructions(code))
    for step, after in zip(steps, [*steps[1:], None], strict=True):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            takes = after is not None and after.opname in ("LOAD_ATTR", "LOAD_METHOD")
            yield step.argval, after.argval if after is not None and takes else None
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _references(inner)


def digest(code: CodeType, words: str | None = None) -> str:
    """Digest of code, whatever its file, lines and docstring."""
    parts = (
        code.co_code.hex(),
        code.co_names,
        code.co_freevars,
        (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & 0xFF),
        [_constant(each, words) for each in code.co_consts],
    )
    return short_hash(repr(parts).encode())


def _constant(value: Any, words: str | None) -> Any:
    if isinstance(value, CodeType):
        return digest(value)
    if isinstance(value, frozenset):
        return sorted(map(repr, value))
    if isinstance(value, tuple):
        return [_constant(each, None) for each in value]
    return None if isinstance(value, str) and value == words else value


def library(module: str | None) -> str:
    """The installed library that a module is of, spnb among them; nothing if it is the user's."""
    top = (module or "").partition(".")[0]
    if top == "spnb":
        return top
    if top in ("__main__", "__mp_main__"):  # pytest's and others' lie among the libraries
        return ""
    file = getattr(sys.modules.get(top), "__file__", None)
    inside = top in sys.stdlib_module_names if file is None else _is_installed(file)
    return top if inside else ""


@functools.cache
def _is_installed(file: str) -> bool:
    """Whether a file lies where Python and its packages are installed."""
    path, names = Path(file).resolve(), ("stdlib", "platstdlib", "purelib", "platlib")
    folders = [Path(each).resolve() for name in names if (each := sysconfig.get_path(name))]
    inside = any(path.is_relative_to(folder) for folder in folders)
    return inside or bool({"site-packages", "dist-packages"} & set(path.parts))


def short_hash(content: bytes) -> str:
    """Twelve digits that tell contents apart."""
    return hashlib.sha256(content).hexdigest()[:12]
