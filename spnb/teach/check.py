"""The exercise checker: says whether an answer is right, and names the likely mistake if not.

A check never raises, so a notebook whose exercises are still open runs from top to bottom. A
notebook's checks are short functions in a module of its own (`spnb/teach/checks/nb03.py`):

    from spnb.teach.check import close, exercise

    @exercise
    def exercise_1(average):
        gradients = torch.tensor([1.0, 3.0])
        mistakes = [(4.0, "summed", "you summed over ranks instead of averaging")]
        close(average(gradients), 2.0, mistakes)
        return "every rank now holds the same gradient"

and the notebook says `check.exercise_1(average)`. The outcome is shown as one line, and kept in
`outcomes`. Each mistake has a short name beside the sentence for the learner, so that tests and
programs can ask which one was found without reading English. With `SPNB_CHECKS=strict` in the
environment, which is how the solution notebooks are tested, anything but a right answer raises
`CheckFailed`.
"""

from __future__ import annotations

import functools
import html
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import torch
from IPython.core.getipython import get_ipython
from IPython.display import display

from spnb.teach.attempt import NotAttempted, attempted

Mistakes = Iterable[tuple[Any, str, str]]
"""Known wrong answers, each with the mistake's name and the sentence that explains it."""
State = Literal["right", "wrong", "open"]

_SIGN = {"right": "✓", "wrong": "✗", "open": "…"}
_COLOUR = {"right": "#009E73", "wrong": "#D55E00", "open": "#999999"}


class Wrong(Exception):
    """Raised by a check: the answer is wrong.

    Args:
        mistake: The mistake's name, such as ``"summed"``.
        sentence: What the learner reads.
    """

    def __init__(self, mistake: str, sentence: str) -> None:
        super().__init__(sentence)
        self.mistake = mistake


class CheckFailed(AssertionError):
    """Raised under `SPNB_CHECKS=strict` alone, by an answer that is not right."""


@dataclass(frozen=True)
class Outcome:
    """What a check found: shown as a line, in a notebook with a coloured edge.

    Attributes:
        name: The exercise's name.
        state: Whether the answer is right, wrong, or still open.
        message: What the learner reads.
        mistake: Name of the mistake in a wrong answer; the type of the exception where the answer
            raised one.
    """

    name: str
    state: State
    message: str
    mistake: str | None = None

    def __repr__(self) -> str:
        """The line as text: its first character tells the state."""
        return f"{_SIGN[self.state]} {self.name}: {self.message}"

    def _repr_html_(self) -> str:
        style = f"border-left: 4px solid {_COLOUR[self.state]}; padding: 2px 10px"
        text = f"{_SIGN[self.state]} {html.escape(self.name)}:"
        return f'<div style="{style}"><b>{text}</b> {html.escape(self.message)}</div>'


outcomes: list[Outcome] = []
"""Every outcome of this process, in order; a check that is run again adds another."""


def exercise(check: Callable[..., str | None]) -> Callable[..., None]:
    """Turn a function over a learner's answers into a check that shows its outcome.

    The function returns a closing remark (or nothing) if the answers are right, and raises
    `Wrong`, by itself or through `close` and `equal`, if they are not. Its name becomes the
    exercise's: `exercise_2b` is "Exercise 2b".
    """
    name = check.__name__.replace("_", " ").capitalize()

    @functools.wraps(check)
    def run(*answers: Any, **named: Any) -> None:
        _show(_judge(name, check, answers, named))

    return run


def _judge(
    name: str, check: Callable[..., str | None], answers: tuple[Any, ...], named: dict[str, Any]
) -> Outcome:
    unanswered = Outcome(name, "open", "not attempted yet.")
    try:
        if not all(map(attempted, (*answers, *named.values()))):
            return unanswered
        remark = check(*answers, **named)
    except NotAttempted:
        return unanswered
    except Wrong as wrong:
        return Outcome(name, "wrong", f"not yet: {_sentence(str(wrong))}", wrong.mistake)
    except (Exception, SystemExit) as error:
        if "ellipsis" in str(error):  # a stub's `...` was calculated with
            return unanswered
        return Outcome(name, "wrong", _describe(error), type(error).__name__)
    return Outcome(name, "right", f"correct: {_sentence(remark)}" if remark else "correct.")


