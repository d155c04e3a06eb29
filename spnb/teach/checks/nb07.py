"""The exercise checks of notebook 07, *Images: a Bayesian ViT*."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from spnb.maths.networks import ViT
from spnb.teach.attempt import NotAttempted, attempted
from spnb.teach.check import Wrong, close, exercise


@exercise
def exercise_1(tokens_and_weights: Callable[[int, int, int], Any]) -> str:
    """Tokens of an image, and weights of the map that makes them, counted from real networks."""
    for side, patch, dim in ((32, 4, 192), (32, 8, 48), (24, 4, 96)):
        net = ViT(image_size=side, patch=patch, dim=dim, depth=1, heads=3, hidden=16)
        linear = net.embed[1]
        tokens = len(net.get_buffer("positions"))
        weights = sum(p.numel() for p in linear.parameters())
        answer = tokens_and_weights(side, patch, dim)
        if not attempted(answer):
            raise NotAttempted
        if not (isinstance(answer, tuple | list) and len(answer) == 2):
            raise Wrong("not-a-pair", "two numbers are wanted: `return tokens, weights`")
        close(
            answer[0],
            tokens,
            [
                (
                    side // patch,
                    "one-row",
                    "that is the patches in one row: there are as many rows",
                ),
                (side**2, "pixels", "that is the number of pixels: a patch has several"),
                (3 * tokens, "token-per-colour", "the three colours of a patch go into one token"),
                (
                    tokens + 1,
                    "class-token",
                    "there is no class token here: all tokens are averaged",
                ),
            ],
            what=f"your tokens of {side} pixels in patches of {patch}",
        )
        close(
            answer[1],
            weights,
            [
                (weights - dim, "bias-missing", "the biases are missing"),
                (patch**2 * dim + dim, "one-colour", "each pixel has three colours"),
                (3 * patch * dim + dim, "patch-not-squared", "a patch has patch² pixels"),
                (tokens * weights, "map-per-token", "all patches share one linear map"),
            ],
            what=f"your weights for dim = {dim}",
        )
    return "half the patch gives four times the tokens, and attention sixteen times the pairs"


@exercise
def exercise_2(epochs_to: Callable[[float, Sequence[float]], Any]) -> str:
    """Epochs until a target is first reached."""
    curve = [0.2, 0.4, 0.3, 0.6, 0.5]
    for target, right in ((0.1, 0.5), (0.3, 1.5), (0.4, 2.0), (0.45, 3.5)):
        answer = epochs_to(target, list(curve))
        if answer is None:
            raise Wrong(
                "none-though-reached", f"{target} is reached by {curve}, but you return None"
            )
        whole = next(i for i, value in enumerate(curve) if value >= target)
        mistakes = [
            (
                right - 1,
                "one-epoch-early",
                "the first entry is the accuracy after epoch 1, not at the beginning",
            ),
            (
                float(whole),
                "epoch-before",
                "that is the epoch before it is reached: add the part along the line",
            ),
            (
                whole + 1.0,
                "epoch-after",
                "that is the first whole epoch with enough: go back along the line",
            ),
            (
                right + 1,
                "one-epoch-late",
                "the first entry is the accuracy after epoch 1, not after epoch 2",
            ),
            (
                3 + (target - 0.3) / 0.3,
                "second-crossing",
                "that is where it is reached again, not first",
            ),
        ]
        mistakes = [known for known in mistakes if not math.isclose(known[0], right)]
        close(answer, right, mistakes, what=f"your epochs to {target} in {curve}")
    never = epochs_to(0.7, list(curve))
    if never is not None:
        raise Wrong(
            "number-though-unreached",
            f"0.7 is never reached by {curve}: None is wanted, not {never!r}",
        )
    return "runs that never arrive must be told, not dropped in silence"


@exercise
def exercise_3(disagreement: Callable[[Tensor], Any]) -> str:
    """Mutual information of class and weights."""
    generator = torch.Generator().manual_seed(3)
    p = torch.randn(5, 7, 4, generator=generator, dtype=torch.float64).mul(2).softmax(-1)
    p[0, 0] = torch.tensor([1.0, 0.0, 0.0, 0.0])  # -p log p of a zero is zero
    total = torch.special.entr(p.mean(0)).sum(-1)
    within = torch.special.entr(p).sum(-1)
    mistakes = [
        (
            total,
            "total-entropy",
            "that is the whole uncertainty: subtract what each sample has by itself",
        ),
        (
            within.mean(0),
            "mean-entropy",
            "that is the mean entropy of the samples: the aleatoric part",
        ),
        (
            within.mean(0) - total,
            "reversed-difference",
            "it is entropy of the mean less mean of the entropies",
        ),
        (
            total - within.sum(0),
            "samples-not-averaged",
            "take the mean of the samples' entropies, not the sum",
        ),
        (
            (total - within.mean(0)) / math.log(2),
            "bits",
            "that is in bits; the natural logarithm is asked",
        ),
        (p.var(0).sum(-1), "variance", "that is a variance; an information is wanted"),
    ]
    close(disagreement(p.clone()), total - within.mean(0), mistakes, what="your disagreement")
    return "it is zero where all samples agree, however unsure they are"


@exercise
def exercise_4(share_of_pairs: Callable[[Tensor, Tensor], Any]) -> str:
    """The area under the receiver operating characteristic as a share of pairs."""
    generator = torch.Generator().manual_seed(4)
    known = torch.randint(0, 6, (9,), generator=generator).double()
    unknown = torch.randint(2, 9, (14,), generator=generator).double()
    more = (unknown[:, None] > known[None, :]).double().mean()
    ties = (unknown[:, None] == known[None, :]).double().mean()
    mistakes = [
        (more, "ties-not-counted", "ties count one half"),
        (more + ties, "ties-counted-whole", "ties count one half, not whole"),
        (1 - more - ties / 2, "reversed-pairs", "the *unknown* one should be the larger"),
        (
            (more + ties / 2) * 9 * 14,
            "count-not-share",
            "that is how many pairs there are: take the share",
        ),
        (
            (unknown.mean() > known.mean()).double(),
            "means-compared",
            "compare all pairs, not the two means",
        ),
    ]
    close(share_of_pairs(known, unknown), more + ties / 2, mistakes, what="your share")
    return "it needs no threshold, and no scale: only who has more doubt than whom"
