"""torch_blue in parallel, as its documentation (page "torch_blue and PyTorch DDP") and paper do it.

Every rank holds the converted network within `DistributedDataParallel`, seeds its random numbers
differently, evaluates S / ranks samples of the same batch, and DDP averages the gradients. With the
library's loss (see `torch_blue.py`) that average is not the gradient of one process with S
samples: the paper calls it an approximation.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch_blue import vi
from torch_blue.vi.distributions import Categorical

from benchmarks.peers.common import Step
from benchmarks.peers.torch_blue import converted, step
from benchmarks.workloads import SEED, Workload


def make_step(work: Workload, num_samples: int) -> Step:
    """S samples over all ranks, KL divergence from log-probabilities: `KullbackLeiblerLoss`.

    To be called on every rank of an initialised process group.

    Raises:
        NotImplementedError: the ranks cannot draw equally many samples.
    """
    share = samples_per_rank(num_samples)
    net = converted(work)
    model = wrapped(net)
    loss_function = vi.KullbackLeiblerLoss(Categorical(), dataset_size=work.num_data)
    return step(work, share, net, model, loss_function)


def make_step_analytic(work: Workload, num_samples: int) -> Step:
    """S samples over all ranks, analytic KL divergence: `AnalyticalKullbackLeiblerLoss`.

    To be called on every rank of an initialised process group.

    Raises:
        NotImplementedError: the ranks cannot draw equally many samples.
    """
    share = samples_per_rank(num_samples)
    net = converted(work)
    model = wrapped(net)
    loss_function = vi.AnalyticalKullbackLeiblerLoss(net, Categorical(), work.num_data)
    return step(work, share, net, model, loss_function)


def samples_per_rank(num_samples: int) -> int:
    """Samples that each rank draws."""
    ranks = dist.get_world_size()
    if num_samples % ranks:
        raise NotImplementedError(
            f"DDP gives every rank the same weight, so {ranks} ranks cannot share "
            f"{num_samples} samples: make S a multiple of the ranks."
        )
    return num_samples // ranks


def wrapped(net: torch.nn.Module) -> DistributedDataParallel:
    """DDP around the converted network (it must come after the conversion), then the rank's seed.

    The network has no buffer that changes, so broadcasting them would only cost time.
    """
    model = DistributedDataParallel(net, broadcast_buffers=False, gradient_as_bucket_view=True)
    torch.manual_seed(SEED + dist.get_rank())
    return model
