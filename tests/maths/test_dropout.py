"""Monte Carlo dropout leaves out input units: a sample is the plain net on zeroed inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spnb
from spnb.maths.layers import input_units

RATE = 0.4


class Attends(nn.Module):
    """Attention over five tokens; keys and values of other sizes where asked for."""

    def __init__(self, **sizes: int) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 8)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True, **sizes)
        self.sizes = [sizes.get("kdim", 8), sizes.get("vdim", 8)]

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.enter(x)
        key, value = (tokens[..., :size] for size in self.sizes)
        return self.attend(tokens, key, value, need_weights=False)[0]


def after_one(layer: nn.Module) -> nn.Module:
    """A layer of six channels, behind one that the inputs come to first."""
    return nn.Sequential(nn.Conv1d(3, 6, 1), nn.Tanh(), layer)


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "Linear": (lambda: nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2)), (3,)),
    "Conv1d": (lambda: after_one(nn.Conv1d(6, 4, 3)), (3, 7)),
    "groups": (lambda: after_one(nn.Conv1d(6, 4, 3, groups=2)), (3, 7)),
    "depthwise": (lambda: after_one(nn.Conv1d(6, 12, 3, groups=6)), (3, 7)),
    "transposed": (lambda: after_one(nn.ConvTranspose1d(6, 4, 3, 2)), (3, 7)),
    "transposed, groups": (lambda: after_one(nn.ConvTranspose1d(6, 4, 3, groups=2)), (3, 7)),
    "Conv2d, depthwise": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, groups=6, padding=1)),
        (3, 4, 4),
    ),
    "attention": (Attends, (5, 6)),
    "attention, other keys": (lambda: Attends(kdim=3, vdim=5), (5, 6)),
}


def multiplied(values: Tensor, factors: Tensor) -> Tensor:
    """Inputs whose channels are multiplied: the second dimension, or the last of features."""
    is_last = values.shape[-1] == len(factors)
    return values * factors if is_last else values * factors.view(-1, *[1] * (values.dim() - 2))


@pytest.mark.parametrize("kind", NETS)
def test_a_sample_is_the_plain_net_on_zeroed_inputs(kind: str) -> None:
    torch.manual_seed(0)
    make, shape = NETS[kind]
    net = make().double()
    posterior = spnb.MCDropout(spnb.BayesianModel(net), RATE)
    x = torch.randn(4, *shape, dtype=torch.float64)
    posterior.meet(x)
    left_out = 0
    for sample in range(10):
        (weights,) = posterior.draw([sample], spnb.Key(1)).detach()
        values = posterior.model.unflatten(weights, posterior.model.drawn)
        hooks = []
        layers: dict[nn.Module, list[Tensor]] = {}
        for name in posterior.rates:
            layer = net.get_submodule(name.rpartition(".")[0])
            factors = factors_of(values[name], net.get_parameter(name), layer)
            left_out += int((factors == 0).sum())
            assert ((factors == 0) | (factors - 1 / (1 - RATE)).abs().lt(1e-12)).all()
            layers.setdefault(layer, []).append(factors)
        for layer, factors in layers.items():

            def hook(module: nn.Module, args: Any, own: list[Tensor] = factors) -> Any:
                each = own * len(args) if len(own) == 1 else own
                return tuple(multiplied(v, f) for v, f in zip(args, each, strict=True))

            hooks.append(layer.register_forward_pre_hook(hook))
        if isinstance(net, Attends):  # which calls no module for its outputs
            hooks.append(projected(net.attend, layers.pop(net.attend.out_proj)[0]))
        expected = net(x)
        for each in hooks:
            each.remove()
        found = posterior.model.predict(weights.unsqueeze(0), posterior.point, x)[0]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    units = sum(input_units(net)[name][0].count for name in posterior.rates)
    assert 0.25 * 10 * units < left_out < 0.55 * 10 * units


class Put:
    """A weight that is another one until it is removed."""

    def __init__(self, layer: nn.Linear, factors: Tensor) -> None:
        self.weight, self.own = layer.weight, layer.weight.detach().clone()
        self.weight.data.mul_(factors)

    def remove(self) -> None:
        self.weight.data.copy_(self.own)


def projected(attention: nn.MultiheadAttention, factors: Tensor) -> Put:
    """Attention with zeroed inputs of its output layer, whose columns they meet."""
    return Put(attention.out_proj, factors)


def factors_of(drawn: Tensor, own: Tensor, layer: nn.Module) -> Tensor:
    """What became of each input channel, which must be the same wherever it is met: ``[in]``."""
    ratio = drawn / own.detach()
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        ratio = ratio.flatten(2).unflatten(0, (layer.groups, -1)).transpose(1, 2).flatten(0, 1)
        ratio = ratio.flatten(1)  # [in, ...]
    elif isinstance(layer, nn.ConvTranspose1d):
        ratio = ratio.flatten(1)
    else:
        ratio = ratio.T
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))
    return ratio[:, 0]


def test_units_are_left_out_one_by_one_in_a_depthwise_convolution() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 2, 1))
    posterior = spnb.MCDropout(spnb.BayesianModel(net), 0.2)
    drawn = posterior.draw(range(1000), spnb.Key(0)).detach()
    filters = posterior.model.unflatten(drawn, posterior.model.drawn)["1.weight"].flatten(2)
    gone = (filters == 0).all(2).flatten(1).double()  # [S, 8]
    assert abs(gone.mean().item() - 0.2) < 0.02
    assert (gone.T.corrcoef() - torch.eye(8)).abs().max() < 0.15


class HeadFirst(nn.Module):
    """The head is made before the body; with a way around it, if asked for."""

    def __init__(self, around: bool = False) -> None:
        super().__init__()
        self.head = nn.Linear(8 + 3 * around, 2)
        self.body = nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 8))
        self.around = around

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        return self.head(torch.cat([h, x], 1) if self.around else h)


class Tokens(nn.Module):
    """Numbers of tokens, of which an embedding makes the inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.mix, self.embed = nn.Linear(8, 2), nn.Linear(4, 8), nn.Embedding(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.mix(self.embed(x))).mean(1))


