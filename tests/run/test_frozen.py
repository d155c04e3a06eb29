"""What is not to be trained stays as it is: frozen parameters, and rows that stand for padding."""

from __future__ import annotations

from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import spnb
from tests.methods import METHODS
from tests.run.problems import problem, relative


class Words(nn.Module):
    """Sums the embeddings of words; index 0 is padding."""

    def __init__(self, head: nn.Module | None = None) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 5, padding_idx=0)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embed(x).sum(1))


WORDS = {"head.weight": 0.3}
"""Dropout rates: a number would spare the layer that embeddings come to first."""


def half_frozen() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 3))
    net[0].requires_grad_(False)
    return net


def head_alone(name: str, parameter: Tensor) -> spnb.priors.Prior | None:
    return dist.Normal(0.0, 1.0) if name.startswith("2.") else None


@pytest.mark.parametrize("prior", [None, head_alone])
def test_a_frozen_layer_is_neither_drawn_nor_trained(prior: spnb.priors.Prior | None) -> None:
    mean_field, data = problem(net=half_frozen, prior=prior)
    model = mean_field.model
    assert [site.name for site in model.sites] == ["2.weight", "2.bias"]
    before = model.net[0].weight.clone()  # type: ignore[index]
    trained = spnb.fit(mean_field, data, learning_rate=0.1, epochs=5).posterior
    layer = trained.model.net[0]  # type: ignore[index]
    assert torch.equal(layer.weight, before) and layer.weight.grad is None
    # The head alone is trained, on the features that the frozen layer makes.
    x, y = data
    features = model.net[:2](x)  # type: ignore[index]
    torch.manual_seed(0)
    alone = spnb.BayesianModel(model.net[2])  # type: ignore[index]
    expected = spnb.fit(
        spnb.MeanField(alone, init_scale=0.3), (features, y), learning_rate=0.1, epochs=5
    ).posterior
    torch.testing.assert_close(trained.loc, expected.loc, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_leaves_it_frozen(name: str) -> None:
    posterior, data = problem(net=half_frozen)
    before = {n: p.clone() for n, p in posterior.model.net.named_parameters()}
    fitted = spnb.fit(METHODS[name](posterior.model), data, batch_size=2, learning_rate=0.01)
    for parameter, value in before.items():
        if parameter.startswith("0."):
            assert torch.equal(fitted.posterior.model.net.get_parameter(parameter), value)
    weights = fitted.posterior.draw(range(2), spnb.Key(0))
    assert weights.shape[1] == 33


def test_files_and_chains_know_nothing_of_frozen_parameters(tmp_path: Path) -> None:
    posterior, (x, y) = problem(net=half_frozen)
    path = spnb.save(posterior, tmp_path / "q.safetensors")
    loaded = spnb.load(path, posterior.model)
    assert torch.equal(spnb.predict(loaded, x), spnb.predict(posterior, x))
    chains = spnb.nuts(posterior.model, (x, y), num_chains=1, num_samples=4, warmup=2)
    assert chains.posterior.draws.shape == (4, 33)
    trace = pyro.poutine.trace(posterior.model).get_trace(x, y)  # the Pyro model
    assert not [name for name, site in trace.nodes.items() if site["type"] == "param"]


def test_a_net_all_of_which_is_frozen_is_refused() -> None:
    net = half_frozen().requires_grad_(False)
    with pytest.raises(ValueError, match=r"All 4 parameters .* frozen.*requires_grad_\(True\)"):
        spnb.BayesianModel(net)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_refused(dtype: torch.dtype) -> None:
    net = nn.Linear(12, 3)
    with pytest.raises(ValueError, match=rf"parameters are {dtype}: .*net.float\(\)"):
        spnb.BayesianModel(net.to(dtype))
    model = spnb.BayesianModel(net.float())
    for module in (model, spnb.MeanField(model), spnb.Ensemble(model)):
        with pytest.raises(ValueError, match=r"net.float\(\)"):
            module.to(dtype)
        kinds = {p.dtype for p in [*module.parameters(), *model.parameters()]}
        assert kinds == {torch.float32}
    posterior, data = spnb.MeanField(model), problem(dtype=torch.float32)[1]
    model.net.to(dtype)
    for run in (spnb.fit, spnb.score):
        with pytest.raises(ValueError, match=r"net.float\(\)"):
            run(posterior, data)


# -- padding --------------------------------------------------------------------------------------


def sentences(padding: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(1, 7, (24, 4), generator=generator)
    longer = nn.functional.pad(words, (0, padding))
    return longer, torch.randint(3, (24,), generator=generator)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_more_padding_changes_no_prediction(name: str) -> None:
    torch.manual_seed(0)
    model = spnb.BayesianModel(Words())
    posterior = METHODS[name](model) if name != "MCDropout" else spnb.MCDropout(model, WORDS)
    posterior = spnb.fit(posterior, sentences(3), batch_size=2, learning_rate=0.01).posterior
    short, long = (spnb.predict(posterior, sentences(n)[0]) for n in (0, 30))
    torch.testing.assert_close(short, long)
    assert len(short) == 1 or short.std(0).max() > 0


def test_it_is_so_for_a_row_that_is_not_zero_and_in_every_path() -> None:
    torch.manual_seed(0)
    net = Words().double()
    with torch.no_grad():
        net.embed.weight[0] = 1.0
    model = spnb.BayesianModel(net)
    posterior = spnb.MeanField(model, init_scale=0.3)
    data = sentences(3)
    expected = spnb.gradients(posterior, data, num_samples=4)
    several = spnb.gradients(posterior, data, num_samples=4, samples_in_flight=4)
    assert relative(several, expected) <= 1e-12
    gradient = model.unflatten(
        spnb.gradients(posterior, data, objective=spnb.ELBO(temperature=0.0))["loc"], model.drawn
    )["embed.weight"]
    assert not gradient[0].any() and gradient[1:].any()
    # One sample is the net with the drawn weights in it, but for the row of the padding.
    weights = posterior.draw([3], spnb.Key(0).fold("predict"))
    own = model.unflatten(weights[0].detach(), model.drawn)
    by_hand = Words().double()
    by_hand.load_state_dict(own)
    with torch.no_grad():
        by_hand.embed.weight[0] = 1.0
        expected_predictions = by_hand(data[0])
    found = spnb.predict(posterior, data[0], num_samples=4)[3]
    torch.testing.assert_close(found, expected_predictions, rtol=0, atol=1e-12)


class Bag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.EmbeddingBag(7, 3, mode="sum", padding_idx=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.embed(x)


class TiedHead(nn.Module):
    """The head reads the row of the padding as well, so it is a weight like any other."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 5, padding_idx=0)
        self.head = nn.Linear(5, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embed(x).sum(1))


def test_bags_and_tied_heads() -> None:
    torch.manual_seed(0)
    bag = spnb.MeanField(spnb.BayesianModel(Bag()), init_scale=0.5)
    x, _ = sentences()
    padded = nn.functional.pad(x.masked_fill(x == 2, 3), (0, 9), value=2)
    found = spnb.predict(bag, padded, num_samples=3)
    torch.testing.assert_close(found, spnb.predict(bag, padded[:, :4], num_samples=3))
    tied = spnb.MeanField(spnb.BayesianModel(TiedHead()), init_scale=0.5)
    assert spnb.predict(tied, x, num_samples=50)[..., 0].std(0).min() > 0
