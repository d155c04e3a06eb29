"""Laplace: of which weights, in how much memory, on which nets; and after training alone."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint

import spnb
from spnb.maths.posteriors import laplace
from spnb.maths.posteriors.slopes import Slopes
from spnb.run import files
from tests.maths.test_methods import exact, regression

NOISE = 0.1


class Made(nn.Module):
    """One hidden layer; its head is made before or after it."""

    def __init__(self, first: bool = False) -> None:
        super().__init__()
        if first:
            self.head = nn.Linear(8, 1)
        self.body = nn.Sequential(nn.Linear(1, 8), nn.Tanh())
        if not first:
            self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class Heads(nn.Module):
    """Means and log-scales by layers of their own, made around the body."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Linear(6, 2)
        self.body = nn.Sequential(nn.Linear(3, 6), nn.Tanh())
        self.scale = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        return torch.cat([self.mean(h), self.scale(h)], 1)


def line() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(80, 1, dtype=torch.float64, generator=generator)
    return x, x.sin() + NOISE * torch.randn(80, 1, dtype=torch.float64, generator=generator)


def only(*names: str) -> Callable[[str, Tensor], dist.Distribution | None]:
    """A prior for some layers alone."""
    return lambda name, _: dist.Normal(0.0, 1.0) if name.startswith(names) else None


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("weights", ["last", "head", ["head"], "head alone"])
def test_the_spread_of_the_last_layer_is_that_of_a_linear_model(
    first: bool, weights: str | list[str], tmp_path: Path
) -> None:
    """Of its features, whatever the order in which layers were made (Bishop 2006, eq. 3.59)."""
    torch.manual_seed(0)
    alone = weights == "head alone"
    model = spnb.BayesianModel(
        Made(first).double(),
        only("head") if alone else dist.Normal(0.0, 1.0),
        spnb.likelihoods.Normal(NOISE),
    )
    start = spnb.Laplace(model, "full", "last" if alone else weights)
    found = spnb.fit(start, line(), epochs=30, learning_rate=0.02, batch_size=80).posterior
    hidden = dict(found.model.unflatten(found.loc.detach(), found.model.drawn))
    hidden |= found.model.unflatten(found.point.detach(), found.model.deterministic)

    def features(x: Tensor) -> Tensor:
        h = torch.tanh(x @ hidden["body.0.weight"].T + hidden["body.0.bias"])
        return torch.cat([h, torch.ones_like(x)], 1)

    own = features(line()[0])
    covariance = torch.linalg.inv(own.T @ own / NOISE**2 + torch.eye(9))
    new = features(torch.linspace(-4, 4, 9, dtype=torch.float64).unsqueeze(1))
    draws = found.draw(range(20_000), spnb.Key(0)).detach()
    values = found.model.unflatten(draws - found.loc.detach(), found.model.drawn)
    assert all(name.startswith("head") == bool(v.any()) for name, v in values.items())
    away = torch.cat([values["head.weight"].squeeze(1), values["head.bias"]], 1)
    torch.testing.assert_close(
        (away @ new.T).std(0), (new @ covariance * new).sum(1).sqrt(), rtol=0.03, atol=0
    )
    again = spnb.load(spnb.save(found, tmp_path / "file"), model)
    x = line()[0]
    assert torch.equal(spnb.predict(again, x, num_samples=3), spnb.predict(found, x, num_samples=3))
    assert again.linearised == (weights in ("head", ["head"]))


