"""The race: its arithmetic, its contenders on live ranks, and the predict-then-measure board."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

import cloudpickle
import pytest
import torch
import torch.distributed as dist

import spnb
from spnb.teach import figures, racing
from spnb.teach.explore import race as board_module
from spnb.teach.explore.race import draw_bars, race_board, undisturbed, verdict
from spnb.teach.racing import Contender, Race, limit, quartiles, race, strangers

# As from a notebook's cell: the functions below travel by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

Data = tuple[torch.Tensor, torch.Tensor]
FOUND = Race({"one rank": [[10.0, 30.0], [20.0, 20.0], [40.0, 40.0]],
              "share batch": [[10.0, 10.0], [8.0, 12.0], [40.0, 40.0]],
              "share samples": [[25.0, 25.0], [5.0, 35.0], [20.0, 20.0]]})  # fmt: skip


@pytest.fixture(scope="module")
def case() -> tuple[spnb.MeanField, Data]:
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
    posterior = spnb.MeanField(spnb.BayesianModel(net), init_scale=0.1)
    return posterior, (torch.randn(20, 5), torch.randint(0, 3, (20,)))


@pytest.mark.parametrize("samples", [1, 2, 3, 8, 17])
@pytest.mark.parametrize("rows", [1, 7, 64])
@pytest.mark.parametrize(("by_samples", "by_rows"), [(1, 1), (2, 1), (1, 3), (4, 2)])
def test_the_limit_is_the_largest_tile(
    samples: int, rows: int, by_samples: int, by_rows: int
) -> None:
    largest = math.ceil(samples / by_samples) * math.ceil(rows / by_rows)
    layout = spnb.Layout(sample=by_samples, data=by_rows)
    assert limit(layout, samples, rows) == pytest.approx(samples * rows / largest)


def test_quartiles_and_speed_ups() -> None:
    assert quartiles([4.0]) == (4.0, 4.0, 4.0)
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 3.0, 4.0)
    assert FOUND.spread("one rank") == (20.0, 25.0, 37.5)
    # in each round, median against median: 2, 2, 1
    assert FOUND.speed_up("share batch", "one rank") == (1.5, 2.0, 2.0)
    assert FOUND.fastest("share samples") == 5.0


def test_the_verdict_calls_a_tie_a_tie() -> None:
    assert verdict(FOUND).endswith("share batch or share samples, too close to call")
    assert "share batch 2.00× (1.50 to 2.00)" in verdict(FOUND)
    assert undisturbed(FOUND) == "share batch 1.25×, share samples 2.00×"
    clear = Race({"one rank": [[10.0]], "a": [[5.0]], "b": [[8.0]]})
    assert verdict(clear).endswith(": a wins")
    assert verdict(Race({"one rank": [[10.0]], "a": [[9.9]]})).endswith("nobody beats one rank")
    assert verdict(Race({"one rank": [[10.0]], "a": [[9.0]]})).endswith("a wins")


def test_bars_show_the_median_and_what_cannot_be() -> None:
    _, axes = figures.new()
    draw_bars(axes, {"a": (1.0, 2.0, 3.0), "b": None, "c": 2.5}, ".1f")
    assert [bar.get_height() for bar in axes.patches] == [2.0, 2.5]
    assert [bar.get_hatch() for bar in axes.patches] == ["", ".."]
    assert [text.get_text() for text in axes.texts] == ["2.0", "cannot\nshare", "2.5"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c"]


def counting(posterior: spnb.MeanField, data: Data, num_samples: int) -> Callable[[], object]:
    """A contender of one's own, which says what it was given."""
    said = (dist.get_rank(), len(data[0]), num_samples, len(posterior.loc))

    def step() -> None:
        print("step of", said)

    return step


@pytest.mark.slow
def test_contenders_take_turns(case: tuple[spnb.MeanField, Data], pool: spnb.WorkerPool) -> None:
    before = [parameter.clone() for parameter in case[0].parameters()]
    contenders = {
        "one rank": Contender(None, 3, 16),
        "strangers": Contender(strangers, 3, 16),
        "share samples": Contender(spnb.Layout(sample=2), 6, 16),
        "own": Contender(counting, 2, 7),
    }
    found = race(pool, contenders, *case, rounds=4, steps=3, seconds=60.0)
    assert {name: [len(steps) for steps in rounds] for name, rounds in found.rounds.items()} == {
        name: [3, 3, 3, 3] for name in contenders
    }
    assert min(found.spread("share samples")) > 0
    for rank in range(2):
        if rank == 0:  # only the first rank's prints are shown, but all are kept
            assert "step of (0, 7, 2, 39)" in pool.output(0)
        steps = pool.output(rank).count(f"step of ({rank}, 7, 2, 39)")
        assert steps == racing.WARM_UP + 4 * (1 + 3)
    assert all(map(torch.equal, before, case[0].parameters())), "copies were trained"
    short = race(pool, {"one rank": contenders["one rank"]}, *case, seconds=0.0)
    assert len(short.rounds["one rank"]) == racing.MIN_ROUNDS
    with pytest.raises(ValueError, match="a batch of 21 rows needs more data than 20 rows"):
        race(pool, {"one rank": Contender(None, 3, 21)}, *case)


