"""One whole training step of the library itself: what `spnb.fit` does for every batch."""

from __future__ import annotations

from dataclasses import replace

import pyro.distributions as dist
import torch

import spnb
from benchmarks.workloads import INIT_SCALE, LEARNING_RATE, SEED, Workload
from spnb.run.loop import Loop
from spnb.run.optimizer import adam
from spnb.run.setup import begin


class OurStep:
    """One whole training step at each call.

    Args:
        loop: takes the steps.
        x: inputs of the batch.
        y: its targets.

    Attributes:
        loss: of the last step.
    """

    def __init__(self, loop: Loop, x: torch.Tensor, y: torch.Tensor) -> None:
        self.loop, self.x, self.y = loop, x, y
        self.loss: float | None = None

    def __call__(self) -> None:
        self.loss = self.loop.step(self.x, self.y).loss

    def sent(self) -> tuple[int, float]:
        """Bytes that this rank has handed to collectives so far, and seconds it spent in them."""
        traffic = self.loop.work.communicator.traffic.values()
        return sum(t.bytes for t in traffic), sum(t.seconds for t in traffic)


def mean_field(work: Workload, antithetic: bool = False) -> spnb.MeanField:
    """The posterior of the comparison: a normal for every parameter, the prior Normal(0, 1)."""
    model = spnb.BayesianModel(work.net(), prior=dist.Normal(0.0, 1.0), likelihood="categorical")
    return spnb.MeanField(model, init_scale=INIT_SCALE, antithetic=antithetic)


def make_step(
    work: Workload,
    num_samples: int,
    *,
    layout: spnb.Layout | None = None,
    antithetic: bool = False,
    objective: spnb.Objective | None = None,
    recompute: bool = False,
    samples_in_flight: int | None = None,
) -> OurStep:
    """A step of the library; with a layout, to be called on every rank of it.

    Args:
        work: the network and its batch.
        num_samples: S, over all ranks.
        layout: how the ranks share the work; None: this process does all.
        antithetic: whether samples come in pairs of opposite noise.
        objective: what to minimise; None: the ELBO.
        recompute: as for `spnb.fit`.
        samples_in_flight: as for `spnb.fit`.
    """
    begun, x, y = begin(
        mean_field(work, antithetic),
        work.batch(),
        objective,
        layout,
        num_samples,
        seed=SEED,
        samples_in_flight=samples_in_flight,
        recompute=recompute,
    )
    begun = replace(begun, num_data=work.num_data)  # the batch is only a part of the data
    return OurStep(Loop(begun, adam(begun.posterior, LEARNING_RATE)), x, y)
