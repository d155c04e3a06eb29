"""Every layout computes the same gradient and the same training run as one process."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import pytest
import torch

import spnb
from tests.run.problems import OBJECTIVES, OF_REALS, Attention, mlp, problem, relative

PoolOf = Callable[[int], spnb.WorkerPool]
LAYOUTS = [(1, 1), (2, 1), (1, 2), (2, 2), (3, 1), (1, 3)]
LIMITS = {torch.float64: 1e-12, torch.float32: 1e-5}
CASES = [
    (name, net, S, rows, recompute)
    for name, net, S, rows, recompute in itertools.product(
        OBJECTIVES, (mlp, Attention), (5, 8), (24, 25), (False, True)
    )
    # recomputing changes nothing for what is not gathered, and once is enough
    if not recompute or (name != "ELBO" and rows == 25)
]


def all_gradients(
    dtype: torch.dtype, layout: spnb.Layout | None, samples_in_flight: int = 1
) -> list[dict[str, torch.Tensor]]:
    """Gradients of every case, on whichever rank calls."""
    found = []
    for name, net, S, rows, recompute in CASES:
        likelihood = "normal" if name in OF_REALS else "categorical"
        posterior, data = problem(rows, dtype, net, likelihood)
        found.append(
            spnb.gradients(
                posterior,
                data,
                objective=OBJECTIVES[name](),
                layout=layout,
                num_samples=S,
                seed=3,
                step=7,
                recompute=recompute,
                samples_in_flight=samples_in_flight,
            )
        )
    return found


@pytest.fixture(scope="module")
def serial() -> Callable[[torch.dtype], list[dict[str, torch.Tensor]]]:
    return functools.cache(lambda dtype: all_gradients(dtype, None))


@pytest.mark.parametrize(
    ("degrees", "dtype"),
    [(degrees, torch.float64) for degrees in LAYOUTS]
    + [((2, 2), torch.float32)]
    + [
        pytest.param(degrees, torch.float32, marks=pytest.mark.exhaustive)
        for degrees in LAYOUTS
        if degrees != (2, 2)
    ],
)
def test_gradients_equal_serial(
    pool_of: PoolOf,
    serial: Callable[[torch.dtype], list[dict[str, torch.Tensor]]],
    degrees: tuple[int, int],
    dtype: torch.dtype,
) -> None:
    layout = spnb.Layout(*degrees)
    for rank_results in pool_of(layout.size).run(all_gradients, dtype, layout):
        for case, found, expected in zip(CASES, rank_results, serial(dtype), strict=True):
            assert relative(found, expected) <= LIMITS[dtype], case


def test_gradients_do_not_depend_on_samples_in_flight(
    serial: Callable[[torch.dtype], list[dict[str, torch.Tensor]]],
) -> None:
    several = all_gradients(torch.float64, None, samples_in_flight=3)
    for case, found, expected in zip(CASES, several, serial(torch.float64), strict=True):
        assert relative(found, expected) <= 1e-12, case


@pytest.mark.parametrize("degrees", LAYOUTS[1:])
def test_pairs_of_opposite_noise_may_be_parted(pool_of: PoolOf, degrees: tuple[int, int]) -> None:
    """Five samples on two or three ranks: the two of a pair lie on different ranks."""
    layout = spnb.Layout(*degrees)
    posterior, data = problem(25)
    posterior = spnb.MeanField(posterior.model, init_scale=0.3, antithetic=True)
    for objective in (spnb.ELBO(), spnb.PredictiveNLL(), spnb.EnergyScore()):
        options = {"objective": objective, "num_samples": 5}
        expected = spnb.gradients(posterior, data, **options)
        for found in pool_of(layout.size).run(
            spnb.gradients, posterior, data, layout=layout, **options
        ):
            assert relative(found, expected) <= 1e-12


@pytest.mark.parametrize("prior", ["mixture", "partly deterministic"])
@pytest.mark.parametrize("degrees", LAYOUTS[1:4])
def test_other_priors_equal_serial(pool_of: PoolOf, degrees: tuple[int, int], prior: str) -> None:
    """A sampled divergence and deterministic parameters are counted once as well."""
    layout = spnb.Layout(*degrees)
    normal = spnb.priors.fan_in()
    rule = {
        "mixture": spnb.priors.scale_mixture(),
        "partly deterministic": lambda name, p: None if p.dim() < 2 else normal(name, p),
    }[prior]
    for objective in (spnb.ELBO(), spnb.PredictiveNLL()):
        posterior, data = problem(25, prior=rule, likelihood="normal")
        options = {"objective": objective, "num_samples": 5}
        expected = spnb.gradients(posterior, data, **options)
        assert expected["point"].numel() == (1 if prior == "mixture" else 14)
        for found in pool_of(layout.size).run(
            spnb.gradients, posterior, data, layout=layout, **options
        ):
            assert relative(found, expected) <= 1e-12


@pytest.mark.parametrize(
    ("dtype", "limit"),
    [
        (torch.float64, 1e-9),
        pytest.param(torch.float32, 1e-3, marks=pytest.mark.exhaustive),
    ],
)
@pytest.mark.parametrize("objective", ["ELBO", "PredictiveNLL"])
def test_weights_after_200_steps_equal_serial(
    pool_of: PoolOf, objective: str, dtype: torch.dtype, limit: float
) -> None:
    """Batches of 24, 24 and 2 rows, so that three data ranks leave one idle in the last."""
    posterior, data = problem(50, dtype)
    options = {
        "objective": OBJECTIVES[objective](),
        "num_samples": 5,
        "batch_size": 24,
        "epochs": 67,
        "learning_rate": 0.01,
        "seed": 5,
        "augment": jitter,
        "views": "per_sample",
    }
    expected = spnb.fit(posterior, data, **options)
    assert len(expected.history.steps) == 201
    for degrees in LAYOUTS[1:]:
        layout = spnb.Layout(*degrees)
        for found in pool_of(layout.size).run(spnb.fit, posterior, data, layout=layout, **options):
            for name, value in expected.posterior.named_parameters():
                difference = (found.posterior.get_parameter(name) - value).abs().max().item()
                assert difference <= limit, (degrees, name)


def jitter(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """An augmentation: a little noise on the inputs."""
    return x + 0.1 * torch.randn(x.shape, generator=generator, dtype=x.dtype)


@pytest.mark.parametrize("views", ["shared", "per_sample"])
@pytest.mark.parametrize("degrees", LAYOUTS[1:4])
def test_augmented_views_do_not_depend_on_the_layout(
    pool_of: PoolOf, degrees: tuple[int, int], views: str
) -> None:
    layout = spnb.Layout(*degrees)
    posterior, data = problem(25)
    options = {"num_samples": 5, "augment": jitter, "views": views}
    expected = spnb.gradients(posterior, data, **options)
    plain = spnb.gradients(posterior, data, num_samples=5)
    assert relative(expected, plain) > 1e-3
    for found in pool_of(layout.size).run(
        spnb.gradients, posterior, data, layout=layout, **options
    ):
        assert relative(found, expected) <= 1e-12


def test_views_are_shared_or_each_samples_own() -> None:
    """With shared views all samples see one x; with their own, as many as there are samples."""
    posterior, data = problem(24)
    for views, distinct in (("shared", 1), ("per_sample", 5)):
        seen = []

        def spy(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            seen.append(torch.rand(1, generator=generator).item())  # noqa: B023
            return x

        spnb.gradients(posterior, data, num_samples=5, augment=spy, views=views)
        assert len(set(seen)) == distinct


def test_predictions_and_scores_equal_serial(pool_of: PoolOf) -> None:
    posterior, data = problem(25)
    expected = spnb.predict(posterior, data[0], num_samples=7, seed=4, batch_size=4)
    scores = spnb.score(posterior, data, num_samples=7, seed=4)
    for degrees in LAYOUTS[1:]:
        pool, layout = pool_of(degrees[0] * degrees[1]), spnb.Layout(*degrees)
        options = {"num_samples": 7, "seed": 4, "layout": layout}
        for draws in pool.run(spnb.predict, posterior, data[0], **options):
            torch.testing.assert_close(draws, expected, rtol=1e-12, atol=1e-12)
        for found in pool.run(spnb.score, posterior, data, **options):
            assert found == pytest.approx(scores, abs=1e-12)


def test_predictions_go_to_the_ranks_that_ask(pool_of: PoolOf) -> None:
    posterior, data = problem(24)

    def first_only() -> torch.Tensor | None:
        rank = torch.distributed.get_rank()
        return spnb.predict(
            posterior, data[0], num_samples=4, layout=spnb.Layout(2), gather=rank == 0
        )

    first, second = pool_of(2).run(first_only)
    assert first.shape == (4, 24, 3)
    assert second is None
