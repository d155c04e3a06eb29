"""The exercise checks of notebook 03, *Sampling parallelism from scratch*."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spnb.maths.models import BayesianModel
from spnb.maths.posteriors import MeanField
from spnb.parallel.layout import Layout
from spnb.parallel.pool import WorkerPool
from spnb.run.training import fit
from spnb.teach.attempt import attempted
from spnb.teach.check import Wrong, close, exercise
from spnb.teach.checks.wrong_gradients import Inputs, wrong_gradients


@exercise
def exercise_1(my_samples: Callable[[int, int, int], Sequence[int]]) -> str:
    """Sharing out the samples, none lost, none twice."""
    for num_samples, world_size in ((16, 6), (8, 2), (7, 3), (5, 5), (9, 1)):
        case = f"{num_samples} samples on {world_size} ranks"
        shares = []
        for rank in range(world_size):
            answer = my_samples(num_samples, world_size, rank)
            if answer is None or not attempted(answer):
                raise Wrong("no-return", "the function returns nothing: is a `return` missing?")
            shares.append([int(sample) for sample in answer])
        given = sorted(sample for share in shares for sample in share)
        if not set(given) <= set(range(num_samples)):
            strange = next(sample for sample in given if sample not in range(num_samples))
            raise Wrong(
                "no-such-sample",
                f"{case}: there is no sample {strange}; indices run from 0 to S - 1",
            )
        if world_size > 1 and len(set(map(tuple, shares))) == 1:
            raise Wrong(
                "same-samples",
                f"{case}: every rank gets the same samples; the rank must play a part",
            )
        missing = sorted(set(range(num_samples)) - set(given))
        if missing and len(given) == world_size * (num_samples // world_size):
            raise Wrong(
                "integer-division",
                f"{case}: integer division gives {num_samples // world_size} to each rank and "
                f"forgets {len(missing)}, namely {missing}",
            )
        if len(set(given)) < len(given):
            twice = next(sample for sample in given if given.count(sample) > 1)
            owners = [rank for rank, share in enumerate(shares) if twice in share]
            raise Wrong(
                "sample-twice", f"{case}: sample {twice} is given out twice, to ranks {owners}"
            )
        if missing:
            raise Wrong("sample-missing", f"{case}: nobody evaluates {missing}")
        sizes = [len(share) for share in shares]
        if max(sizes) - min(sizes) > 1:
            raise Wrong(
                "unfair-shares",
                f"{case}: the ranks get {sizes}; all wait for the one with most, so share fairly",
            )
    return "every sample has exactly one owner, and no rank waits longer than it must"


@exercise
def exercise_2(part_of_rank: Callable[..., Any]) -> str:
    """One rank's part of the loss."""
    shares = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0])]
    kl, num_data, num_samples, world_size = torch.tensor(8.0), 10, 4, 2
    parts = [part_of_rank(losses, kl, num_samples, num_data, world_size) for losses in shares]
    if any(part is None for part in parts):
        raise Wrong("no-return", "the function returns nothing: is a `return` missing?")
    data, prior = torch.cat(shares).sum() / num_samples, kl / num_data
    means = torch.stack([losses.mean() for losses in shares])
    mistakes = [
        (
            data + world_size * prior,
            "kl-counted-twice",
            "every rank adds the whole KL, so it is counted twice",
        ),
        (
            means.sum() + prior,
            "summed-not-averaged",
            "you take the mean over each rank's own samples, and the sum over "
            "ranks then is W times too large: divide by S",
        ),
        (
            means.sum() + world_size * prior,
            "summed-not-averaged-and-kl-counted-twice",
            "you take the mean over each rank's own samples instead "
            "of dividing by S, and the KL is counted twice",
        ),
        (
            means.mean() + prior,
            "mean-of-means",
            "that is the mean of the means: a rank with 1 sample counts as much as one with 3",
        ),
        (
            torch.cat(shares).sum() + prior,
            "samples-not-averaged",
            "the data term is a sum over samples, not a mean: divide by num_samples",
        ),
        (data + kl, "kl-not-divided", "the KL is not divided by N"),
        (
            data + kl / num_samples,
            "kl-by-samples",
            "the KL is divided by S, the number of samples: N is the number of training images",
        ),
        (
            data + world_size * kl,
            "kl-not-divided-and-counted-twice",
            "the KL is divided neither by N nor by the world size",
        ),
        (data, "kl-missing", "the KL is missing"),
        (
            (data + prior) / world_size,
            "divided-twice",
            "you divide by the world size once too often: the data term "
            "is shared out by its samples already",
        ),
    ]
    close(
        torch.stack([torch.as_tensor(part) for part in parts]).sum(),
        data + prior,
        mistakes,
        what="the sum of the ranks' parts",
    )
    return "the parts add up to the loss, whoever has how many samples"