class FakePool:
    """Two ranks that exist in name only."""

    size = 2
    closed = False


@pytest.fixture
def races(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[str, ...], int, int]]:
    """Which races took place; each finds two ranks 1.6 times as fast as one."""
    held: list[tuple[tuple[str, ...], int, int]] = []

    def fake(pool: object, contenders: Mapping[str, Contender], *_: Any, seconds: float) -> Race:
        (alone, other) = contenders.values()
        assert alone.way is None and alone.num_samples == other.num_samples
        held.append((tuple(contenders), alone.num_samples, alone.batch_size))
        _, way = contenders
        return Race({"one rank": [[16.0], [16.0], [16.0]], way: [[10.0], [8.0], [12.8]]})

    monkeypatch.setattr(board_module, "race", fake)
    return held


def make(case: tuple[spnb.MeanField, Data], pool: Any) -> Any:
    ways = {
        "share samples": spnb.Layout(sample=2),
        "share batch": spnb.Layout(data=2),
        "own": counting,
    }
    return race_board(pool, {"net, 20 rows": case}, ways, num_samples=3)  # fmt: skip


def test_nothing_runs_before_the_button(case: Any, races: list[Any]) -> None:
    board = make(case, FakePool())
    assert races == [] and "Press “Measure”" in board.summary
    assert "share samples: you predict 2.00 times one rank; the tiles allow 1.50" in board.summary
    before = board.png
    board.controls["prediction"].value = 1.55
    assert races == [] and "you predict 1.55" in board.summary and board.png != before
    board.controls["measure"].value = True
    assert races == [(("one rank", "share samples"), 3, 20)]
    assert "Measured: 1.60 times, the middle half of 3 rounds 1.43 to 1.80" in board.summary
    assert "16.0 ms a step on one rank, 10.0 ms on 2" in board.summary
    assert "you hit the spread" in board.summary and board.error is None
    board.controls["prediction"].value = 2.0
    assert "you are +0.40 off" in board.summary and len(races) == 1


def test_a_new_question_asks_for_a_new_prediction(case: Any, races: list[Any]) -> None:
    board = make(case, FakePool())
    board.controls["measure"].value = True
    for name, value in (("way", "share batch"), ("samples", 8), ("way", "own")):
        board.controls[name].value = value
        assert board.controls["measure"].value is False
        assert len(races) == 1 and "Press “Measure”" in board.summary
    assert "the tiles allow 2.00" in board.summary
    board.set(way="share samples", samples=3)
    assert len(races) == 1 and "as measured before" in board.summary
    board.controls["measure"].value = True
    assert len(races) == 1, "it is looked up"
    board.set(samples=1, measure=True)
    assert len(races) == 1 and "cannot share so few samples" in board.summary


def test_the_board_says_that_a_race_is_on(case: Any, races: list[Any]) -> None:
    board = make(case, FakePool())
    asked = board.notice(**board.state | {"measure": True, "prediction": 1.3})
    assert asked.startswith("You said 1.30 times. The ranks are racing")
    assert board.notice(**board.state) is None
    board.set(measure=True)
    assert board.notice(**board.state) is None


def test_the_board_outlives_its_pool(case: Any, races: list[Any]) -> None:
    pool = FakePool()
    board = make(case, pool)
    board.set(measure=True)
    pool.closed = True
    board.set(prediction=1.0)
    assert "Measured: 1.60 times" in board.summary and board.error is None
    board.set(samples=8, measure=True)
    assert board.error is None and len(races) == 1
    assert "The pool is closed, so this can no longer be measured" in board.summary
    assert board.notice(**board.state) is None


@pytest.mark.slow
def test_the_board_on_live_ranks(case: Any, pool: spnb.WorkerPool) -> None:
    workloads = {"net, 20 rows": case}
    board = race_board(pool, workloads, {"share batch": spnb.Layout(data=2)}, seconds=0.1)
    board.set(measure=True)
    assert "Measured: " in board.summary and board.error is None
