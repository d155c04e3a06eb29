"""The exercise checker: open, wrong and right answers, and that none of them raises."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from spnb.teach import check
from spnb.teach.attempt import attempted
from spnb.teach.check import CheckFailed, Outcome, Wrong, close, equal, exercise


@exercise
def exercise_1(average: Callable[..., Any]) -> str:
    close(
        average(torch.tensor([1.0, 3.0])), 2.0, [(4.0, "summed", "you summed instead of averaging")]
    )
    return "every rank holds the same gradient"


@exercise
def exercise_2b(answer: object) -> None:
    equal(answer, "sample", [("data", "ddp", "that is DDP's axis")])


def last() -> Outcome:
    return check.outcomes[-1]


def judged(answer: object) -> Outcome:
    exercise_1(answer)
    return last()


def stub_pass(x: Any) -> Any:
    """A docstring alone."""


def stub_dots(x: Any) -> Any: ...


def stub_return_dots(x: Any) -> Any:
    return ...


def stub_partial(x: Any) -> Any:
    mean = ...
    return mean


def stub_used(x: Any) -> Any:
    scale = ...
    return x.sum() * scale  # type: ignore[operator]


def stub_inside(x: Any) -> Any:
    def inner() -> Any:
        return ...

    return inner() * x


class StubClass:
    def forward(self, x: Any) -> Any:
        y = ...
        return y


STUBS = [stub_pass, stub_dots, stub_return_dots, stub_partial, stub_used, stub_inside]


@pytest.mark.parametrize("answer", [..., *STUBS, StubClass, [1, ...], {"a": (..., 2)}])
def test_a_stub_is_not_attempted(answer: object) -> None:
    assert not attempted(answer)
    assert str(judged(answer)) == "… Exercise 1: not attempted yet."


def indexes(x: torch.Tensor) -> torch.Tensor:
    y = x[..., None][...]
    y[...] = y[..., :]
    return y.mean()


class Empty(Exception):
    """A class without methods is an answer."""


@pytest.mark.parametrize(
    "answer", [indexes, Empty, lambda x: None, None, 0, "", [], torch.zeros(2), {"a": [1]}]
)
def test_an_answer_that_only_looks_like_a_stub_is_attempted(answer: object) -> None:
    assert attempted(answer)


def test_a_value_that_turns_out_to_be_a_stub_is_not_attempted() -> None:
    hidden = {"value": ...}
    assert judged(lambda x: hidden["value"]).state == "open"
    assert judged(lambda x: 2 * hidden["value"]).state == "open"
    exercise_2b(...)
    assert str(last()) == "… Exercise 2b: not attempted yet."


def test_right() -> None:
    said = judged(torch.mean)
    assert str(said) == "✓ Exercise 1: correct: every rank holds the same gradient."
    assert judged(indexes).state == "right"
    exercise_2b("sample")
    assert str(last()) == "✓ Exercise 2b: correct."


def test_the_likely_mistake_is_named() -> None:
    assert str(judged(torch.sum)) == "✗ Exercise 1: not yet: you summed instead of averaging."
    assert last().mistake == "summed"
    exercise_2b("data")
    assert last().mistake == "ddp"
    exercise_2b("sampel")
    assert last().mistake == "value" and "'sampel'" in last().message


def broken(x: torch.Tensor) -> torch.Tensor:
    raise KeyError("no such rank")


def leaves(x: torch.Tensor) -> None:
    sys.exit("gone")


def test_an_error_in_the_answer_is_one_sentence() -> None:
    assert "your code raised KeyError: 'no such rank'." in str(judged(broken))
    assert judged(leaves).mistake == "SystemExit"
    assert judged(3).mistake == "TypeError"
    exercise_1()
    assert last().state == "wrong" and last().mistake == "TypeError"


def interrupted(x: torch.Tensor) -> None:
    raise KeyboardInterrupt


def test_the_stop_button_still_stops() -> None:
    with pytest.raises(KeyboardInterrupt):
        exercise_1(interrupted)


@pytest.mark.parametrize(
    ("answer", "expected", "mistake", "figures"),
    [
        (None, 1.0, "no-return", []),
        ("two", 2.0, "type", ["str"]),
        (torch.ones(3), torch.ones(2), "shape", ["(3,)", "(2,)"]),
        (torch.ones(3, 2), torch.ones(2, 3), "shape", ["(3, 2)", "transposed"]),
        (torch.tensor([1.0, torch.nan]), torch.ones(2), "nan", []),
        (-2.0, 2.0, "sign", []),
        (2.5, 2.0, "value", ["2.5", "2"]),
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.5]), "value", ["0.5"]),
    ],
)
def test_close_says_how_an_answer_is_off(
    answer: object, expected: object, mistake: str, figures: list[str]
) -> None:
    with pytest.raises(Wrong) as wrong:
        close(answer, expected)
    assert wrong.value.mistake == mistake
    assert all(figure in str(wrong.value) for figure in figures)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (2, 2.0),
        (np.float32(2), 2),
        ([1, 2], torch.tensor([1.0, 2.0])),
        (torch.tensor(1.0, requires_grad=True), 1),
        (torch.tensor([True, False]), [1, 0]),
        (1 + 2j, 1 + 2j),
        (float("nan"), float("nan")),
        (float("inf"), float("inf")),
        (1.0 + 1e-6, 1.0),
    ],
)
def test_close_accepts(answer: object, expected: object) -> None:
    close(answer, expected)


def test_mistakes_may_be_tensors() -> None:
    total = torch.tensor([2.0, 4.0])
    with pytest.raises(Wrong) as wrong:
        close(total, total / 2, [(total, "sum", "that is a sum")])
    assert wrong.value.mistake == "sum"


def test_strict_mode_raises_unless_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPNB_CHECKS", "strict")
    exercise_1(torch.mean)
    for answer in (..., torch.sum):
        with pytest.raises(CheckFailed):
            exercise_1(answer)


def test_html_is_escaped_and_does_not_rely_on_colour() -> None:
    shown = Outcome("Exercise 1", "wrong", "a < b")._repr_html_()
    assert "✗ Exercise 1:" in shown and "a &lt; b" in shown


IN_A_SHELL = """
    from IPython.core.interactiveshell import InteractiveShell
    shell = InteractiveShell.instance()
    shell.run_cell("from spnb.teach.check import exercise, close")
    shell.run_cell('''
    @exercise
    def exercise_3(answer):
        close(answer(1), 1)
    ''')
    shell.run_cell('''
    def answer(x):
        y = x
        return y + missing
    ''')
    shell.run_cell("exercise_3(answer)")
"""


def test_in_a_shell_the_line_of_the_cell_is_named() -> None:
    code = textwrap.dedent(IN_A_SHELL)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "✗ Exercise 3: your code (line " in done.stdout, done
    assert "of its cell) raised NameError: name 'missing' is not defined." in done.stdout
