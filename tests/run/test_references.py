"""Against what is known: Pyro's ELBO, the closed-form posterior of linear regression, DDP."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceMeanField_ELBO
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import spnb
from spnb.maths.models import BayesianModel
from spnb.parallel.keyed import Key
from tests.run.problems import Problem, problem, relative

PoolOf = Callable[[int], spnb.WorkerPool]


class GivenNoise(dist.Normal):
    """A normal whose reparametrised sample uses given noise."""

    def __init__(self, loc: Tensor, scale: Tensor, noise: Tensor) -> None:
        super().__init__(loc, scale)
        self.noise = noise

    def rsample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        return self.loc + self.scale * self.noise


def pyro_guide(posterior: spnb.MeanField, num_samples: int, seed: int, step: int) -> Callable:
    """A Pyro guide that draws, particle by particle, the very samples that spnb draws."""
    model = posterior.model
    key = Key(seed).fold("weights", step)
    with torch.no_grad():
        weights = posterior.draw(range(num_samples), key)
        noises = ((weights - posterior.loc) / posterior.scale).unbind()
    turn = iter(noises)

    def guide(x: Tensor, y: Tensor) -> None:
        noise = BayesianModel.unflatten(next(turn), model.drawn)
        loc = BayesianModel.unflatten(posterior.loc, model.drawn)
        scale = BayesianModel.unflatten(posterior.scale, model.drawn)
        for name in loc:
            normal = GivenNoise(loc[name], scale[name], noise[name])
            pyro.sample(name, normal.to_event(loc[name].dim()))

    return guide


@pytest.mark.parametrize("prior", [dist.Normal(0.2, 0.8), spnb.priors.scale_mixture()])
@pytest.mark.parametrize("likelihood", ["categorical", "normal"])
def test_the_elbo_is_pyros(likelihood: str, prior: spnb.priors.Prior) -> None:
    pyro.clear_param_store()
    posterior, (x, y) = problem(25, likelihood=likelihood, prior=prior)
    found = spnb.gradients(posterior, (x, y), num_samples=6, seed=2, step=4)
    fitted = spnb.fit(posterior, (x, y), num_samples=6, batch_size=25, seed=2, learning_rate=1e-9)
    pyro_loss = TraceMeanField_ELBO(num_particles=6)

    loss = pyro_loss.differentiable_loss(
        posterior.model, pyro_guide(posterior, 6, seed=2, step=4), x, y
    )
    trained = dict(posterior.named_parameters())
    if "point" in trained:  # Pyro's gradient of the learned noise arrives at the net's own
        trained["point"] = posterior.model.likelihood.log_scale
    grads = torch.autograd.grad(loss / len(x), list(trained.values()))
    expected = {name: g.view(-1) for name, g in zip(trained, grads, strict=True)}
    assert relative(found, expected) <= 1e-10

    first_step = pyro_loss.differentiable_loss(
        posterior.model, pyro_guide(posterior, 6, seed=2, step=0), x, y
    )
    assert fitted.history.loss[0] * len(x) == pytest.approx(first_step.item(), rel=1e-10)


def test_linear_regression_has_its_closed_form() -> None:
    """The optimum of mean field has the exact mean, and the inverse diagonal of the precision.

    Precision X^T X / sigma^2 + I, mean precision^-1 X^T y / sigma^2.
    """
    torch.manual_seed(1)
    noise = 0.5
    mixing = torch.tensor([[1.0, 0.6, 0.0], [0.0, 1.0, 0.3], [0.0, 0.0, 1.0]]).double()
    x = torch.randn(40, 3).double() @ mixing
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]]).double() + noise * torch.randn(40, 1).double()
    precision = x.T @ x / noise**2 + torch.eye(3)
    mean = torch.linalg.solve(precision, x.T @ y / noise**2).view(-1)
    scale = precision.diagonal().rsqrt()

    net = nn.Linear(3, 1, bias=False).double()
    model = spnb.BayesianModel(net, likelihood=spnb.likelihoods.Normal(noise))
    posterior = spnb.MeanField(model, init_scale=0.1)
    fitted = spnb.fit(
        posterior, (x, y), num_samples=64, samples_in_flight=64, batch_size=40, epochs=1500,
        learning_rate=0.03, schedule="cosine",
    ).posterior  # fmt: skip
    torch.testing.assert_close(fitted.loc.detach(), mean, rtol=0.01, atol=0)
    torch.testing.assert_close(fitted.scale.detach(), scale, rtol=0.01, atol=0)


class Loss(nn.Module):
    """The loss of a rank's rows, as a user of plain DDP would write it."""

    def __init__(self, posterior: spnb.MeanField, num_data: int) -> None:
        super().__init__()
        self.posterior = posterior
        self.num_data = num_data

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        posterior, model = self.posterior, self.posterior.model
        prepared = posterior.prepare()
        weights = posterior.draw(range(5), Key(3).fold("weights", 7), prepared)
        rows = [model.predict(w[None], posterior.point, x) for w in weights]
        data = -model.likelihood.log_likelihood(torch.cat(rows), y).mean()
        return data + posterior.divergence(prepared) / self.num_data


def ddp_gradients(problem: Problem) -> dict[str, Tensor]:
    """Gradients by torch's DistributedDataParallel, each rank with its part of the rows."""
    posterior, (x, y) = problem
    ddp = DistributedDataParallel(Loss(posterior, len(x)))
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    ddp(x.chunk(world_size)[rank], y.chunk(world_size)[rank]).backward()
    return {name: p.grad for name, p in posterior.named_parameters()}


@pytest.mark.parametrize("world_size", [2, 3])
def test_sharing_the_batch_is_ddp(pool_of: PoolOf, world_size: int) -> None:
    posterior, data = problem(24)
    found = pool_of(world_size).run(
        spnb.gradients, posterior, data, layout=spnb.Layout(data=world_size),
        num_samples=5, seed=3, step=7,
    )  # fmt: skip
    expected = pool_of(world_size).run(ddp_gradients, (posterior, data))
    for mine, theirs in zip(found, expected, strict=True):
        assert relative(mine, theirs) <= 1e-12
