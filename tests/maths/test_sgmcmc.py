"""SG-MCMC: what its chains keep is the posterior, and it is kept where and when it should be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import spnb
from tests.maths.test_methods import exact, net, regression


def walked(start: spnb.SGMCMC, data: tuple[Tensor, Tensor], steps: int, rate: float,
           **options: object) -> Tensor:  # fmt: skip
    """All draws after so many steps on whole batches, several chains at once."""
    options |= {"batch_size": 40, "epochs": steps, "learning_rate": rate}
    found = spnb.fit(start, data, samples_in_flight=start.size, **options).posterior
    return found.draw(range(found.num_draws), spnb.Key(0)).detach()


@pytest.mark.parametrize(
    ("friction", "rate"), [pytest.param(0.1, 5e-3, marks=pytest.mark.exhaustive), (1.0, 2e-2)]
)
@pytest.mark.slow
def test_chains_walk_over_the_posterior(friction: float, rate: float) -> None:
    """SGHMC and SGLD on whole batches: mean and covariance of the closed form."""
    model, x, y = regression()
    mean, covariance = exact(x, y)
    start = spnb.SGMCMC(model, chains=32, cycles=3, keep=10, exploring=0.2, friction=friction)
    draws = walked(start, (x, y), 1200, rate)
    assert len(draws) == 960
    assert (draws.mean(0) - mean).norm() < 0.05 * mean.norm()
    assert (draws.T.cov() - covariance).norm() < 0.2 * covariance.norm()


@pytest.mark.slow
def test_temperature_sharpens_the_likelihood_as_in_the_elbo() -> None:
    model, x, y = regression()
    cold = spnb.ELBO(temperature=0.1)
    start = spnb.SGMCMC(model, chains=32, cycles=2, keep=10, exploring=0.2)
    draws = walked(start, (x, y), 800, 5e-3, objective=cold)
    precision = x.T @ x / (0.5**2 * 0.1) + torch.eye(3, dtype=torch.float64)
    expected = torch.linalg.inv(precision)
    assert (draws.T.cov() - expected).norm() < 0.3 * expected.norm()


def test_places_are_kept_in_the_sampling_part_of_each_cycle() -> None:
    posterior = spnb.SGMCMC(spnb.BayesianModel(net()), chains=2, cycles=3, keep=2, exploring=0.5)
    at = []
    for step in range(1, 31):  # cycles of 10 steps, of which the last 5 sample
        before = posterior.kept.clone()
        with torch.no_grad():
            posterior.members.fill_(step)
        posterior.observe(step, 30)
        if not torch.equal(before, posterior.kept):
            at.append(step)
    assert at == [8, 10, 18, 20, 28, 30]
    posterior.eval()
    drawn = posterior.draw(range(12), spnb.Key(0))[:, 0].tolist()
    assert drawn == [step for step in at for _ in range(2)]  # a place of each chain in turn


def test_the_step_falls_and_starts_anew() -> None:
    torch.manual_seed(0)
    data = torch.randn(20, 3, dtype=torch.float64), torch.randint(0, 2, (20,))
    start = spnb.SGMCMC(spnb.BayesianModel(net()), chains=1, cycles=2, keep=1)
    history = spnb.fit(start, data, epochs=8, batch_size=20, learning_rate=0.1).history
    rates = [step.learning_rate for step in history.steps]
    assert rates[:4] == pytest.approx([0.1, 0.0853553, 0.05, 0.0146447], abs=1e-7)
    assert rates[4:] == pytest.approx(rates[:4])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "cosine"}, "SGMCMC moves by a rule of its own: leave out optimizer"),
        ({"weight_decay": 0.1}, "leave out optimizer, weight_decay, schedule and warmup_steps"),
        ({"warmup_steps": 0.1}, "SGMCMC moves by a rule of its own"),
        ({"optimizer": lambda p: torch.optim.SGD(p.parameters(), 0.1)}, "a rule of its own"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0 must be a positive number"),
        ({"epochs": 10}, "16 places are to be kept of each chain, and only 5 of the run's 10"),
        ({"num_samples": 2}, "SGMCMC trains all of its 4 samples: leave num_samples out"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, object], message: str) -> None:
    data = torch.zeros(5, 3, dtype=torch.float64), torch.zeros(5).long()
    start = spnb.SGMCMC(spnb.BayesianModel(net()))
    with pytest.raises(ValueError, match=message):
        spnb.fit(start, data, **({"epochs": 40} | options))
    for bad in ({"exploring": 1.0}, {"friction": 0.0}, {"cycles": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            spnb.SGMCMC(start.model, **bad)
