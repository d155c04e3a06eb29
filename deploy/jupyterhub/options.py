"""What a reader may ask for, and nothing else.

batchspawner writes a spawn's options into the batch script, whatever they are, and lets them stand
in for its own fields, the command too. A spawn over the hub's REST interface does not even pass
through the form. So every option is held against a list, on the server, just before a job is made:
`checked` returns numbers and words of that list, or raises.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

LABELS = {"gpus": "GPUs", "hours": "Hours", "scale": "Scale of the notebooks"}


def checked(options: Mapping[str, Any], choices: Mapping[str, list[Any]]) -> dict[str, Any]:
    """The options of a spawn, each one of its choices.

    Args:
        options: from the form (lists of one word each), the REST interface, or an earlier spawn.
        choices: what each option may be, its default first.

    Raises:
        ValueError: an option that there is not, or a value that is no choice.
    """
    if not isinstance(options, Mapping):
        raise ValueError("Options must have names.")
    if unknown := sorted(set(options) - set(choices), key=str):
        raise ValueError(f"There is no option {unknown[0]!r}; there are {', '.join(choices)}.")
    found = {}
    for name, allowed in choices.items():
        value = options.get(name, allowed[0])
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        # The choice itself is taken, never what was sent.
        matching = [c for c in allowed if isinstance(value, str | int) and str(c) == str(value)]
        if not matching or isinstance(value, bool):
            raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}.")
        found[name] = matching[0]
    return found


def form(choices: Mapping[str, list[Any]]) -> str:
    """The form that a reader sees: one labelled list an option."""
    parts = []
    for name, allowed in choices.items():
        words = "".join(
            f'<option value="{html.escape(str(c))}">{html.escape(str(c))}</option>' for c in allowed
        )
        label = html.escape(LABELS.get(name, name))
        parts.append(
            f'<label for="spnb-{name}">{label}</label>'
            f'<select id="spnb-{name}" name="{name}" class="form-control">{words}</select>'
        )
    return "\n".join(parts)
