"""Where two descriptions differ, in words."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

from spnb.run.identity.trees import DIGEST, DOUBTFUL, KIND, Tree, join

ROUNDING = 1e-6
"""Relative difference of numbers up to which the order of a sum may be the reason."""

SHOWN = 4
"""Differences that a message names."""


def compare(there: str, here: str) -> tuple[dict[str, str], list[str]]:
    """Compare two descriptions.

    Returns:
        What differs, in words by its name; and the names of what may differ and may not: it cannot
        be looked into, differs by rounding alone, or says of itself that it is the same.

    Raises:
        ValueError: one of them is no description.
    """
    doubts: list[str] = []
    one, other = json.loads(there), json.loads(here)
    if one["python"] != other["python"]:  # whose compilers differ
        there, here = (re.sub(r"#[0-9a-f]{12}", "#", text) for text in (there, here))
        if "#" in there + here:
            doubts.append(f"code (of Python {one['python']} there, {other['python']} here)")
        one, other = json.loads(there), json.loads(here)
    doubts += [*one["unknown"], *other["unknown"]]
    certain: dict[str, str] = {}
    doubts += one["parts"].keys() ^ other["parts"].keys()
    pairs = [
        (one[kind][name], other[kind][name], name)
        for kind in ("parts", "shared")
        for name in one[kind]
        if name in other[kind]
    ]
    for pair in pairs:
        for path, words in _differences(*pair):
            if words:
                certain[path] = words
            else:
                doubts.append(path)
    return certain, list(dict.fromkeys(doubts))


def listed(words: Iterable[str], between: str = ", ") -> str:
    """The first of many words, and how many there are besides."""
    found = list(words)
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return between.join(found[:SHOWN] + more)


def _differences(there: Tree, here: Tree, path: str) -> Iterator[tuple[str, str]]:
    """Where two trees differ, and how; in no words where that is not certain."""
    if not (isinstance(there, dict) and isinstance(here, dict)):
        if words := _unlike(there, here):
            numbers = isinstance(there, float) and isinstance(here, float)
            close = numbers and math.isclose(there, here, rel_tol=ROUNDING)
            yield path, "" if close else path + words
    elif words := _unlike(there[KIND], here[KIND]):
        yield path, path + words
    elif DIGEST in there:
        if there[DIGEST] != here[DIGEST]:
            yield path, "" if _rounded(there, here) else f"{path} has other values"
    else:
        # Another version of a library may have other attributes.
        common = "." in there[KIND] and there[KIND][0] != "<"
        for name in {**there, **here}:
            if not common or (name in there and name in here):
                one, other = (each.get(name, "nothing") for each in (there, here))
                for found, words in _differences(one, other, join(path, name)):
                    yield found, "" if name == DOUBTFUL else words


def _unlike(there: Tree, here: Tree) -> str:
    """How two descriptions differ at first sight, in words to stand behind a name."""
    if there == here or (there != there and here != here):  # NaN is like NaN
        return ""
    one, other = _brief(there), _brief(here)
    return " has other code" if one == other else f"={one} there, {other} here"


def _brief(tree: Tree) -> str:
    """A description in a few words, without digests."""
    tree = tree[KIND] if isinstance(tree, dict) else tree
    text = tree if isinstance(tree, str) else repr(tree)
    return re.sub(r"^#[0-9a-f]*$", "", text).removeprefix("<").removesuffix(">")


def _rounded(there: dict[str, Any], here: dict[str, Any]) -> bool:
    if "norm" not in there:
        return False
    most = ROUNDING * max(there["norm"], here["norm"])
    return all(abs(there[name] - here[name]) <= most for name in ("norm", "turned"))
