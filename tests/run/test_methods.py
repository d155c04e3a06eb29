"""Every method computes the same run on every layout, and is saved and loaded alike."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import spnb
from tests.methods import METHODS
from tests.run.problems import OBJECTIVES, problem, relative

PoolOf = Callable[[int], spnb.WorkerPool]
LAYOUTS = [(2, 1), (1, 2), (2, 2)]
MIXTURE = spnb.priors.scale_mixture()


def samples_of(posterior: spnb.Posterior, wanted: int = 5) -> int:
    return min(wanted, posterior.draws_in_training or wanted)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("degrees", LAYOUTS)
def test_gradients_equal_serial(pool_of: PoolOf, degrees: tuple[int, int], name: str) -> None:
    """Objectives of all kinds; normal priors, and one without a closed divergence."""
    layout = spnb.Layout(*degrees)
    for objective, prior in [("ELBO", None), ("ELBO", MIXTURE), ("PredictiveNLL", None),
                             ("EnergyScore", MIXTURE)]:  # fmt: skip
        start, data = problem(25, prior=prior)
        if prior is MIXTURE and "Laplace" in name:
            with pytest.raises(ValueError, match="needs normal priors"):
                METHODS[name](start.model)
            continue
        posterior = METHODS[name](start.model)
        options = {"objective": OBJECTIVES[objective](), "num_samples": samples_of(posterior)}
        if layout.sample > options["num_samples"]:
            with pytest.raises(ValueError, match="2 ranks along sample but num_samples=1"):
                pool_of(layout.size).run(spnb.gradients, posterior, data, layout=layout, **options)
            continue
        if posterior.separate and objective != "ELBO":
            with pytest.raises(ValueError, match="looks at all samples together"):
                spnb.gradients(posterior, data, **options)
            continue
        expected = spnb.gradients(posterior, data, **options)
        for found in pool_of(layout.size).run(
            spnb.gradients, posterior, data, layout=layout, **options
        ):
            assert relative(found, expected) <= 1e-12, (objective, prior)


@pytest.mark.parametrize("name", METHODS)
def test_trained_predictions_equal_serial(pool_of: PoolOf, name: str) -> None:
    start, data = problem(25)
    posterior = METHODS[name](start.model)
    options = {"batch_size": 12, "epochs": 10, "learning_rate": 0.01, "seed": 5}
    options["num_samples"] = samples_of(posterior)
    fitted = spnb.fit(posterior, data, **options).posterior
    drawn = min(6, fitted.num_draws or 6)
    expected = spnb.predict(fitted, data[0], num_samples=drawn)
    for degrees in LAYOUTS:
        if degrees[0] > options["num_samples"]:
            continue
        layout = spnb.Layout(*degrees)

        def train_and_predict() -> torch.Tensor:
            found = spnb.fit(posterior, data, layout=layout, **options).posterior  # noqa: B023
            return spnb.predict(found, data[0], num_samples=drawn, layout=layout)  # noqa: B023

        for draws in pool_of(layout.size).run(train_and_predict):
            torch.testing.assert_close(draws, expected, rtol=0, atol=1e-9)


SEPARATE = ["Ensemble", "SGMCMC"]


@pytest.mark.parametrize("name", SEPARATE)
def test_samples_of_their_own_send_nothing_along_the_sample_axis(
    pool_of: PoolOf, name: str
) -> None:
    start, data = problem(25)
    posterior = METHODS[name](start.model)

    def sent(layout: spnb.Layout) -> float:
        options = {"epochs": 3, "batch_size": 12, "clip_norm": 0.5}
        return spnb.fit(posterior, data, layout=layout, **options).history.bytes_per_step

    assert pool_of(2).run(sent, spnb.Layout(sample=2)) == [0.0, 0.0]
    assert min(pool_of(2).run(sent, spnb.Layout(data=2))) > 0


@pytest.mark.parametrize("name", SEPARATE)
def test_samples_of_their_own_keep_one_history(pool_of: PoolOf, name: str) -> None:
    """Losses are means over all samples; noise that all share is learned from all of them."""
    start, data = problem(25, likelihood="normal")
    posterior = METHODS[name](start.model)
    options = {"epochs": 4, "batch_size": 12, "clip_norm": 0.5, "learning_rate": 0.02}
    expected = spnb.fit(posterior, data, validation=data, **options)
    assert expected.posterior.point.numel() == 1
    for degrees in LAYOUTS:
        layout = spnb.Layout(*degrees)
        for found in pool_of(layout.size).run(
            spnb.fit, posterior, data, validation=data, layout=layout, **options
        ):
            torch.testing.assert_close(found.posterior.point, expected.posterior.point)
            assert found.history.loss == pytest.approx(expected.history.loss, abs=1e-9)
            for mine, other in zip(found.history.epochs, expected.history.epochs, strict=True):
                assert mine.loss == pytest.approx(other.loss, abs=1e-9)
                assert mine.scores == pytest.approx(other.scores, abs=1e-9)


def test_members_are_the_networks_that_train_alone() -> None:
    """Each is what a point becomes that starts where it starts."""
    start, data = problem(25)
    ensemble = METHODS["Ensemble"](start.model)
    options = {"epochs": 5, "batch_size": 12, "learning_rate": 0.02, "seed": 3}
    fitted = spnb.fit(ensemble, data, **options).posterior
    for member in range(5):
        alone = spnb.Point(start.model)
        with torch.no_grad():
            alone.loc.copy_(ensemble.members[member])
        found = spnb.fit(alone, data, **options).posterior
        torch.testing.assert_close(fitted.members[member], found.loc, rtol=0, atol=1e-12)
    spread = (fitted.members - fitted.members.mean(0)).norm()
    assert spread > 0.1 * fitted.members.norm()


@pytest.mark.parametrize(
    ("name", "where"), [("Ensemble", "of member [234]"), ("LowRank", r"\(factor\)")]
)
def test_what_is_not_finite_is_named(pool_of: PoolOf, name: str, where: str) -> None:
    """Parameters of two dimensions, and the rank among all, not among those that share a sum."""
    start, (x, y) = problem(25)
    posterior = METHODS[name](start.model)
    with torch.no_grad():
        parameter = posterior.members if name == "Ensemble" else posterior.factor
        parameter[-1] = float("inf")  # the last member; the directions of the last weight
    rank = 1 if name == "Ensemble" else 0  # all ranks hold the whole factor
    with pytest.raises(FloatingPointError, match=f"Step 0, rank {rank}: .*{where}"):
        pool_of(2).run(spnb.fit, posterior, (x, y), layout=spnb.Layout(sample=2))
