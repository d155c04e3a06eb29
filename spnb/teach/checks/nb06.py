"""The exercise checks of notebook 06, *When averaging is not exact*."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from spnb.maths.models import BayesianModel
from spnb.maths.objectives import PredictiveNLL
from spnb.maths.posteriors import MeanField
from spnb.parallel.layout import Layout
from spnb.parallel.pool import WorkerPool
from spnb.run.training import fit
from spnb.teach.attempt import NotAttempted, attempted
from spnb.teach.check import Wrong, close, exercise


@exercise
def exercise_1(averaging_bias: Callable[[Tensor, int], Any]) -> str:
    """What plain averaging adds to -log of a mean."""
    for samples, groups in ((2, 2), (8, 2), (8, 4)):
        generator = torch.Generator().manual_seed(samples + groups)
        p = 0.05 + 0.9 * torch.rand(samples, generator=generator, dtype=torch.float64)
        parts = p.view(groups, -1)
        exact, averaged = -p.mean().log(), -parts.mean(1).log().mean()
        strided = -p.view(-1, groups).mean(0).log().mean()
        mistakes = [
            (
                exact - averaged,
                "sign",
                "that is exact minus averaged: the averaged loss is the larger one",
            ),
            (
                averaged,
                "averaged-loss",
                "that is the averaged loss; its bias is what it is *above* the exact one",
            ),
            (exact, "exact-loss", "that is the exact loss; how much larger is the averaged one?"),
            (
                -p.log().mean() - exact,
                "mean-of-logs",
                "you took the logarithm of every sample: a group first averages its own, and then "
                "takes one logarithm",
            ),
            (
                -parts.mean(1).log().sum() - exact,
                "summed-not-averaged",
                "you summed over the groups instead of averaging",
            ),
            (
                -parts[0].mean().log() - exact,
                "first-group-alone",
                "that is the first group's loss alone",
            ),
            (
                strided - exact,
                "strided-groups",
                "your groups take every W-th sample; neighbours belong together: `p.chunk(groups)`",
            ),
            (
                0.0,
                "probabilities-averaged",
                "you averaged the probabilities of the groups: that is the mean of all samples",
            ),
        ]
        what = f"your bias for {samples} samples in {groups} groups"
        close(averaging_bias(p.clone(), groups), averaged - exact, mistakes, what=what)
    return "never negative, whatever the samples: that is Jensen's inequality"


def _nll(logits: Tensor, y: Tensor) -> Tensor:
    """Mean over the rows of -log of the mean probability of the right class."""
    return nn.functional.nll_loss(logits.softmax(-1).mean(0).log(), y)


@exercise
def exercise_2(loss_of_all: Callable[[Tensor, Tensor, int, Tensor], Any]) -> str:
    """The loss of all samples, seen from each of three ranks that hold 3, 2 and 2 of them."""
    generator = torch.Generator().manual_seed(2)
    logits = 3 * torch.randn(7, 5, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(4, (5,), generator=generator)
    whole = logits.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(_nll(whole, y), whole)
    for rank in range(3):
        samples = Layout(sample=3).tile(rank, 7, 5).samples
        mine = slice(samples.start, samples.stop)
        own = logits[mine].clone().requires_grad_()
        loss = loss_of_all(own, logits.clone(), samples.start, y)
        close(loss, _nll(logits, y), _wrong_losses(logits, mine, y), what=f"rank {rank}'s loss")
        if not (isinstance(loss, Tensor) and loss.requires_grad):
            raise Wrong(
                "no-gradient",
                "the loss is right, but no gradient can leave it: `everyone` are bare numbers from "
                "the others. Put `own`, which has a graph, into its place among them",
            )
        (found,) = torch.autograd.grad(loss, own, allow_unused=True)
        if found is None:
            raise Wrong(
                "own-unused",
                "the loss does not depend on `own`: put it into its place in `everyone`",
            )
        what = f"the gradient at rank {rank}'s own predictions"
        close(found, wanted[mine], rtol=1e-9, atol=1e-12, what=what)
    return "every rank holds the same loss, and the three slices make up its whole gradient"


def _wrong_losses(logits: Tensor, mine: slice, y: Tensor) -> list[tuple[Any, str, str]]:
    own = logits[mine]
    right = -logits.log_softmax(-1)[:, torch.arange(len(y)), y]
    displaced = logits.clone()
    displaced[: len(own)] = own
    left_out = torch.cat([logits[: mine.start], logits[mine.stop :]])
    return [
        (
            _nll(own, y),
            "own-samples-alone",
            "that is the loss of this rank's own samples: plain averaging again",
        ),
        (
            right.mean(),
            "mean-of-logs",
            "that is the mean of the logs, the ELBO: average the probabilities first",
        ),
        (
            nn.functional.cross_entropy(logits.mean(0), y),
            "mean-of-logits",
            "you averaged the logits: average the probabilities",
        ),
        (
            _nll(torch.cat([logits, own]), y),
            "own-counted-twice",
            "your own samples count twice: they are in `everyone`, too",
        ),
        (_nll(left_out, y), "own-missing", "your own samples are missing"),
        (
            _nll(displaced, y),
            "own-misplaced",
            "`own` went to the front, over somebody else's samples: its place begins at `start`",
        ),
        (
            len(y) * _nll(logits, y),
            "rows-not-averaged",
            "that is the sum over the rows: take the mean",
        ),
        (-_nll(logits, y), "sign", "the sign: -log"),
    ]


@exercise
def exercise_3(handed_over: Callable[..., Any], pool: WorkerPool) -> str:
    """The traffic of a step with an exact objective, against what the library counts."""
    net = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10)).double()
    posterior = MeanField(BayesianModel(net))
    weights, ranks = len(posterior.loc), pool.size
    told = []
    for samples, rows in ((8, 40), (5, 64)):
        data = (torch.zeros(rows, 64), torch.zeros(rows, dtype=torch.long))
        found = pool.run(
            fit,
            posterior,
            data,
            objective=PredictiveNLL(),
            layout=Layout(sample=ranks),
            num_samples=samples,
            batch_size=rows,
        )[0]
        counted = found.history.bytes_per_step
        share = math.ceil(samples / ranks) * rows * 10
        mistakes = [
            (
                8 * 2 * weights,
                "predictions-missing",
                "the gradient is there, the predictions are missing",
            ),
            (8 * share, "gradient-missing", "the predictions are there, the gradient is missing"),
            (
                8 * (weights + share),
                "one-number-a-weight",
                "a gradient holds two numbers for each weight",
            ),
            (
                8 * (2 * weights + samples * rows * 10),
                "too-much-handed-over",
                "a rank hands over the predictions of its *own* samples only, and once: the way "
                "back needs no message",
            ),
            (
                8 * (2 * weights + samples * rows * 10 / ranks),
                "samples-cut",
                "no rank has half a sample: the largest share counts, and is rounded up",
            ),
            (
                8 * (2 * weights + samples // ranks * rows * 10),
                "rounded-down",
                "you rounded down: the largest share counts",
            ),
            (
                8 * (2 * weights + math.ceil(samples / ranks) * rows),
                "classes-missing",
                "a prediction is one number for each class",
            ),
            (
                8 * (2 * weights + math.ceil(samples / ranks) * 10),
                "rows-missing",
                "there is a prediction for each row of the batch",
            ),
            (
                2 * weights + share,
                "numbers-not-bytes",
                "that is how many numbers there are: each takes itemsize bytes",
            ),
        ]
        answer = handed_over(weights, samples, rows, 10, ranks, 8)
        what = f"your prediction for S = {samples}, B = {rows}"
        close(answer, counted, mistakes, rtol=0.01, what=what)
        told.append(f"{counted:,.0f} (yours {float(answer):,.0f})")
    return f"the library counted {' and '.join(told)} bytes"


@exercise
def exercise_4(rank_loss: Callable[[Any, Any, int], Any]) -> str:
    """What to return where the gradients of all ranks will be averaged."""
    for ranks in (2, 4):
        data_term = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
        divergence = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
        loss = rank_loss(data_term, divergence, ranks)
        if not attempted(loss):
            raise NotAttempted
        if loss is None:
            raise Wrong("no-return", "the function returns nothing: is a `return` missing?")
        if not (isinstance(loss, Tensor) and loss.requires_grad):
            raise Wrong(
                "no-gradient",
                "no gradient can leave what you returned: no `.item()`, no `.detach()`",
            )
        parts = torch.autograd.grad(loss, (data_term, divergence), allow_unused=True)
        of_data, of_prior = (0.0 if part is None else part.item() for part in parts)
        _judge_factors(of_data, of_prior, ranks)
    return (
        "the data term is in W pieces and must be multiplied by W; the KL is whole on every rank "
        "and is averaged as it is"
    )


def _judge_factors(of_data: float, of_prior: float, ranks: int) -> None:
    """Hold the factors that a rank's loss puts on its two terms against (W, 1)."""
    if math.isclose(of_data, ranks) and math.isclose(of_prior, 1):
        return
    after = f"on {ranks} ranks, after the averaging, the data term weighs {of_data / ranks:g}"
    if math.isclose(of_data, 1) and math.isclose(of_prior, 1):
        raise Wrong("data-term-too-small", f"that is the trap itself: {after}, the KL 1")
    if math.isclose(of_data, 1) and math.isclose(of_prior, 1 / ranks):
        raise Wrong(
            "both-too-small",
            f"that is right where gradients are *summed*; {after} and the KL {of_prior:g}. Adam "
            "would never tell you; SGD and clipping would",
        )
    if math.isclose(of_data, ranks) and math.isclose(of_prior, ranks):
        raise Wrong(
            "kl-counted-twice",
            f"{after}, but the KL {of_prior:g}: it is whole on every rank already",
        )
    if math.isclose(of_data, 1 / ranks):
        raise Wrong("divided-twice", f"{after}: you divided where the averaging divides already")
    if of_prior == 0:
        raise Wrong("kl-missing", "the KL is missing")
    raise Wrong("value", f"{after} and the KL {of_prior:g}; both should weigh 1")