class Cuts(nn.Module):
    """Rounds its inputs, through which no gradient comes."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.body = nn.Linear(8, 2), nn.Linear(3, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x.round().detach()))


@pytest.mark.parametrize(
    ("make", "rates"),
    [
        (HeadFirst, {"head.weight", "body.3.weight"}),
        (lambda: HeadFirst(around=True), {"body.3.weight"}),
        (Tokens, {"head.weight"}),
        (Cuts, {"head.weight"}),
    ],
)
def test_a_number_spares_the_layers_that_the_inputs_come_to(
    make: Callable[[], nn.Module], rates: set[str]
) -> None:
    torch.manual_seed(0)
    net = make()
    x = torch.randint(9, (12, 5)) if isinstance(net, Tokens) else torch.randn(12, 3)
    data = x, torch.randint(0, 2, (12,))
    start = spnb.MCDropout(spnb.BayesianModel(net), 0.3)
    found = spnb.fit(start, data).posterior
    assert set(found.rates) == rates
    start.eval()
    spnb.predict(start, x, num_samples=2)
    assert set(start.rates) == rates and start.options() == found.options()
    by_name = spnb.MCDropout(spnb.BayesianModel(net), {name: 0.1 for name in input_units(net)})
    assert spnb.fit(by_name, data).posterior.rates == by_name.rates


def test_a_net_whose_layers_all_meet_the_inputs_is_refused_before_training() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.one(x) + self.other(x)

    start = spnb.MCDropout(spnb.BayesianModel(Wide()))
    with pytest.raises(ValueError, match="No unit would ever be left out: the net has the layers"):
        spnb.fit(start, (torch.randn(8, 3), torch.zeros(8).long()))


def test_a_weight_that_an_embedding_shares_loses_no_units() -> None:
    net = Tokens()
    net.head = nn.Linear(4, 9)
    net.mix, net.out = nn.Linear(4, 4), nn.Linear(4, 4)
    net.head.weight = net.embed.weight
    assert list(input_units(net)) == ["mix.weight", "out.weight"]
    with pytest.raises(ValueError, match=r"\['head.weight'\] are no weights of layers"):
        spnb.MCDropout(spnb.BayesianModel(net), {"head.weight": 0.1})
