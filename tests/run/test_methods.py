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
    return min(wanted, posterior.num_draws or wanted)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("degrees", LAYOUTS)
def test_gradients_equal_serial(pool_of: PoolOf, degrees: tuple[int, int], name: str) -> None:
    """Objectives of all kinds; normal priors, and one without a closed divergence."""
    layout = spnb.Layout(*degrees)
    for objective, prior in [("ELBO", None), ("ELBO", MIXTURE), ("PredictiveNLL", None),
                             ("EnergyScore", MIXTURE)]:  # fmt: skip
        start, data = problem(25, prior=prior)
        posterior = METHODS[name](start.model)
        options = {"objective": OBJECTIVES[objective](), "num_samples": samples_of(posterior)}
        if layout.sample > options["num_samples"]:
            with pytest.raises(ValueError, match="2 ranks along sample but num_samples=1"):
                pool_of(layout.size).run(spnb.gradients, posterior, data, layout=layout, **options)
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
    expected = spnb.predict(fitted, data[0], num_samples=options["num_samples"])
    for degrees in LAYOUTS:
        if degrees[0] > options["num_samples"]:
            continue
        layout = spnb.Layout(*degrees)

        def train_and_predict() -> torch.Tensor:
            found = spnb.fit(posterior, data, layout=layout, **options).posterior  # noqa: B023
            return spnb.predict(
                found,
                data[0],
                num_samples=options["num_samples"],
                layout=layout,  # noqa: B023
            )

        for draws in pool_of(layout.size).run(train_and_predict):
            torch.testing.assert_close(draws, expected, rtol=0, atol=1e-9)
