"""On a real GPU: the step, a pool's worker, and predictions. Skipped where there is none."""

from __future__ import annotations

import pytest
import torch

import spnb
from spnb.parallel import devices
from tests.run.problems import OBJECTIVES, problem, relative

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("objective", ["ELBO", "PredictiveNLL", "EnergyScore"])
def test_chunks_of_samples_change_nothing(objective: str) -> None:
    posterior, data = problem()
    posterior.to("cuda")
    options = {"objective": OBJECTIVES[objective](), "num_samples": 5}
    alone = spnb.gradients(posterior, data, **options)
    assert alone["loc"].is_cuda
    several = spnb.gradients(posterior, data, samples_in_flight=5, **options)
    assert relative(several, alone) <= 1e-12
    again = spnb.gradients(posterior, data, samples_in_flight=2, recompute=True, **options)
    assert relative(again, alone) <= 1e-12


def test_a_worker_has_a_gpu_and_trains_as_one_process_does() -> None:
    posterior, data = problem()
    size = devices.visible_gpus()
    options = {"num_samples": 2 * size, "epochs": 20, "learning_rate": 0.01}
    alone = spnb.fit(posterior, data, device="cuda", **options)
    with spnb.WorkerPool(size) as pool:
        assert [rank.device for rank in pool.status()] == [f"cuda:{i}" for i in range(size)]
        for layout in (spnb.Layout(sample=size), spnb.Layout(data=size)):
            found = pool.run(spnb.fit, posterior, data, layout=layout, **options)[0]
            for name, value in alone.posterior.named_parameters():
                torch.testing.assert_close(
                    found.posterior.get_parameter(name).cpu(), value.cpu(), rtol=0, atol=1e-9
                )
    assert alone.history.loss[-1] < alone.history.loss[0]