@exercise
def exercise_3(combine: Callable[[Tensor, Tensor], Any]) -> str:
    """From means of unequal shares to the mean of all."""
    generator = torch.Generator().manual_seed(3)
    local_means = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    counts = torch.tensor([3, 1, 2])
    weighted = counts[:, None] * local_means
    mistakes = [
        (local_means.sum(0), "summed-not-averaged", "you summed over ranks instead of averaging"),
        (
            local_means.mean(0),
            "mean-of-means",
            "that is the mean of the means: right only where every rank has the "
            "same number of samples",
        ),
        (
            weighted.sum(0),
            "samples-not-averaged",
            "that is the sum over all samples: divide by how many there are",
        ),
        (
            weighted.sum(0) / len(counts),
            "divided-by-ranks",
            "you divided by the number of ranks instead of the number of samples",
        ),
        (
            local_means.sum(0) / counts.sum(),
            "not-weighted",
            "each mean must be multiplied by its count before the sum",
        ),
    ]
    close(combine(local_means.clone(), counts.clone()), weighted.sum(0) / counts.sum(), mistakes)
    return "each rank counts for as many samples as it has"


@exercise
def exercise_4(
    my_gradient: Callable[..., Any],
    serial_gradient: Callable[..., Tensor],
    inputs: Inputs,
    num_data: int,
    pool: WorkerPool,
) -> str:
    """The parallel gradient of a batch out of N rows, on the live ranks."""
    num_samples, step = 7, 3
    expected = serial_gradient(*inputs, num_samples, step)
    answers = pool.run(my_gradient, *inputs, num_samples, step)
    for rank, answer in enumerate(answers):
        mistakes = wrong_gradients(
            serial_gradient, inputs, num_data, num_samples, step, pool.size, rank
        )
        close(answer, expected, mistakes, rtol=1e-9, atol=1e-12, what=f"rank {rank}'s gradient")
    gap = max((answer - expected).abs().max().item() for answer in answers)
    return f"largest difference from serial {gap:.1e}, on both ranks"


@exercise
def exercise_5(bytes_per_step: Callable[[int, int, int, int], Any], pool: WorkerPool) -> str:
    """The traffic of a step, against what the library counts."""
    net = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))
    posterior = MeanField(BayesianModel(net))
    weights, samples, rows = len(posterior.loc), 4, 32
    data = (torch.zeros(rows, 64), torch.zeros(rows, dtype=torch.long))
    layout = Layout(sample=pool.size)
    found = pool.run(
        fit, posterior, data, layout=layout, num_samples=samples, batch_size=rows, epochs=1
    )[0]
    counted = found.history.bytes_per_step
    per_rank = -(-samples // pool.size)
    mistakes = [
        (
            4 * weights,
            "one-number-a-weight",
            "a mean-field posterior learns two numbers for each weight, a mean and a scale",
        ),
        (
            2 * weights,
            "numbers-not-bytes",
            "that is how many numbers there are: each takes itemsize bytes",
        ),
        (
            weights,
            "weights-not-bytes",
            "two numbers for each weight, and each takes itemsize bytes",
        ),
        *(
            (
                (factor * 4 * weights * count),
                "times-samples",
                "the samples' gradients are summed *before* they are sent, so S plays no part",
            )
            for factor in (1, 2)
            for count in (samples, per_rank)
        ),
        *(
            (
                (factor * 4 * weights * rows),
                "times-rows",
                "what is sent is a gradient; the rows of the batch are summed up in it",
            )
            for factor in (1, 2)
        ),
    ]
    answer = bytes_per_step(weights, samples, rows, 4)
    close(answer, counted, mistakes, rtol=0.01, what="your prediction")
    return f"the library counted {counted:,.0f} bytes; your prediction: {float(answer):,.0f}"
