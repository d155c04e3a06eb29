"""The posterior explorer: its fits, its numbers, and that it follows its controls."""

from __future__ import annotations

import copy

import pytest
import torch
from pyro.infer import Predictive
from pyro.infer.mcmc.util import initialize_model
from torch import nn

import spnb
from spnb.maths.potential import potential
from spnb.teach.datasets import co2
from spnb.teach.explore.fits import Fits, stack
from spnb.teach.explore.posterior import longest_gap, posterior_explorer, share_inside


@pytest.fixture
def fits() -> Fits:
    """Quick fits of a tiny net: two units, a few steps."""
    record = co2()
    train = record.between(1963.4, 1965.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = nn.Sequential(nn.Linear(1, 2), nn.Tanh(), nn.Linear(2, 1))

    def make_model(prior_scale: float, noise: float) -> spnb.BayesianModel:
        scaled = noise / train.values.std().item()
        return spnb.BayesianModel(
            copy.deepcopy(plain), spnb.priors.fan_in(prior_scale), spnb.likelihoods.Normal(scaled)
        )

    return Fits(
        make_model,
        train,
        record.between(1965.0, 1965.5),
        num_samples=8,
        steps=3,
        warmup=3,
        depth=2,
    )


def test_the_flat_potential_is_that_of_the_pyro_model(fits: Fits) -> None:
    model = fits.make_model(2.0, 0.5)
    start, pyro_potential, _, _ = initialize_model(model, fits.data)
    ours = potential(model, *fits.data)
    gaps = []
    for shift in (0.0, 0.3, -0.7):
        values = {name: value + shift for name, value in start.items()}
        flat = torch.cat([values[site.name].reshape(-1) for site in model.drawn])
        gaps.append((pyro_potential(values) - ours({"w": flat})).item())
    assert gaps == pytest.approx([gaps[0]] * 3, rel=1e-4), "they differ by a constant at most"


@pytest.mark.parametrize("method", ["prior", "mean field", "NUTS"])
def test_each_method_gives_draws_once_and_the_same_again(fits: Fits, method: str) -> None:
    state = torch.get_rng_state()
    weights = fits.weights(method, 2.0, 0.5)
    assert weights.shape == (8, 7) and weights.isfinite().all()
    assert fits.weights(method, 2.0, 0.5) is weights
    assert torch.equal(torch.get_rng_state(), state), "the reader's random numbers are left alone"
    again = Fits(fits.make_model, fits.train, fits.test, num_samples=8, steps=3, warmup=3, depth=2)
    assert torch.equal(again.weights(method, 2.0, 0.5), weights)
    assert not fits.is_kept(method, 4.0, 0.5)


def test_draws_become_curves_in_ppm(fits: Fits) -> None:
    model = fits.make_model(2.0, 0.5)
    fits.keep("NUTS", 2.0, 0.5, model.flatten(model.drawn).expand(3, -1))
    time = fits.train.time[:4]
    curves = fits.functions("NUTS", 2.0, 0.5, time)
    with torch.no_grad():
        plain = fits.ppm.undo(model.net(fits.year.apply(time).unsqueeze(1)).squeeze(1))
    assert torch.allclose(curves, plain.expand(3, 4))


def test_pyro_samples_are_stacked_in_the_order_of_the_model(fits: Fits) -> None:
    model = fits.make_model(2.0, 0.5)
    samples = Predictive(model, num_samples=5)(fits.data[0])
    weights = stack(model, samples)
    assert weights.shape == (5, 7)
    rows = model.unflatten(weights[3], model.drawn)
    assert all(torch.equal(rows[name], samples[name][3].view_as(rows[name])) for name in rows)


def test_the_share_inside_the_band() -> None:
    means = torch.tensor([[0.0, 0.0, 0.0], [2.0, 2.0, 2.0]])  # mean 1, variance 2
    values = torch.tensor([1.0 + 1.6 * 6**0.5, 1.0 - 1.7 * 6**0.5, 1.0])
    assert share_inside(means, 2.0, values) == pytest.approx(2 / 3)


def test_the_gap_is_the_long_one(fits: Fits) -> None:
    gap = longest_gap(fits.train)
    assert len(gap) == 18 and 1964.0 < gap[0] < gap[-1] < 1964.4


def test_the_explorer_follows_its_controls(fits: Fits) -> None:
    explorer = posterior_explorer(fits, prior_scales=(1.0, 2.0), noises=(0.5, 1.0))
    assert "mean field, prior scale 2, noise 0.5 ppm, 8 samples" in explorer.summary
    assert "held-out weeks" in explorer.summary
    before = explorer.png
    explorer.set(method="prior", noise=1.0)
    assert explorer.error is None and explorer.png != before
    assert "prior, prior scale 2, noise 1 ppm" in explorer.summary
    explorer.set(samples=1)
    assert "one sample is one curve" in explorer.summary
    assert explorer.notice is not None
    assert explorer.notice(**explorer.state) is None
    assert "first time" in (explorer.notice(**explorer.state | {"method": "NUTS"}) or "")
