"""SG-MCMC: what its chains keep is the posterior, and it is kept where and when it should be."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import spnb
from spnb.maths.posteriors.sgmcmc import places
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


SHARES = (0.0, 0.05, 0.1, 0.2, 0.25, 0.3, 1 / 3, 0.4, 0.5, 0.55, 0.6, 2 / 3, 0.7, 0.8, 0.9, 0.95)


def settings(longest: int) -> Iterator[tuple[int, int, int, float]]:
    """All small runs that have a sampling step for each place, in hundredths or thirds."""
    for total in range(1, longest + 1):
        for exploring in SHARES:
            parts = 3 if exploring in (1 / 3, 2 / 3) else 100
            sampling = (parts - round(exploring * parts)) * total  # in parts of a step
            for cycles in range(1, 6):
                most = sampling // (parts * cycles)
                yield from ((total, cycles, keep, exploring) for keep in range(1, min(most, 7) + 1))


def by_counting(total: int, cycles: int, keep: int, exploring: float) -> dict[int, int] | None:
    """How earlier versions kept places, by floats; None where they left some out."""

    def count(step: int) -> int:
        cycle, within = divmod(step * cycles, total)
        sampled = max(0.0, within / total - exploring) / (1 - exploring)
        return cycle * keep + int(sampled * keep)

    counts = [count(step) for step in range(total + 1)]
    ends = {
        step: counts[step] - 1 for step in range(1, total + 1) if counts[step] > counts[step - 1]
    }
    return ends if list(ends.values()) == list(range(cycles * keep)) else None


def test_every_place_is_kept_once_and_in_order() -> None:
    left_out = 0
    for total, cycles, keep, exploring in settings(40):
        ends = places(total, cycles, keep, exploring)
        assert list(ends.values()) == list(range(cycles * keep))
        steps = list(ends)
        assert steps == sorted(set(steps)) and steps[-1] == total
        for step, place in ends.items():  # in its cycle, and in the part of it that samples
            cycle = place // keep
            first = (cycle + exploring) * total / cycles
            assert first < step + 1e-9 and step <= math.ceil((cycle + 1) * total / cycles)
        before = by_counting(total, cycles, keep, exploring)
        assert before is None or ends == before
        left_out += before is None
    assert left_out > 20


@pytest.mark.parametrize(
    ("total", "cycles", "keep", "exploring"), [(160, 8, 10, 0.5), (6, 1, 3, 0.5), (10, 1, 9, 0.1)]
)
def test_a_run_with_just_enough_steps_fills_all_places(
    total: int, cycles: int, keep: int, exploring: float
) -> None:
    torch.manual_seed(0)
    data = torch.randn(20, 3, dtype=torch.float64), torch.randint(0, 2, (20,))
    start = spnb.SGMCMC(spnb.BayesianModel(net()), 2, cycles, keep, exploring)
    found = spnb.fit(start, data, epochs=total, batch_size=20).posterior
    assert found.finished and found.kept.any(-1).all()
    with pytest.raises(ValueError, match=f"only {cycles * keep - 1} of the run's {total - 1} "):
        spnb.fit(start, data, epochs=total - 1, batch_size=20)


@pytest.mark.parametrize(
    ("method", "words"), [(spnb.SGMCMC, "3 of 16 places of each"), (spnb.SWAG, "3 of its 20 iter")]
)
def test_what_is_unfinished_is_not_sampled_from(
    tmp_path: Path, method: type[spnb.Posterior], words: str
) -> None:
    """Neither as it is, nor copied, nor from a file; trained on, it forgets what it had kept."""
    start = method(spnb.BayesianModel(net()))
    assert not start.finished
    x = torch.randn(4, 3, dtype=torch.float64)
    spnb.predict(start, x)  # what is trained, as ever
    start.kept[..., 3:, :] = 1.0
    start.eval()
    with pytest.warns(UserWarning, match="training had not come to its end"):
        saved = spnb.load(spnb.save(start, tmp_path / "file"), start.model)
    assert saved.training  # it predicts with what is trained
    for posterior in (start, copy.deepcopy(start), saved.eval()):
        assert not posterior.finished
        with pytest.raises(ValueError, match=f"This {method.__name__} cannot be .*: {words}"):
            spnb.predict(posterior, x)
        with pytest.raises(ValueError, match="train it to the end"):
            posterior.draw([0], spnb.Key(0))
    start.kept.fill_(1.0)
    assert start.finished and spnb.predict(start, x, num_samples=2).shape == (2, 4, 2)
    start.forget()
    assert not start.kept.any()


def test_training_forgets_the_places_of_an_earlier_one(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    data = torch.randn(20, 3, dtype=torch.float64), torch.randint(0, 2, (20,))
    first = spnb.fit(spnb.SWAG(spnb.BayesianModel(net())), data, epochs=40).posterior
    monkeypatch.setattr(spnb.SWAG, "observe", lambda self, step, total: None)
    assert not spnb.fit(first, data, epochs=40).posterior.finished
    assert first.finished


def test_swag_keeps_iterates_as_long_as_there_are_steps() -> None:
    """0.55 of 100 steps are 55, which floats make 56."""
    swag = spnb.SWAG(spnb.BayesianModel(net()), iterates=45, start=0.55)
    assert swag._ends(100) == list(range(56, 101))
    with pytest.raises(ValueError, match="45 iterates are to be kept of the last 44 steps"):
        spnb.fit(swag, (torch.zeros(5, 3).double(), torch.zeros(5).long()), epochs=99)


def test_draws_that_were_not_given_are_not_sampled_from() -> None:
    room = spnb.Draws(spnb.BayesianModel(net()), 3).eval()
    with pytest.raises(ValueError, match="3 of its 3 draws are NaN"):
        spnb.predict(room, torch.zeros(2, 3, dtype=torch.float64))


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
        ({"learning_rate": -1.0}, "learning_rate=-1.0 must be above 0"),
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
