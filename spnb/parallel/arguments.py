"""Arguments that users hand in, checked where they arrive: the message names the argument."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any


def whole(name: str, value: Any, least: int | None = 1) -> int:
    """A whole number, Python's or numpy's.

    Args:
        name: of the argument.
        value: what was given.
        least: the smallest that makes sense; None: any.

    Raises:
        TypeError: not a whole number.
        ValueError: less than that.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}={value!r} must be a whole number.")
    if least is not None and value < least:
        raise ValueError(f"{name}={value} must be at least {least}.")
    return int(value)


def whole_or_none(name: str, value: Any, least: int | None = 1) -> int | None:
    """The same where None stands for a usual value."""
    return None if value is None else whole(name, value, least)


def real(
    name: str, value: Any, least: float = 0.0, *, above: bool = False, infinite: bool = False
) -> float:
    """A number, Python's or numpy's.

    Args:
        name: of the argument.
        value: what was given.
        least: the smallest that makes sense.
        above: whether it has to be larger than that.
        infinite: whether it may be infinite.

    Raises:
        TypeError: not a number.
        ValueError: NaN, infinite, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}={value!r} must be a number.")
    found = float(value)
    if not (found > least or (found == least and not above)) or (
        found == math.inf and not infinite
    ):
        words = f"{'above' if above else 'at least'} {least:g}{'' if infinite else ' and finite'}"
        raise ValueError(f"{name}={value} must be {words}.")
    return found


def flag(name: str, value: Any) -> bool:
    """A truth value.

    Raises:
        TypeError: anything else.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name}={value!r} must be True or False.")
    return value
