"""Antithetic pairs: opposite noise, the same distribution, unbiased and calmer gradients."""

from __future__ import annotations

import torch

import spnb
from spnb.parallel.keyed import Key
from tests.run.problems import problem, relative


def antithetic() -> tuple[spnb.MeanField, tuple[torch.Tensor, torch.Tensor]]:
    posterior, data = problem()
    return spnb.MeanField(posterior.model, init_scale=0.3, antithetic=True), data


def test_a_pair_is_mirrored_at_the_means() -> None:
    posterior, _ = antithetic()
    draws, key = posterior.draw(range(6), Key(0)), Key(0)
    torch.testing.assert_close(draws[0::2] + draws[1::2], 2 * posterior.loc.expand(3, -1))
    assert (draws[0] - draws[2]).abs().min() > 0
    torch.testing.assert_close(posterior.draw([5], key)[0], draws[5])


def test_each_sample_is_distributed_as_before() -> None:
    posterior, _ = antithetic()
    draws = posterior.draw(range(20_000), Key(1)).detach()
    error = ((draws.mean(0) - posterior.loc) / 0.3).abs().max()
    assert error < 1e-6  # pairs cancel
    torch.testing.assert_close(draws.std(0), posterior.scale.detach(), rtol=0.03, atol=0)
    cubes = (((draws[::2] - posterior.loc) / 0.3) ** 3).mean(0)  # one of each pair: no skew
    assert cubes.abs().max() < 6 * (15 / 10_000) ** 0.5


def test_gradients_are_unbiased_and_those_of_the_means_are_calmer() -> None:
    calm, data = antithetic()
    plain = spnb.MeanField(calm.model, init_scale=0.3)
    objective = spnb.ELBO(temperature=0.0)

    def many(posterior: spnb.MeanField) -> dict[str, torch.Tensor]:
        found = [
            spnb.gradients(posterior, data, objective=objective, num_samples=4, step=t)
            for t in range(300)
        ]
        return {name: torch.stack([g[name] for g in found]) for name in ("loc", "rho")}

    calm_found, plain_found = many(calm), many(plain)
    for name in ("loc", "rho"):
        error = (calm_found[name].mean(0) - plain_found[name].mean(0)).norm()
        noise = (calm_found[name].var(0) + plain_found[name].var(0)).div(300).sum().sqrt()
        assert error < 2 * noise
    ratio = {name: (calm_found[name].var(0).sum() / plain_found[name].var(0).sum()).item()
             for name in ("loc", "rho")}  # fmt: skip
    assert ratio["loc"] < 0.6
    assert 0.7 < ratio["rho"] < 2.5


def test_both_ways_of_evaluating_draw_the_same() -> None:
    posterior, data = antithetic()
    alone = spnb.gradients(posterior, data, num_samples=5)
    several = spnb.gradients(posterior, data, num_samples=5, samples_in_flight=2)
    assert relative(several, alone) <= 1e-12