def heads() -> tuple[spnb.BayesianModel, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    model = spnb.BayesianModel(Heads().double(), dist.Normal(0.0, 1.0), "heteroscedastic")
    data = torch.randn(20, 3, dtype=torch.float64), torch.randn(20, 2, dtype=torch.float64)
    return model, data


def precision(posterior: spnb.Posterior) -> Tensor:
    return torch.linalg.inv(posterior.root @ posterior.root.T)


def test_weights_that_lie_apart_have_their_block_of_the_whole_curvature() -> None:
    model, data = heads()
    whole = spnb.fit(spnb.Laplace(model, "full"), data, epochs=0).posterior
    apart = spnb.fit(spnb.Laplace(model, "full", ["mean", "scale.bias"]), data, epochs=0).posterior
    own = torch.cat([torch.arange(14), torch.arange(50, 52)])  # of 14, 24 and 14 weights
    torch.testing.assert_close(precision(apart), precision(whole)[own][:, own])
    drawn = apart.draw([0, 1], spnb.Key(0)) - apart.loc
    assert (drawn[:, own] != 0).all() and (drawn != 0).sum() == 2 * len(own)
    x = data[0]
    assert apart.linearised
    apart.linearised, straight = False, spnb.predict(apart, x, num_samples=4)
    torch.testing.assert_close(straight, spnb.predict(apart, x, num_samples=4))  # they are heads
    diagonal = spnb.Laplace(model, weights=["mean", "scale.bias"])
    diagonal = spnb.fit(diagonal, data, epochs=0).posterior
    torch.testing.assert_close(diagonal.root**-2, precision(whole).diagonal()[own])


class Around(nn.Module):
    """A head, and a way around it."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))
        self.body, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * self.head(torch.tanh(self.body(x)))


class LastAttention(nn.Module):
    """Attention whose outputs are the predictions."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.unsqueeze(-1).expand(-1, -1, 4)
        return self.attend(tokens, tokens, tokens, need_weights=False)[0].mean(1)


def classes(net: nn.Module) -> tuple[spnb.BayesianModel, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, 3, dtype=torch.float64, generator=generator)
    return spnb.BayesianModel(net.double()), (x, torch.randint(0, 2, (12,), generator=generator))


def test_what_is_no_last_layer_is_refused_before_training() -> None:
    model, data = heads()
    with pytest.raises(
        ValueError, match=r"than one layer, 'mean', 'scale'. .* weights=\['mean', 'scale'\]"
    ):
        spnb.fit(spnb.Laplace(model, weights="last"), data)
    found = spnb.fit(spnb.Laplace(model, weights=["mean", "scale"]), data).posterior  # as advised
    assert found.root.shape == (28,)
    model, data = classes(Around())
    with pytest.raises(ValueError, match=r"'gain', 'head'. .* weights=\['gain', 'head'\]"):
        spnb.fit(spnb.Laplace(model, weights="last"), data)
    assert spnb.fit(spnb.Laplace(model, weights=["gain", "head"]), data).posterior.finished
    with pytest.raises(ValueError, match="no layer 'tail'; it has 'gain', 'body', 'head'"):
        spnb.Laplace(model, weights=["head", "tail"])
    partly = spnb.BayesianModel(model.net, only("body"))
    with pytest.raises(ValueError, match="no parameter of 'head' has a prior"):
        spnb.Laplace(partly, weights="head")
    behind = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2)).double()
    with pytest.raises(ValueError, match=r"has no parameter with a prior. .* weights=\['0'\]"):
        spnb.fit(spnb.Laplace(spnb.BayesianModel(behind, only("0")), weights="last"), data)
    wide = nn.Sequential(nn.Linear(3, 3000), nn.Linear(3000, 2)).double()
    with pytest.raises(ValueError, match="A full covariance of 6002 weights"):
        spnb.fit(spnb.Laplace(spnb.BayesianModel(wide), "full", "last"), data)


def test_the_last_layer_of_attention_is_that_of_its_outputs() -> None:
    model, (x, _) = classes(LastAttention())
    model.likelihood = spnb.likelihoods.Normal(0.5)
    found = spnb.fit(spnb.Laplace(model, weights="last"), (x, torch.zeros(12, 4).double()))
    assert found.posterior.root.shape == (20,)


def test_a_file_of_an_earlier_version_loads(tmp_path: Path) -> None:
    """As it is where the layer that was made last is the last one; else a warning says so."""
    for first in (False, True):
        torch.manual_seed(0)
        model = spnb.BayesianModel(Made(first).double(), likelihood="normal")
        posterior = spnb.Laplace(model, weights="last")
        posterior.root.fill_(0.1)
        file = spnb.save(posterior, tmp_path / "file")
        assert '"weights": "last"' in files.read(file, "spnb posterior", "2")[1]["options"]
        loaded = spnb.load(file, model)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            spnb.predict(loaded, line()[0], num_samples=2)
        words = r"lies in \['body.0'\], as an earlier version found it, but .* from 'head'"
        assert [bool(re.search(words, str(w.message))) for w in said] == ([True] * first)


# -- memory ------------------------------------------------------------------------------------


