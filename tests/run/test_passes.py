"""Passes are looked at without numbers where that is possible, and else with numbers, alike."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

import spnb
from spnb.run import costs, passes
from spnb.run.footprint import footprint
from spnb.run.memory import needed
from tests.run.nets import (
    BY_VALUE,
    CLASSES,
    FEATURES,
    NETS,
    PLAIN,
    STEPS,
    Branch,
    Masked,
    Recurrent,
    data,
)

H100 = spnb.machines.H100
UNIT = replace(H100, launch=0.0, flops=1.0)
"""A machine on which a pass takes as many seconds as it has floating-point operations."""


def posterior_of(net: nn.Module) -> spnb.MeanField:
    return spnb.MeanField(spnb.BayesianModel(net))


def run_for_real(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take fake tensors away."""

    def refuse(**_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(passes, "FakeTensorMode", refuse)


@pytest.mark.parametrize("name", PLAIN)
def test_a_real_pass_counts_as_one_without_numbers(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory to the byte, operations to the last one."""
    posterior, batch = posterior_of(PLAIN[name]()), data(name)
    found = footprint(posterior, *batch)
    counted = costs.count(posterior, batch, 16, H100), costs.count(posterior, batch, 16, UNIT)
    run_for_real(monkeypatch)
    assert footprint(posterior, *batch) == found
    assert counted == (
        costs.count(posterior, batch, 16, H100),
        costs.count(posterior, batch, 16, UNIT),
    )


@pytest.mark.parametrize("name", PLAIN)
def test_plain_networks_are_never_run(name: str) -> None:
    seen = set()
    net = PLAIN[name]()
    net.register_forward_pre_hook(lambda _, inputs: seen.add(type(inputs[0])))
    posterior, batch = posterior_of(net), data(name)
    footprint(posterior, *batch)
    assert seen == {FakeTensor}


@pytest.mark.parametrize("name", NETS)
def test_whatever_is_trained_is_planned(name: str) -> None:
    posterior, batch = posterior_of(NETS[name]()), data(name)
    before = copy.deepcopy(posterior.state_dict() | posterior.model.state_dict())
    spnb.fit(posterior, batch, num_samples=2)
    for objective in (None, spnb.PredictiveNLL(), spnb.Objective(lambda p, y: p.std(0).mean())):
        options = {"num_samples": 4, "objective": objective}
        found = spnb.plan(posterior, batch, machine=H100, world_size=2, **options)
        assert len(found.predictions) == 2 and 0 < found.best.seconds < 1
        assert 0 < needed(posterior, batch, **options).total < found.best.memory * 2
    measured = costs.measure(posterior, batch, 16)
    assert replace(found.costs, pass_fixed=0, pass_per_row=0, origin="measured") == replace(
        measured, pass_fixed=0, pass_per_row=0
    )
    after = posterior.state_dict() | posterior.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before), "it stays as it was"


def test_a_branch_costs_what_the_same_network_without_it_costs() -> None:
    """The same operations, but for those that ask for the number: abs, max, item, and the rest."""
    torch.manual_seed(0)
    batch = data("branch")
    with_branch, without = (posterior_of(Branch(by_value=value)) for value in (True, False))
    assert footprint(with_branch, *batch) == footprint(without, *batch)
    asked, plain = (costs.count(p, batch, 16, UNIT) for p in (with_branch, without))
    assert asked == plain


def test_operations_of_a_recurrent_layer_are_those_of_its_matrix_products() -> None:
    """Gates of all steps at once, then step by step; nothing goes back to the first state."""
    hidden, rows = 8, 16
    gates = 4 * hidden
    forward = STEPS * gates * (FEATURES + hidden) + hidden * CLASSES
    backward = forward + (STEPS - 1) * gates * hidden + hidden * CLASSES
    for name in ("lstm", "by value"):
        found = costs.count(posterior_of(NETS[name]()), data(name), rows, UNIT)
        assert found.passes(rows) == 2 * rows * (forward + backward)


def test_rows_decide_where_a_mask_does() -> None:
    """A mask that chooses nobody leaves less behind than one that chooses everybody."""
    posterior, (x, y) = posterior_of(Masked(64)), data("masked")
    none, every = (torch.cat([torch.full((16, 1), sign), x[:, 1:]], 1) for sign in (-1.0, 1.0))
    few, many = (footprint(posterior, values, y).kept(16) for values in (none, every))
    assert many - few >= 4 * 16 * 64  # what the nonlinearity made


def test_a_real_pass_has_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line through a few rows is the line through many, where memory is one."""
    posterior, batch = posterior_of(PLAIN["mlp"]()), data("mlp", 500)
    counted = costs.count(posterior, batch, 500, UNIT)
    run_for_real(monkeypatch)
    seen: set[int] = set()
    posterior.model.net.register_forward_pre_hook(lambda _, inputs: seen.add(len(inputs[0])))
    found = costs.count(posterior, batch, 500, UNIT)
    assert max(seen) == passes.ROWS < 500
    for rows in (10, 500):
        assert found.passes(rows) == pytest.approx(counted.passes(rows))
        assert found.peak(rows) == pytest.approx(counted.peak(rows), rel=0.01)


@pytest.mark.parametrize("name", BY_VALUE)
@pytest.mark.parametrize("absent", ["net", "data"])
def test_what_has_to_be_run_cannot_be_counted_without_numbers(name: str, absent: str) -> None:
    x, y = data(name)
    with torch.device("meta" if absent == "net" else "cpu"):
        net = NETS[name]()
    batch = (x.to("meta"), y) if absent == "data" else (x, y)
    for ask in (
        lambda: needed(posterior_of(net), batch),
        lambda: costs.count(posterior_of(net), batch, 16, H100),
        lambda: spnb.plan(posterior_of(net), batch, machine=H100, world_size=1),
    ):
        with pytest.raises(ValueError, match=r"has to be run to be counted.*on a CPU, not on the"):
            ask()


@pytest.mark.parametrize("name", ["mlp", "gru", "words"])
def test_what_need_not_be_run_is_counted_without_numbers(name: str) -> None:
    with torch.device("meta"):
        net = PLAIN[name]()
    absent, (x, y) = posterior_of(net), data(name)
    real = needed(posterior_of(PLAIN[name]()), (x, y))
    assert needed(absent, (x.to("meta"), y)) == needed(absent, (x, y)) == real


def test_a_wrong_input_is_blamed_on_itself(caplog: pytest.LogCaptureFixture) -> None:
    with torch.device("meta"):
        net = PLAIN["mlp"]()
    posterior = posterior_of(net)
    x, y = torch.empty(16, FEATURES + 1, device="meta"), data("mlp")[1]
    with pytest.raises(ValueError, match=r"The Sequential fails on inputs of shape \(16, 7\)") as e:
        costs.count(posterior, (x, y), 16, H100)
    assert isinstance(e.value.__cause__, RuntimeError) and not caplog.records


def test_two_at_once_keep_twice_as_much_where_vmap_cannot_take_the_network() -> None:
    assert footprint(posterior_of(Recurrent(nn.GRU)), *data("gru")).at_once == pytest.approx(
        1.0, abs=0.01
    )


def test_a_module_that_remembers_is_left_alone() -> None:
    """What a forward pass without numbers stores does not come back."""

    class Remembers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.last = nn.Linear(FEATURES, CLASSES), None

        def forward(self, x: Tensor) -> Tensor:
            self.last = self.layer(x)
            return self.last

    net = Remembers()
    footprint(posterior_of(net), *data("mlp"))
    assert net.last is None