def _describe(error: BaseException) -> str:
    """One sentence on an exception, with the line of the learner's cell where it arose."""
    said = " ".join(str(error).split())
    kind = type(error).__name__
    where = _line_in_cell(error.__traceback__)
    return _sentence(f"your code{where} raised {kind}" + (f": {said}" if said else ""))


def _line_in_cell(traceback: TracebackType | None) -> str:
    line = None
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__") == "__main__":
            if traceback.tb_frame.f_code.co_name != "<module>":
                line = traceback.tb_lineno
        traceback = traceback.tb_next
    return "" if line is None else f" (line {line} of its cell)"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _show(outcome: Outcome) -> None:
    outcomes.append(outcome)
    if get_ipython() is None:
        print(outcome)
    else:
        display(outcome)
    if os.environ.get("SPNB_CHECKS") == "strict" and outcome.state != "right":
        raise CheckFailed(str(outcome))


def close(
    answer: Any,
    expected: Any,
    mistakes: Mistakes = (),
    *,
    rtol: float = 1e-4,
    atol: float = 1e-6,
    what: str = "your answer",
) -> None:
    """Hold a number or tensor against the expected one.

    Args:
        answer: What the learner's code gave: a number, an array or a tensor.
        expected: What it should be.
        mistakes: Known wrong values, each with its mistake's name and sentence.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        what: How the sentences call the answer.

    Raises:
        Wrong: If the two differ; with the known mistake where it is one, else one of ``"shape"``,
            ``"nan"``, ``"sign"``, ``"value"``, ``"no-return"``, ``"type"``.
        NotAttempted: If the answer is still a stub's `...`.
    """
    target = _tensor(expected)
    value = _numbers(answer, what)
    if value.shape != target.shape:
        hint = ", so it looks transposed" if value.shape == target.shape[::-1] else ""
        raise Wrong(
            "shape",
            f"{what} has shape {tuple(value.shape)} where {tuple(target.shape)} is wanted{hint}",
        )
    if _near(value, target, rtol, atol):
        return
    for wrong, mistake, sentence in mistakes:
        known = _tensor(wrong)
        if known.shape == target.shape and _near(value, known, rtol, atol):
            raise Wrong(mistake, sentence)
    if value.isnan().any() and not target.isnan().any():
        raise Wrong("nan", f"{what} has NaN in it")
    if _near(value, -target, rtol, atol):
        raise Wrong("sign", f"{what} has the wrong sign")
    if target.numel() == 1:
        raise Wrong("value", f"{what} is {value.item():.4g} where {target.item():.4g} is expected")
    gap = (value - target).abs().max().item()
    raise Wrong("value", f"{what} is off by up to {gap:.3g}")


def equal(
    answer: Any, expected: Any, mistakes: Mistakes = (), *, what: str = "your answer"
) -> None:
    """Hold a text, a count, a list or a layout against the expected one, with `==`.

    Args:
        answer: What the learner's code gave.
        expected: What it should be.
        mistakes: Known wrong values, each with its mistake's name and sentence.
        what: How the sentences call the answer.

    Raises:
        Wrong: If the two differ; with the known mistake where it is one, else ``"value"``.
        NotAttempted: If the answer is still a stub's `...`.
    """
    if not attempted(answer):
        raise NotAttempted
    if answer == expected:
        return
    for wrong, mistake, sentence in mistakes:
        if answer == wrong:
            raise Wrong(mistake, sentence)
    raise Wrong("value", f"{what} is {answer!r}, and that is not it")


def _numbers(answer: Any, what: str) -> torch.Tensor:
    if not attempted(answer):
        raise NotAttempted
    if answer is None:
        raise Wrong("no-return", f"{what} is None: is a `return` missing?")
    try:
        return _tensor(answer)
    except (TypeError, ValueError, RuntimeError):
        kind = type(answer).__name__
        raise Wrong("type", f"{what} is of type {kind}: a number or a tensor is wanted") from None


def _tensor(value: Any) -> torch.Tensor:
    tensor = torch.as_tensor(value).detach().cpu()
    return tensor if tensor.is_complex() else tensor.double()


def _near(value: torch.Tensor, target: torch.Tensor, rtol: float, atol: float) -> bool:
    if value.numel() == 1 and math.isnan(abs(target.item())):
        return bool(value.isnan().all())
    return torch.allclose(value, target.to(value.dtype), rtol=rtol, atol=atol, equal_nan=True)
