"""Controls that explorables have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ipywidgets import Layout, ToggleButton, ToggleButtons, Widget


def buttons(
    options: Sequence[Any],
    value: Any = None,
    description: str = "",
    *,
    width: str = "110px",
    described: str = "90px",
) -> ToggleButtons:
    """A choice as a row of buttons, which has a line of its own.

    Args:
        options: what there is to choose.
        value: what is chosen at the beginning; None: the first.
        description: its label.
        width: of each button, ``"auto"`` for as much as its words need.
        described: width of the label.
    """
    return ToggleButtons(
        options=options,
        value=options[0] if value is None else value,
        description=description,
        style={"button_width": width, "description_width": described},
        layout=Layout(width="100%"),
    )


def come_out(button: ToggleButton, questions: Iterable[Widget]) -> None:
    """Have a button come out again whenever another question is asked.

    Call it before the explorable is made: its observers come first then, and what is drawn for a
    new question knows of no press.

    Args:
        button: what starts something.
        questions: the controls that say what.
    """

    def out(_: object) -> None:
        button.value = False

    for question in questions:
        question.observe(out, names="value")
