"""The same training step by torch's `DistributedDataParallel`, as one would write it by hand.

Every rank evaluates all S samples on its part of the batch's rows; DDP averages the gradients,
overlapped with the backward pass. The noise is the library's, so the step is the very one of
`Layout(data=...)`, and a test holds them together.
"""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import spnb
from benchmarks.measure import place
from benchmarks.ours import mean_field
from benchmarks.workloads import LEARNING_RATE, SEED, Workload
from spnb.run.optimizer import adam


class Loss(nn.Module):
    """The loss of a rank's rows.

    Args:
        posterior: the posterior, whose parameters DDP looks after.
        num_samples: S.
        num_data: N.
    """

    def __init__(self, posterior: spnb.MeanField, num_samples: int, num_data: int) -> None:
        super().__init__()
        self.posterior = posterior
        self.num_samples, self.num_data = num_samples, num_data

    def forward(self, x: Tensor, y: Tensor, step: int) -> Tensor:
        """The loss of these rows in a step, a scalar."""
        posterior, model = self.posterior, self.posterior.model
        key = spnb.Key(SEED).fold("weights", step)
        prepared = posterior.prepare()
        total = x.new_zeros(())
        for sample in range(self.num_samples):
            weights = posterior.draw([sample], key, prepared)
            predictions = model.predict(weights, posterior.point, x)
            total = total - model.likelihood.log_likelihood(predictions, y).mean()
        return total / self.num_samples + posterior.divergence(prepared) / self.num_data


class DDPStep:
    """One whole training step at each call, on every rank.

    Attributes:
        posterior: what is trained.
    """

    def __init__(self, work: Workload, num_samples: int) -> None:
        self.posterior = mean_field(work).to(place())
        x, y = (whole.to(place()) for whole in work.batch())
        rank, ranks = dist.get_rank(), dist.get_world_size()
        self.x, self.y = x.chunk(ranks)[rank], y.chunk(ranks)[rank]
        self.model = DistributedDataParallel(
            Loss(self.posterior, num_samples, work.num_data),
            forward_sync_buffers=False,
            gradient_as_bucket_view=True,
        )
        self.optimizer = adam(self.posterior, LEARNING_RATE)
        self.done = 0

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        self.model(self.x, self.y, self.done).backward()
        self.optimizer.step()
        self.done += 1


def make_step(work: Workload, num_samples: int) -> DDPStep:
    """The step, to be made and called on every rank of an initialised process group.

    Raises:
        NotImplementedError: the rows cannot be shared out evenly, and DDP weighs ranks equally.
    """
    if work.batch_size % dist.get_world_size():
        raise NotImplementedError(
            f"{work.batch_size} rows cannot be shared out evenly by {dist.get_world_size()} ranks."
        )
    return DDPStep(work, num_samples)
