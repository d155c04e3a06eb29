"""The exercise checks of notebook 00, *Start here*."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from spnb.parallel.pool import WorkerPool
from spnb.teach.check import Wrong, close, equal, exercise


def _on_rank(function: Callable[[Tensor], Any], values: list[Tensor]) -> tuple[Any, Tensor]:
    """Call a learner's function with this rank's value; its answer, and the value afterwards."""
    mine = values[dist.get_rank() % len(values)].clone()
    return function(mine), mine


@exercise
def exercise_1(average: Callable[[Tensor], Any], pool: WorkerPool) -> str:
    """The mean over ranks."""
    values = [torch.tensor(1.0), torch.tensor(3.0)] * pool.size
    values = values[: pool.size]
    total = torch.stack(values).sum()
    mean = total / pool.size
    results = pool.run(_on_rank, average, values)
    for rank, (answer, _) in enumerate(results):
        mistakes = [
            (total, "summed-not-averaged", "you summed over ranks instead of averaging"),
            (
                values[rank],
                "no-all-reduce",
                "each rank still has its own value: is the all-reduce missing?",
            ),
            (
                values[rank] / pool.size,
                "divided-not-summed",
                "you divided, but nothing was summed over the ranks",
            ),
        ]
        close(answer, mean, mistakes, what=f"rank {rank}'s answer")
    if any(not torch.equal(after, values[rank]) for rank, (_, after) in enumerate(results)):
        return (
            "every rank leaves with the mean. One more thing: your function has changed the "
            "tensor that it was given; reduce value.clone() to leave it alone"
        )
    return "every rank leaves with the same mean"


@exercise
def exercise_2(choice: dict[str, Any]) -> str:
    """Copy or share."""
    for name in ("images", "network", "results"):
        if name not in choice:
            raise Wrong("missing-entry", f"there is no entry '{name}'")
    equal(
        choice["images"],
        "share",
        [
            (
                "copy",
                "images-copied",
                "a copy of the images works, but takes the memory once more on every rank, and "
                "nobody writes into them",
            ),
        ],
        what="the choice for the images",
    )
    equal(
        choice["network"],
        "copy",
        [
            (
                "share",
                "network-shared",
                "if the network is shared, each rank overwrites the others' weights",
            ),
        ],
        what="the choice for the network",
    )
    equal(
        choice["results"],
        "share",
        [
            (
                "copy",
                "results-copied",
                "each rank would write into its own copy, unseen by the notebook",
            ),
        ],
        what="the choice for the results",
    )
    return "share what is read by all, or written on purpose; copy what each rank changes"


@exercise
def exercise_3(mean_of_all: Callable[[Tensor], Any], pool: WorkerPool) -> str:
    """The mean over all entries of ranks with different numbers of them."""
    values = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0])]
    values += [torch.tensor([4.0] * (rank + 1)) for rank in range(2, pool.size)]
    values = values[: pool.size]
    everything = torch.cat(values)
    means = torch.stack([value.mean() for value in values])
    for rank, (answer, _) in enumerate(pool.run(_on_rank, mean_of_all, values)):
        mistakes = [
            (
                means.mean(),
                "mean-of-means",
                "that is the mean of the means: a rank with few entries counts as much "
                "as one with many. Sum and count must be summed separately",
            ),
            (
                means[rank],
                "no-all-reduce",
                "each rank still has the mean of its own entries: nothing was summed "
                "over the ranks",
            ),
            (means.sum(), "summed-not-averaged", "you summed the means over ranks"),
            (
                everything.sum(),
                "entries-not-averaged",
                "you summed over ranks, but did not divide by the count",
            ),
            (
                everything.sum() / pool.size,
                "divided-by-ranks",
                "you divided by the number of ranks instead of the number of entries",
            ),
            (
                everything.sum() / len(values[rank]),
                "own-count",
                "the sum is over all ranks, but the count is this rank's own",
            ),
        ]
        close(answer, everything.mean(), mistakes, what=f"rank {rank}'s answer")
    return "sums and counts travel, means do not"


@exercise
def exercise_4(epistemic_by_angle: Callable[[Tensor], Any], probabilities: Tensor) -> str:
    """The entropy of the mean less the mean of the entropies, averaged over digits."""
    total = torch.special.entr(probabilities.mean(0)).sum(-1)  # [angles, digits]
    aleatoric = torch.special.entr(probabilities).sum(-1).mean(0)
    expected = (total - aleatoric).mean(-1)
    pooled = torch.special.entr(probabilities.mean((0, 2))).sum(-1)
    mistakes: list[tuple[Any, str, str]] = [
        (
            total.mean(-1),
            "total-entropy",
            "that is the whole entropy: subtract the mean entropy of the draws",
        ),
        (
            aleatoric.mean(-1),
            "mean-entropy",
            "that is the mean entropy of single draws, the part that is *not* disagreement",
        ),
        (
            pooled - aleatoric.mean(-1),
            "digits-pooled",
            "you averaged the probabilities over the digits as well: "
            "each digit has its own entropy",
        ),
        (
            (total - aleatoric).sum(-1),
            "digits-not-averaged",
            "that is the sum over the digits: take the mean",
        ),
        (
            (total - aleatoric).mean(0),
            "wrong-dimension",
            "that is one number for each digit: average over the digits, not over the angles",
        ),
        (expected / math.log(2), "bits", "your entropy is in bits: use the natural logarithm"),
    ]
    close(epistemic_by_angle(probabilities.clone()), expected, mistakes)
    most = int(expected.argmax())
    return (
        f"upright the draws disagree by {expected[0].item():.2f} nats, at the most contested angle "
        f"(number {most}) by {expected[most].item():.2f}"
    )
