"""The Bayesian model: a real Pyro model, tied parameters, and nets that are refused."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn

from spnb.maths import likelihoods
from spnb.maths.models import BayesianModel


@pytest.fixture(autouse=True)
def _fresh_pyro() -> None:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)


def regression() -> tuple[BayesianModel, Tensor, Tensor]:
    net = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))
    x = torch.linspace(-1, 1, 20).unsqueeze(-1)
    return BayesianModel(net, likelihood=likelihoods.Normal(0.1)), x, x.sin()


def test_svi_accepts_it_and_learns() -> None:
    model, x, y = regression()
    svi = SVI(model, AutoNormal(model), pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    losses = [svi.step(x, y) for _ in range(200)]
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])


def test_nuts_accepts_it() -> None:
    model, x, y = regression()
    mcmc = MCMC(NUTS(model), num_samples=5, warmup_steps=5, disable_progbar=True)
    mcmc.run(x, y)
    assert mcmc.get_samples()["0.weight"].shape == (5, 4, 1)


def test_predictive_accepts_it() -> None:
    model, x, _ = regression()
    draws = Predictive(model, num_samples=7)(x)
    assert draws["y"].shape == (7, 20, 1)
    assert draws["2.weight"].numel() == 7 * 4


def test_a_mini_batch_counts_for_the_whole_data_set() -> None:
    model, x, y = regression()
    guide = AutoNormal(model)
    torch.manual_seed(3)
    trace = pyro.poutine.trace(guide).get_trace(x, y)
    replayed = pyro.poutine.replay(model, trace=trace)
    whole = pyro.poutine.trace(replayed).get_trace(x, y)
    part = pyro.poutine.trace(replayed).get_trace(x[:5], y[:5], num_data=20)
    whole.compute_log_prob()
    part.compute_log_prob()
    expected = whole.nodes["y"]["fn"].log_prob(y)[:5].sum() * 4
    torch.testing.assert_close(part.nodes["y"]["log_prob_sum"], expected)


def test_parameters_can_be_left_deterministic() -> None:
    rule = lambda name, p: None if name.endswith("bias") else dist.Normal(0.0, 1.0)  # noqa: E731
    model = BayesianModel(
        nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)),
        prior=rule,
        likelihood=likelihoods.Normal(0.1),
    )
    assert [site.name for site in model.deterministic] == ["0.bias", "2.bias"]
    x = torch.linspace(-1, 1, 20).unsqueeze(-1)
    svi = SVI(model, AutoNormal(model), pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    before = model.net[0].bias.detach().clone()
    svi.step(x, x.sin())
    assert not torch.equal(before, model.net[0].bias)


def test_tied_parameters_are_drawn_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 3, bias=False)
            self.second = nn.Linear(3, 3, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    model = BayesianModel(Tied())
    assert len(model.drawn) == 1
    weights = torch.randn(1, 9)
    x = torch.randn(4, 3)
    matrix = weights.view(3, 3)
    found = model.predict(weights, torch.zeros(0), x)[0]
    torch.testing.assert_close(found, x @ matrix.T @ matrix.T)


def test_buffers_are_kept() -> None:
    class Scaled(nn.Linear):
        def __init__(self) -> None:
            super().__init__(2, 2)
            self.register_buffer("factor", torch.tensor(3.0))

        def forward(self, x: Tensor) -> Tensor:
            return self.factor * super().forward(x)

    model = BayesianModel(Scaled())
    x = torch.randn(4, 2)
    found = model.predict(model.flatten(model.drawn).unsqueeze(0), torch.zeros(0), x)
    torch.testing.assert_close(found[0], model.net(x))


def test_several_samples_at_once_equal_one_by_one() -> None:
    model, x, _ = regression()
    weights = torch.randn(3, 13)
    one_by_one = torch.cat([model.predict(row[None], torch.zeros(0), x) for row in weights])
    torch.testing.assert_close(model.predict(weights, torch.zeros(0), x), one_by_one)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), "'1' is a BatchNorm1d.*LayerNorm"),
        (nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.3)), "'1' is a Dropout with dropout 0.3"),
        (nn.TransformerEncoderLayer(4, 2), "dropout 0.1"),
        (nn.LSTM(2, 2, num_layers=2, dropout=0.2), "LSTM with dropout 0.2"),
        (nn.InstanceNorm1d(2, track_running_stats=True, affine=True), "running statistics"),
        (nn.ReLU(), "has no parameters"),
        (nn.ModuleDict({"likelihood": nn.Linear(1, 1)}), "called 'likelihood'"),
        (nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1).double()]), "of 2 kinds"),
    ],
)
def test_nets_that_are_refused(net: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BayesianModel(net)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript_is_refused() -> None:
    for made in (
        torch.jit.script(nn.Linear(2, 1)),
        torch.jit.trace(nn.Linear(2, 1), torch.ones(2)),
    ):
        with pytest.raises(TypeError, match="TorchScript"):
            BayesianModel(made)


def test_a_function_is_no_net() -> None:
    with pytest.raises(TypeError, match="not a torch.nn.Module"):
        BayesianModel(torch.tanh)  # type: ignore[arg-type]


def test_at_least_one_parameter_has_a_prior() -> None:
    with pytest.raises(ValueError, match="all 2 parameters deterministic"):
        BayesianModel(nn.Linear(2, 2), prior=lambda name, p: None)
