"""NUTS over the ranks: the closed-form posterior, the same draws on every layout, and refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyro.distributions as dist
import pytest
import torch
from pyro.infer.mcmc.util import initialize_model
from torch import nn

import spnb
from spnb.maths.potential import potential
from tests.maths.test_methods import exact, regression
from tests.run.problems import mlp, problem

PoolOf = Callable[[int], spnb.WorkerPool]


def test_the_closed_form_posterior_is_found() -> None:
    model, x, y = regression()
    mean, covariance = exact(x, y)
    found = spnb.nuts(model, (x, y), num_chains=2, num_samples=500, warmup=200)
    draws = found.posterior.draws
    assert (draws.mean(0) - mean).norm() < 0.03 * mean.norm()
    assert (draws.T.cov() - covariance).norm() < 0.12 * covariance.norm()
    assert found.divergent == 0
    assert found.r_hat.max() < 1.02 and found.effective.min() > 300


def test_every_layout_gives_the_same_draws(pool_of: PoolOf) -> None:
    start, data = problem(25)
    options = {"num_chains": 5, "num_samples": 4, "warmup": 4, "max_tree_depth": 3, "seed": 5}
    expected = spnb.nuts(start.model, data, **options)
    drawn = spnb.predict(expected.posterior, data[0], num_samples=10)
    for degrees in ((2, 1), (1, 2), (2, 2)):
        layout = spnb.Layout(*degrees)
        pool = pool_of(layout.size)
        for found in pool.run(spnb.nuts, start.model, data, layout=layout, **options):
            assert torch.equal(found.posterior.draws, expected.posterior.draws)
            assert torch.equal(found.r_hat, expected.r_hat)
            assert found.divergent == expected.divergent
        again = pool.run(spnb.predict, found.posterior, data[0], num_samples=10,
                               layout=layout)  # fmt: skip
        torch.testing.assert_close(again[1], drawn, rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match="2 ranks but num_chains=1: a chain cannot be cut"):
        pool_of(2).run(spnb.nuts, start.model, data, num_chains=1, layout=spnb.Layout(sample=2))


def test_divergent_transitions_of_all_ranks_are_counted(pool_of: PoolOf) -> None:
    torch.manual_seed(0)
    model = spnb.BayesianModel(mlp().double(), likelihood=spnb.likelihoods.Normal(0.1))
    data = problem(25)[1][0], torch.randn(25, 3).double()
    options = {"num_chains": 2, "num_samples": 4, "warmup": 1, "max_tree_depth": 3}
    expected = spnb.nuts(model, data, **options).divergent
    assert expected > 0  # far too short a warm-up for so little noise
    for layout in (spnb.Layout(sample=2), spnb.Layout(data=2)):
        found = pool_of(2).run(spnb.nuts, model, data, layout=layout, **options)
        assert [each.divergent for each in found] == [expected, expected]


def test_chains_start_apart() -> None:
    start, data = problem(25)
    options = {"num_samples": 4, "warmup": 1, "max_tree_depth": 1}
    one = spnb.nuts(start.model, data, num_chains=1, **options).posterior.draws
    two = spnb.nuts(start.model, data, num_chains=2, **options).posterior.draws
    others = [row for row in two if not (row == one).all(1).any()]
    assert len(two) == 8 and len(others) == 4  # chain 0 is what it is alone


def test_the_potential_is_pyros_for_priors_of_all_kinds() -> None:
    def rule(name: str, p: torch.Tensor) -> dist.TorchDistribution:
        if name == "0.weight":
            return dist.StudentT(4.0, 0.0, 0.5)
        return dist.Laplace(0.0, 0.5) if name == "2.bias" else dist.Normal(0.1, 0.7)

    start, (x, y) = problem(25, prior=rule)
    model = start.model
    first, theirs, _, _ = initialize_model(model, (x, y))
    ours, gaps = potential(model, x, y), []
    for scale in (0.1, 1.0, 2.0):
        values = {name: scale * torch.randn_like(value) for name, value in first.items()}
        flat = torch.cat([values[site.name].reshape(-1) for site in model.drawn])
        gaps.append((theirs(values) - ours({"w": flat})).item())
    assert gaps == pytest.approx([gaps[0]] * 3, rel=1e-5)  # the priors' numbers are float32


def test_draws_predict_save_and_load_like_any_posterior(tmp_path: Path) -> None:
    start, data = problem(25)
    found = spnb.nuts(start.model, data, num_chains=1, num_samples=6, warmup=3, max_tree_depth=2)
    posterior = found.posterior
    draws = spnb.predict(posterior, data[0])
    assert draws.shape == (6, 25, 3)
    right = (draws[:4].softmax(-1).mean(0).argmax(-1) == data[1]).double().mean().item()
    assert spnb.score(posterior, data, num_samples=4)["accuracy"] == pytest.approx(right)
    again = spnb.load(spnb.save(posterior, tmp_path / "draws"), start.model)
    assert torch.equal(again.draws, posterior.draws)
    for call in (spnb.fit, spnb.gradients):
        with pytest.raises(ValueError, match="Draws holds finished samples, and has nothing to"):
            call(posterior, data)
    with pytest.raises(ValueError, match="num_samples=7, but this Draws has 6 different samples"):
        spnb.predict(posterior, data[0], num_samples=7)
    with pytest.raises(ValueError, match=r"draws has shape \(2, 3\); the model's 163 weights"):
        spnb.Draws(start.model, torch.zeros(2, 3))
    prior = sum(-dist.Normal(0.0, 1.0).log_prob(row).sum() for row in posterior.draws)
    torch.testing.assert_close(posterior.divergence([posterior.draws]), prior)


def test_what_cannot_be_sampled_is_named() -> None:
    start, data = problem(25)
    learned = spnb.BayesianModel(mlp().double(), likelihood="normal")
    with pytest.raises(ValueError, match="'likelihood.log_scale' without a prior: NUTS"):
        spnb.nuts(learned, (data[0], torch.zeros(25, 3)))
    with pytest.raises(TypeError, match="model is a Linear; give a spnb.BayesianModel"):
        spnb.nuts(nn.Linear(2, 2), data)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_samples=3 must be at least 4"):
        spnb.nuts(start.model, data, num_samples=3)
    with pytest.raises(ValueError, match="warmup=0 must be at least 1"):
        spnb.nuts(start.model, data, warmup=0)
    with pytest.raises(ValueError, match="x has 25 rows and y has 24"):
        spnb.nuts(start.model, (data[0], data[1][:-1]))
