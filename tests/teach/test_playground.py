"""The playground: the pointer and the keyboard do the same, and the posterior follows."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import pytest

from spnb.teach.explore.playground import AT_MOST, POINTS, Playground


class Hand:
    """A pointer on the picture, which writes what the page's script would write.

    Args:
        board: the playground.
    """

    def __init__(self, board: Playground) -> None:
        self.board, self.gesture, self.start = board, 0, ""

    def press(self, x: float, y: float) -> None:
        """Go down at a place of the axes."""
        self.gesture, self.start = self.gesture + 1, self.place(x, y)
        self.drag(x, y)

    def drag(self, x: float, y: float) -> None:
        """Move while it is held."""
        self.board._pointer.value = f"{self.gesture} {self.start} {self.place(x, y)}"

    def place(self, x: float, y: float) -> str:
        """As parts of the picture's width and height, from its upper left corner."""
        figure = self.board.figure
        pixels = figure.axes[0].transData.transform((x, y))
        across, up = figure.transFigure.inverted().transform(pixels)
        return f"{across} {1 - up}"


def spreads(board: Playground) -> tuple[float, float]:
    """The epistemic spread at the points and in the widest gap, as the summary tells them."""
    return tuple(
        float(v) for v in re.findall(r"(\d+\.\d+) (?:at the points|in the middle)", board.summary)
    )


def test_a_press_in_the_gap_adds_a_point_and_closes_the_band() -> None:
    board = Playground()
    before = spreads(board)[1]
    Hand(board).press(0.0, 1.0)
    assert board.points == [*POINTS, (0.0, 1.0)] and board.chosen == len(POINTS)
    assert board.summary.startswith("7 points, exact") and spreads(board)[1] < before
    assert (board.state["x"], board.state["y"]) == (0.0, 1.0)


def test_a_point_is_dragged_and_may_lag_behind() -> None:
    board = Playground()
    hand = Hand(board)
    hand.press(1.25, 0.75)
    assert len(board.points) == len(POINTS) and board.chosen == 3, "it was taken, not added"
    hand.drag(0.5, -1.0)
    hand.drag(0.43, -1.18)
    assert board.points[3] == (0.4, -1.2) and board.state["x"] == 0.4
    hand.gesture, hand.start = 2, hand.place(-2.5, 2.5)
    hand.drag(-2.0, 2.0)  # the press itself never arrived: the kernel was busy
    assert board.points == [*POINTS[:3], (0.4, -1.2), *POINTS[4:], (-2.0, 2.0)]


def test_a_press_in_the_margin_does_nothing() -> None:
    board = Playground()
    board._pointer.value = "1 0.01 0.5 0.4 0.5"
    assert board.points == [*POINTS] and board.redraws == 1


def test_the_keyboard_can_do_the_same() -> None:
    board = Playground()
    board.controls["point"].value = 0
    assert (board.state["x"], board.state["y"]) == POINTS[0], "the sliders show the chosen point"
    board.controls["y"].value = 1.5
    assert board.points[0] == (POINTS[0][0], 1.5) and board.points[1:] == [*POINTS[1:]]
    board._add.click()
    assert board.points[-1] == (-0.1, 0.0) and board.chosen == len(POINTS)
    board._remove.click()
    assert len(board.points) == len(POINTS) and board.error is None


def test_mean_field_does_not_open_in_the_gap_and_the_prior_knows_no_points() -> None:
    board = Playground(samples=256)
    exact = spreads(board)
    board.set(method="mean field")
    factorised = spreads(board)
    assert factorised[0] > exact[0], "too wide where there are points"
    assert factorised[1] / factorised[0] < exact[1] / exact[0] / 2, "and hardly wider elsewhere"
    board.set(method="prior")
    assert spreads(board)[0] > factorised[0]
    words = board.summary
    board.controls["y"].value = -2.0
    assert board.summary == words


def test_none_and_too_many_points_are_said_in_a_sentence() -> None:
    board = Playground(points=[(0.0, 0.0)])
    board._remove.click()
    assert board.summary.startswith("0 points, exact")
    board._remove.click()
    assert board.error == "ValueError: There is no point left to remove."
    for _ in range(AT_MOST):
        board._add.click()
    assert board.error is None and len(board.points) == AT_MOST
    board._add.click()
    assert board.error == f"ValueError: {AT_MOST} points are enough: remove one first."


def test_without_a_front_end_there_is_a_picture() -> None:
    board = Playground()
    bundle = board._repr_mimebundle_()
    assert board.png.startswith(b"\x89PNG") and board.summary in bundle["text/html"]


@pytest.mark.parametrize("samples", [1, 64])
def test_a_redrawing_follows_the_hand(samples: int, follows_the_hand: Callable[..., None]) -> None:
    board = Playground(samples=samples)
    slider = board.controls["x"]
    follows_the_hand(partial(setattr, slider, "value", step / 10) for step in range(7))
