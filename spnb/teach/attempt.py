"""Whether a learner has attempted an exercise at all: does an answer still hold a stub's `...`?

A stub assigns or returns `...`. For a function this is read off its bytecode, so nothing is run:
an Ellipsis that is stored in a name or returned is a stub's; one that indexes (`x[..., 0]`) is
ordinary code.
"""

from __future__ import annotations

import dis
from collections.abc import Mapping
from types import CodeType, FunctionType
from typing import Any

_EMPTY = {"RESUME", "NOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST", "POP_TOP"}
_CLOSURE = {"COPY_FREE_VARS", "MAKE_CELL"}


class NotAttempted(Exception):
    """Raised where an answer turns out to hold a stub's `...` only when it is used."""


def attempted(answer: Any, depth: int = 3) -> bool:
    """Whether an answer is free of stubs.

    Args:
        answer: A value, function, class, or a list, tuple, set or mapping of such.
        depth: How many containers deep to look.
    """
    if answer is ...:
        return False
    if isinstance(answer, FunctionType):
        return not _is_stub(answer.__code__)
    if isinstance(answer, type):
        methods = [method for method in vars(answer).values() if isinstance(method, FunctionType)]
        return all(attempted(method) for method in methods)
    if depth and isinstance(answer, Mapping):
        return all(attempted(value, depth - 1) for value in answer.values())
    if depth and isinstance(answer, (list, tuple, set, frozenset)):
        return all(attempted(value, depth - 1) for value in answer)
    return True


def _is_stub(code: CodeType) -> bool:
    steps = [step for step in dis.get_instructions(code) if step.opname not in ("RESUME", "NOP")]
    names = {step.opname for step in steps}
    if names <= _EMPTY | _CLOSURE and code.co_name != "<lambda>":
        constants = {step.argval for step in steps if step.opname in ("LOAD_CONST", "RETURN_CONST")}
        if constants <= {None, ...}:
            return True
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        if step.argval is not ...:
            continue
        name = "RETURN_CONST" if following is None else following.opname
        if step.opname == "RETURN_CONST" or name == "RETURN_VALUE":
            return True
        if name.startswith("STORE_") and name not in ("STORE_SUBSCR", "STORE_SLICE"):
            return True
    return any(_is_stub(inner) for inner in code.co_consts if isinstance(inner, CodeType))