def peak(function: Callable[[], object]) -> int:
    """Most numbers of double precision that were held at once while a function ran."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        function()
    found = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(found, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most // 8


@pytest.mark.parametrize(("structure", "hidden"), [("diagonal", 16), ("full", 2)])
def test_memory_does_not_grow_with_classes(
    monkeypatch: pytest.MonkeyPatch, structure: str, hidden: int
) -> None:
    """A few times the limit, and what is found, whatever their number; whole Jacobians are more."""
    rows, limit = 8, 200_000
    monkeypatch.setattr(laplace, "NUMBERS", limit)
    for classes in (10, 300):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, classes)).double()
        posterior = spnb.Laplace(spnb.BayesianModel(net), structure, "last")
        x = torch.randn(rows, 4, dtype=torch.float64)
        posterior.meet(x[:2])
        held = peak(lambda: posterior._curvature(x))  # noqa: B023
        assert held < 8 * (limit + posterior.root.numel())
        assert posterior._names == {"2.weight", "2.bias"}
    if structure == "diagonal":
        assert rows * classes * posterior.root.numel() > 2 * held


@pytest.mark.parametrize("structure", ["diagonal", "full"])
@pytest.mark.parametrize("numbers", [1, 3000, 20_000])
def test_blocks_of_any_size_add_up_to_the_same(
    monkeypatch: pytest.MonkeyPatch, structure: str, numbers: int
) -> None:
    """Against the formula on the whole Jacobian."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 7)).double()
    model = spnb.BayesianModel(net)
    x = torch.randn(10, 3, dtype=torch.float64)
    monkeypatch.setattr(laplace, "NUMBERS", numbers)
    found = spnb.Laplace(model, structure)._curvature(x)
    slopes, bends = by_hand(net, x)
    wanted = torch.einsum("ncp,ncd,ndq->pq", slopes, bends, slopes)
    if structure == "diagonal":
        wanted = wanted.diagonal()
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def by_hand(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Jacobians of a classifier row by row, and diag(p) - p p' of its probabilities."""
    parameters = list(net.parameters())
    rows = []
    for row in x:
        logits = net(row[None])[0]
        each = [torch.autograd.grad(v, parameters, retain_graph=True) for v in logits]
        rows.append(torch.stack([torch.cat([g.flatten() for g in grads]) for grads in each]))
    p = net(x).detach().softmax(-1)
    return torch.stack(rows), torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)


# -- nets that torch.func cannot take ----------------------------------------------------------


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.state, self.head = kind(3, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.state(x.view(len(x), 4, 3))[0][:, -1])


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True)
        self.enter, self.encode = nn.Linear(3, 6), nn.TransformerEncoder(layer, 1)
        self.head = nn.Linear(6, 2)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encode(self.enter(x.view(len(x), 4, 3))).mean(1))


class Between(nn.Module):
    """Something between two layers."""

    def __init__(self, between: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]) -> None:
        super().__init__()
        self.enter, self.head, self.between = nn.Linear(12, 5), nn.Linear(5, 2), between

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self.enter, x))


