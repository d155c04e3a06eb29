"""A module with other parameters: as torch's own functional_call, and nothing stays behind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from spnb.maths.stateless import Stateless


class Tied(nn.Module):
    """Two layers that share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).tanh())


@pytest.mark.parametrize(
    "net", [Tied(), nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)), nn.GRU(3, 3)]
)
def test_it_computes_what_torch_does(net: nn.Module) -> None:
    x = torch.randn(5, 3)
    values = {name: torch.randn_like(p) for name, p in net.named_parameters()}
    expected, before = functional_call(net, values, (x,)), net(x)
    with Stateless(net).at(values) as held:
        found = held(x)
        next(iter(values.values())).mul_(2)  # it reads the very tensors
        changed = held(x)
    if isinstance(found, tuple):
        found, expected, before, changed = found[0], expected[0], before[0], changed[0]
    torch.testing.assert_close(found, expected)
    assert not torch.equal(found, changed)
    after = net(x)
    assert torch.equal(before, after[0] if isinstance(after, tuple) else after)


def test_an_error_leaves_the_module_as_it_was() -> None:
    net = nn.Linear(3, 2)
    own = net.weight
    values = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    with pytest.raises(RuntimeError), Stateless(net).at(values) as held:
        held(torch.randn(5, 7))
    assert net.weight is own and isinstance(net.bias, nn.Parameter)
    with pytest.raises(KeyError), Stateless(net).at({"weight": own}):
        pass
    assert net.weight is own and isinstance(net.bias, nn.Parameter)
