"""Members that start from trained networks, and trained members that are trained on."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import spnb


class Net(nn.Module):
    """A small network with a constant, a setting, and a row for padding."""

    def __init__(self, seed: int = 0, slope: float = 0.1, width: int = 4) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.enter, self.leave = nn.Linear(3, width), nn.Linear(width, 2)
        self.act = nn.LeakyReLU(slope)
        self.embed = nn.Embedding(5, 3, padding_idx=0)
        self.register_buffer("scale", torch.tensor(2.0))
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.act(self.enter(self.scale * x + self.embed.weight[1])))


def prior(name: str, parameter: Tensor) -> dist.Distribution | None:
    """All but the last bias, which all members share."""
    return None if name == "leave.bias" else dist.Normal(0.0, 1.0)


def trained(number: int = 3) -> list[Net]:
    """Networks as a user may have trained them: alike but for values that have a prior."""
    return [Net(seed).eval() for seed in range(number)]


def model() -> spnb.BayesianModel:
    return spnb.BayesianModel(Net(), prior)


DATA = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2
KINDS = {"Ensemble": (spnb.Ensemble, "size"), "SGMCMC": (spnb.SGMCMC, "chains")}


@pytest.mark.parametrize("kind", KINDS)
def test_members_start_from_trained_networks(kind: str) -> None:
    """The members predict what the networks do, in training and from there on."""
    method, count = KINDS[kind]
    nets = trained()[::-1]  # the first one is not the model's
    posterior = method(model(), nets=nets)
    assert posterior.size == 3 and posterior.options()[count] == 3
    found = spnb.predict(posterior, DATA[0], num_samples=3)
    for net, own in zip(nets, found, strict=True):
        torch.testing.assert_close(own, net(DATA[0]).detach())
    assert torch.equal(method(model(), nets=iter(nets)).members, posterior.members)
    assert torch.equal(method(model(), 3, nets=tuple(nets)).members, posterior.members)
    assert method(model()).size == (5 if kind == "Ensemble" else 4)


@pytest.mark.parametrize("kind", KINDS)
def test_training_goes_on_from_where_members_are(kind: str) -> None:
    """A trained posterior trained on is not drawn anew: so small a rate moves nothing."""
    start = KINDS[kind][0](model(), nets=trained())
    options = {"epochs": 32, "learning_rate": 1e-9, "objective": spnb.ELBO(temperature=0.0)}
    first = spnb.fit(start, DATA, **(options | {"learning_rate": 0.05})).posterior
    assert (first.members - start.members).abs().max() > 0.01
    then = spnb.fit(first, DATA, **options).posterior
    torch.testing.assert_close(then.members, first.members, rtol=0, atol=1e-5)
    kept = spnb.fit(start, DATA, **options).posterior
    torch.testing.assert_close(kept.members, start.members, rtol=0, atol=1e-5)


def changed(change: Callable[[Net], object], index: int = 2) -> list[Net]:
    nets = trained()
    with torch.no_grad():
        change(nets[index])
    return nets


@pytest.mark.parametrize(
    ("nets", "options", "message"),
    [
        (lambda: [*trained(), trained()[1]], {}, r"nets\[1\] and nets\[3\] hold the same values"),
        (trained, {"size": 5}, "nets holds 3 networks, but size=5: leave size out"),
        (list, {}, "nets is empty"),
        (lambda: [Net(0), Net(1, width=5)], {}, r"nets\[1\] .*'enter.out_features' is 5, not 4"),
        (lambda: [Net(0), Net(1, slope=0.2)], {}, "'act.negative_slope' is 0.2, not 0.1"),
        (lambda: changed(lambda n: setattr(n, "act", nn.ReLU())), {}, "'act' is a ReLU, not a L"),
        (lambda: changed(lambda n: delattr(n, "embed")), {}, "'embed' is missing, not a Embedding"),
        (lambda: changed(lambda n: n.scale.add_(1)), {}, "in 'scale', which has no prior"),
        (lambda: changed(lambda n: n.leave.bias.add_(1)), {}, "in 'leave.bias', which has no"),
        (lambda: changed(lambda n: n.embed.weight[0].add_(1)), {}, r"in 'embed.weight\[0\]', wh"),
        (lambda: [nn.Linear(3, 2)], {}, r"nets\[0\] is not like .*: it is a Linear, not a Net"),
    ],
)
def test_networks_that_are_no_members_are_refused(
    nets: Callable[[], list[nn.Module]], options: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        spnb.Ensemble(model(), nets=nets(), **options)


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(TypeError, match=r"nets\[1\] is a dict, not a torch.nn.Module"):
        spnb.Ensemble(model(), nets=[trained()[0], {}])
    with pytest.raises(TypeError, match="nets is a Net; give a list of networks"):
        spnb.SGMCMC(model(), nets=trained()[0])


def test_networks_of_another_precision_are_taken() -> None:
    nets = [copy.deepcopy(net).double() for net in trained()]
    found = spnb.Ensemble(model(), nets=nets).members
    assert torch.equal(found, spnb.Ensemble(model(), nets=trained()).members)