def looks(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    h = layer(x)
    return torch.tanh(h) if h.abs().max().item() < 1e6 else h


def masks(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    h = layer(x)
    found = torch.zeros_like(h)
    found[h > 0] = h[h > 0] ** 2
    return found


def writes(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    found = torch.zeros(len(x), 5, dtype=x.dtype)
    found[:] = torch.tanh(layer(x))
    return found


def recomputes(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return checkpoint(lambda v: torch.tanh(layer(v)), x, use_reentrant=False)


HARD: dict[str, Callable[[], nn.Module]] = {
    "LSTM": lambda: Recurrent(nn.LSTM),
    "GRU": lambda: Recurrent(nn.GRU),
    "item": lambda: Between(looks),
    "boolean mask": lambda: Between(masks),
    "in place": lambda: Between(writes),
    "recomputation": lambda: Between(recomputes),
    "encoder": Encoder,
}


@pytest.mark.parametrize("kind", HARD)
@pytest.mark.filterwarnings("ignore:.*not yet implemented the batching rule")
def test_nets_that_torch_func_cannot_take(kind: str) -> None:
    """Curvature and linearised predictions are right, and a warning says once what it costs."""
    torch.manual_seed(0)
    net = HARD[kind]().double()
    data = torch.randn(9, 12, dtype=torch.float64), torch.randint(0, 2, (9,))
    with pytest.warns(UserWarning, match="so its derivatives are taken row by row") as said:
        start = spnb.Laplace(spnb.BayesianModel(net), "full")
        found = spnb.fit(start, data, epochs=0).posterior
        draws = spnb.predict(found, data[0], num_samples=3, samples_in_flight=2)
    assert sum("row by row" in str(warning.message) for warning in said) == 1
    slopes, bends = by_hand(net, data[0])
    wanted = torch.einsum("ncp,ncd,ndq->pq", slopes, bends, slopes)
    torch.testing.assert_close(
        precision(found), wanted + torch.eye(len(wanted)), rtol=1e-8, atol=1e-8
    )
    away = (found.draw(range(3), spnb.Key(0).fold("predict")) - found.loc).detach()
    linear = net(data[0]).detach() + torch.einsum("ncp,sp->snc", slopes, away)
    torch.testing.assert_close(draws, linear, rtol=0, atol=1e-10)


def test_both_ways_to_derivatives_agree() -> None:
    model, (x, _) = classes(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)))
    weights = model.flatten(model.drawn)
    fast, slow = (
        Slopes(model, weights, weights[:0], [site.name for site in model.drawn], one_by_one)
        for one_by_one in (False, True)
    )
    away = torch.randn(3, len(weights), dtype=torch.float64)
    for one, other in (
        *zip(fast.rows(x, range(2)), slow.rows(x, range(2)), strict=True),
        (fast.along(x, away), slow.along(x, away)),
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-14)
    assert not fast.one_by_one


def test_a_net_without_derivatives_is_refused_before_training() -> None:
    def again(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return checkpoint(torch.tanh, layer(x), use_reentrant=True)

    data = torch.randn(9, 12), torch.randint(0, 2, (9,))
    asked = []

    def loss(predictions: Tensor, targets: Tensor) -> Tensor:
        asked.append(predictions.shape)
        return predictions.square().sum((0, 2))

    start = spnb.Laplace(spnb.BayesianModel(Between(again)))
    with pytest.raises(ValueError, match="Laplace needs derivatives .* for this Between; "):
        spnb.fit(start, data, objective=spnb.Objective(loss))
    assert not asked


# -- after training alone ----------------------------------------------------------------------


@pytest.mark.parametrize("structure", ["full", "diagonal"])
def test_no_epochs_find_the_curvature_of_a_trained_net(structure: str) -> None:
    """The closed form of a linear model; the weights stay as the user trained them."""
    model, x, y = regression()
    mean, covariance = exact(x, y)
    with torch.no_grad():
        model.net.weight.copy_(mean)
    fitted = spnb.fit(spnb.Laplace(model, structure), (x, y), epochs=0, batch_size=7)
    found = fitted.posterior
    assert torch.equal(found.loc.detach(), mean) and not fitted.history.steps
    if structure == "full":
        torch.testing.assert_close(found.root @ found.root.T, covariance, rtol=1e-9, atol=0)
    else:
        wanted = torch.linalg.inv(covariance).diagonal()
        torch.testing.assert_close(found.root**-2, wanted, rtol=1e-9, atol=0)
    again = spnb.fit(found, (x, y), epochs=0, objective=spnb.ELBO(temperature=0.25)).posterior
    assert (again.root.norm() < found.root.norm()) and torch.equal(again.loc, found.loc)


def test_no_epochs_are_refused_where_nothing_would_be_done() -> None:
    model, x, y = regression()
    for start, least in ((spnb.SWAG(model), 1), (spnb.Laplace(model), 0), (spnb.Point(model), 1)):
        with pytest.raises(ValueError, match=f"epochs={least - 1} must be at least {least}"):
            spnb.fit(start, (x, y), epochs=least - 1)
    for epochs in (False, 0.0):
        with pytest.raises(TypeError, match="epochs=.* must be a whole number"):
            spnb.fit(spnb.Laplace(model), (x, y), epochs=epochs)


def test_without_its_curvature_it_is_not_sampled_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zero, as earlier versions had it, is what training at a temperature of zero leaves."""
    model, x, y = regression()
    start = spnb.Laplace(model)
    assert not start.finished and math.isnan(start.root[0])
    assert torch.equal(spnb.predict(start, x, num_samples=1), model.net(x).detach()[None])
    with pytest.warns(UserWarning, match="training had not come to its end"):
        loaded = spnb.load(spnb.save(start, tmp_path / "file"), model)
    assert torch.equal(spnb.predict(loaded, x), spnb.predict(start, x))
    loaded.eval()
    with pytest.raises(ValueError, match=r"Laplace cannot be sampled .* epochs=0\) finds it"):
        spnb.predict(loaded, x)
    found = spnb.fit(loaded, (x, y), epochs=0).posterior  # as advised
    assert found.finished and spnb.predict(found, x, num_samples=2).isfinite().all()
    monkeypatch.setattr(spnb.Laplace, "finish", lambda *_: None)
    assert not spnb.fit(found, (x, y)).posterior.finished  # it forgot the earlier one
