"""The comparison board: its scores are the library's, and another method is another line."""

from __future__ import annotations

import pytest
import torch
from matplotlib.axes import Axes
from torch import Tensor

from spnb.maths import scores
from spnb.maths.likelihoods import Normal
from spnb.teach.explorable import Explorable
from spnb.teach.explore.board import Judged, Score, comparison_board

TRUTH = torch.linspace(-2, 2, 50, dtype=torch.float64)
NOISE = Normal(1.0)


def draws(spread: float, count: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return spread * torch.randn(count, 50, generator=generator, dtype=torch.float64)


def nll(of: Tensor) -> float:
    return scores.predictive_nll(of, TRUTH, NOISE)


def inside(of: Tensor) -> float:
    return scores.coverage(of, TRUTH, NOISE).mean().item()


METHODS = {
    "plain": Judged(draws(2.0, 1), {"training (s)": 1.0}),
    "narrow": Judged(draws(0.5), {"training (s)": 2.0}),
    "wide": Judged(draws(3.0), {"training (s)": 9.0}),
}
SCORES = {
    "NLL": Score("NLL (nats)", nll),
    "coverage": Score("share inside", inside, best=0.9),
    "spread": Score("spread", lambda of: float(of.max() - of.min()), best="high"),
}


def draw(axes: Axes, shown: Tensor) -> None:
    axes.plot(shown.mean(0))


@pytest.fixture
def board() -> Explorable:
    return comparison_board(METHODS, SCORES, draw, samples=8)


def test_it_shows_the_scores_of_so_many_draws(board: Explorable) -> None:
    for samples in (2, 16):
        board.set(score="NLL", samples=samples)
        for name, method in METHODS.items():
            assert f"{name} {nll(method.draws[:samples]):.3g}" in board.summary
    assert "S = 16 (lower is better)" in board.summary
    assert "(Fewer draws: plain 1.)" in board.summary and board.error is None


@pytest.mark.parametrize(
    ("score", "best"), [("NLL", "narrow"), ("spread", "wide"), ("training (s)", "plain")]
)
def test_the_best_is_the_one_that_comes_nearest_to_what_is_good(
    board: Explorable, score: str, best: str
) -> None:
    board.set(score=score, samples=16)
    assert f"Best: {best};" in board.summary
    starred = [text.get_position()[1] for text in board.figure.axes[1].texts
               if "★" in text.get_text()]  # fmt: skip
    assert starred == [list(METHODS).index(best)]


def test_a_value_to_be_met_is_drawn_and_decides(board: Explorable) -> None:
    board.set(score="coverage", samples=16)
    found = {name: inside(method.draws[:16]) for name, method in METHODS.items()}
    best = min(found, key=lambda name: abs(found[name] - 0.9))
    assert f"Best: {best};" in board.summary and "(0.9 is right)" in board.summary
    low, high = board.figure.axes[1].get_xlim()
    assert low <= 0 < 0.9 < high and len(board.figure.axes[1].lines) == 1


def test_methods_that_are_even_share_the_star() -> None:
    twins = {"one": METHODS["narrow"], "other": METHODS["narrow"], "wide": METHODS["wide"]}
    assert "Best: one, other;" in comparison_board(twins, SCORES, draw).summary


def test_another_method_is_another_line(board: Explorable) -> None:
    more = comparison_board(METHODS | {"new": Judged(draws(1.0, 4), {"training (s)": 0.1})},
                            SCORES, draw)  # fmt: skip
    assert "new" in more.controls["method"].options
    more.set(score="training (s)", method="new")
    assert "Best: new; shown: new." in more.summary


def test_what_is_shown_may_lie_elsewhere() -> None:
    seen: list[Tensor] = []
    elsewhere = torch.ones(16, 3)
    method = Judged(draws(1.0), shown=elsewhere)
    comparison_board({"it": method}, SCORES, lambda axes, shown: seen.append(shown), samples=4)
    assert torch.equal(seen[0], elsewhere[:4])


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="0 methods and 3 scores"):
        comparison_board({}, SCORES, draw)
    with pytest.raises(ValueError, match="'free' does not say what it costs: training"):
        comparison_board(METHODS | {"free": Judged(draws(1.0))}, SCORES, draw)
    with pytest.raises(ValueError, match="16 draws to be judged and 3 to be shown"):
        comparison_board({"it": Judged(draws(1.0), shown=torch.ones(3, 2))}, SCORES, draw)


def test_a_score_that_is_no_number_is_named() -> None:
    """At once where it is asked for first, later in the widget; the figure stays as it was."""
    broken = {"NLL": SCORES["NLL"], "none": Score("none", lambda of: float("nan"))}
    board = comparison_board(METHODS, broken, draw, samples=4)
    board.set(score="none")
    assert board.error == "ValueError: none of 'plain' is nan, S = 4."
    board.set(score="NLL")
    assert board.error is None
