"""What users call stays as it is: names, parameters and defaults of the public interface.

`interface.txt` holds them. After a change that is meant (see CONTRIBUTING.md for old names),

    python -m tests.test_interface

writes the file anew.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import spnb

STORED = Path(__file__).with_name("interface.txt")


def lines() -> Iterator[str]:
    """A line for each public function, class, method and property."""
    for name in dir(spnb):
        if not name.startswith("_"):
            yield from of(f"spnb.{name}", getattr(spnb, name))


def of(name: str, found: Any) -> Iterator[str]:
    """The lines of one of them, and of what belongs to it."""
    if isinstance(found, ModuleType):
        for inner, value in sorted(vars(found).items()):
            own = getattr(value, "__module__", "").startswith(found.__name__)
            if not inner.startswith("_") and own:
                yield from of(f"{name}.{inner}", value)
    elif isinstance(found, property):
        yield name
    elif callable(found):
        yield name + signature(found)
    if inspect.isclass(found):
        for inner in sorted(vars(found)):  # what it inherits stands with its base
            if not inner.startswith("_"):
                yield from of(f"{name}.{inner}", getattr(found, inner))


def signature(function: Any) -> str:
    """Parameters and defaults, without types."""
    if inspect.isclass(function) and issubclass(function, Exception):
        return ""  # Python's own
    found = inspect.signature(function)
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in found.parameters.values()]
    return str(found.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def text() -> str:
    return "\n".join(lines()) + "\n"


def test_the_interface_is_the_stored_one() -> None:
    old, new = STORED.read_text().splitlines(), text().splitlines()
    changed = [line for line in difflib.ndiff(old, new) if line[0] in "+-"]
    assert not changed, "changed; if that is meant: python -m tests.test_interface"


if __name__ == "__main__":
    STORED.write_text(text())
