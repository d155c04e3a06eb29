"""What a learner's parallel gradient is, if it is wrong in one of the likely ways.

From the serial gradient of 1, 2, ..., S samples follows the gradient of each single sample, and
from these what each mistake gives, with its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import softplus

Inputs = tuple[Tensor, Tensor, Tensor, Tensor]
"""``(mu, rho, x, y)``."""


def wrong_gradients(
    serial_gradient: Callable[..., Tensor],
    inputs: Inputs,
    num_data: int,
    num_samples: int,
    step: int,
    world_size: int,
    rank: int,
) -> Iterator[tuple[Tensor, str, str]]:
    """What the likely mistakes would give, however the samples are shared out.

    Args:
        serial_gradient: ``(mu, rho, x, y, num_samples, step)``.
        inputs: of it; x and y are a batch.
        num_data: N, by which the KL is divided.
        num_samples: S.
        step: index of the step.
        world_size: number of ranks.
        rank: whose answer it is.
    """
    prior, rows = _prior_gradient(*inputs[:2], num_data), len(inputs[2])
    sums = [torch.zeros_like(prior)]  # over the first samples
    for count in range(1, num_samples + 1):
        sums.append(count * (serial_gradient(*inputs, count, step) - prior))
    own = torch.stack(sums).diff(dim=0)  # the gradient of each sample, [S, 2 P]
    data = own.mean(0)
    yield (
        data + world_size * prior,
        "kl-counted-twice",
        "every rank adds the whole KL, so it is counted twice",
    )
    yield data, "kl-missing", "the KL is missing"
    yield (
        data + num_data / rows * prior,
        "kl-by-batch",
        f"the KL is divided by the {rows} rows of the batch instead of N = {num_data}: in training "
        "it would count too much",
    )
    yield (
        data + prior / world_size,
        "kl-not-summed",
        "each rank has 1/W of the KL, but nobody has summed that part over the ranks",
    )
    yield (
        (data + prior) / world_size,
        "divided-twice",
        "you divided by the world size after the sum, but the samples were already divided by S",
    )
    strided = [list(range(r, num_samples, world_size)) for r in range(world_size)]
    blocks = [part.tolist() for part in torch.arange(num_samples).tensor_split(world_size)]
    for shares in (strided, blocks):
        means = torch.stack([own[share].mean(0) for share in shares])
        mine = shares[rank]
        for kl in (prior, prior / world_size):
            yield (
                own[mine].sum(0) / num_samples + kl,
                "no-all-reduce",
                "that is this rank's own part: is the all-reduce missing?",
            )
            yield (
                own[mine].mean(0) + kl,
                "no-all-reduce",
                "that is the gradient of this rank's own samples: is the all-reduce missing?",
            )
        for kl in (prior, world_size * prior):
            yield (
                means.sum(0) + kl,
                "summed-not-averaged",
                "you summed over ranks instead of averaging",
            )
            yield (
                means.mean(0) + kl,
                "mean-of-means",
                "that is the mean of the means: the ranks have different numbers of samples",
            )
        same = torch.stack([own[: len(share)].sum(0) for share in shares]).sum(0) / num_samples
        for kl in (prior, world_size * prior):
            yield (
                same + kl,
                "same-samples",
                "every rank draws the same samples: the rank must choose them",
            )
    each = num_samples // world_size
    used = own[: each * world_size].sum(0)
    for divisor in (num_samples, each * world_size):
        yield (
            used / divisor + prior,
            "integer-division",
            f"integer division: of {num_samples} samples, only {each * world_size} are used",
        )
    yield (
        world_size * data + world_size * prior,
        "nothing-shared",
        "every rank evaluates all the samples, and then you sum: nothing is shared, and the "
        "result is W times too long",
    )


def _prior_gradient(mu: Tensor, rho: Tensor, num_data: int) -> Tensor:
    """Gradient of the KL from the standard normal, over N."""
    mu, rho = mu.clone().requires_grad_(), rho.clone().requires_grad_()
    sigma = softplus(rho)
    kl = (0.5 * (mu**2 + sigma**2 - 1) - sigma.log()).sum() / num_data
    return torch.cat(torch.autograd.grad(kl, (mu, rho)))
