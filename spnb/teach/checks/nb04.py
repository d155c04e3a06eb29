"""The exercise checks of notebook 04, *Data parallelism, honestly*."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from spnb.parallel.layout import Layout
from spnb.parallel.trace import Span
from spnb.teach.attempt import NotAttempted, attempted
from spnb.teach.check import Wrong, close, exercise
from spnb.teach.explore.timeline import Timeline
from spnb.teach.racing import limit


@exercise
def exercise_1(ddp_loss: Callable[..., Any]) -> str:
    """The loss of a rank, such that DDP's average over the ranks is the loss of the step."""
    generator = torch.Generator().manual_seed(4)
    parts = [torch.rand(3, rows, generator=generator, dtype=torch.float64) for rows in (3, 1)]
    kl, num_data = torch.tensor(8.0, dtype=torch.float64), 20
    num_samples, batch_size, world_size = 3, 4, 2
    answers = [
        ddp_loss(own.clone(), kl.clone(), num_samples, num_data, batch_size, world_size)
        for own in parts
    ]
    if any(answer is None for answer in answers):
        raise Wrong("no-return", "the function returns nothing: is a `return` missing?")
    if not all(map(attempted, answers)):
        raise NotAttempted
    total = torch.stack([own.sum() for own in parts]).sum()
    data, prior = total / (num_samples * batch_size), kl / num_data
    means = torch.stack([own.mean() for own in parts]).mean()
    small = (
        "DDP divides the sum over the ranks by W: the data term comes out W times too small, in "
        "effect W times the temperature"
    )
    uneven = (
        "the mean of each rank's own rows: DDP then forms the mean of the means, and a row on the "
        "rank with 1 row counts three times as much as one on the rank with 3"
    )
    shared_kl = (
        "the KL comes out W times too small: 1/W of it on each rank is right for a *sum* over "
        "ranks, as in notebook 03; DDP averages"
    )
    rows_missing = "the mean over the rows is missing: divide by B"
    mistakes = [
        (means + prior, "mean-of-means", uneven),
        (
            means + prior / world_size,
            "mean-of-means-and-kl-too-small",
            f"{uneven}; and {shared_kl}",
        ),
        (data / world_size + prior, "data-term-too-small", small),
        (data / world_size + prior / world_size, "both-too-small", f"{small}; and so does the KL"),
        (data + prior / world_size, "kl-too-small", shared_kl),
        (
            data + world_size * prior,
            "kl-counted-twice",
            "the KL is multiplied by the world size: it counts W times",
        ),
        (data, "kl-missing", "the KL is missing"),
        (data + kl, "kl-not-divided", "the KL is not divided by N"),
        (
            data + kl / batch_size,
            "kl-by-batch",
            "the KL is divided by B, the rows of the batch: N is the number of training images",
        ),
        (
            num_samples * data + prior,
            "samples-not-averaged",
            "the mean over the samples is missing: divide by S",
        ),
        (
            num_samples / world_size * data + prior,
            "samples-not-averaged-and-w-missing",
            "both the mean over the samples and W are missing",
        ),
        (batch_size * data + prior, "rows-not-averaged", rows_missing),
        (
            batch_size / world_size * data + prior,
            "rows-not-averaged-and-w-missing",
            f"{rows_missing}; and DDP divides by W",
        ),
    ]
    mean = torch.stack([torch.as_tensor(answer).double() for answer in answers]).mean()
    close(mean, data + prior, mistakes, what="DDP's average of your losses")
    return "DDP's average is the loss of the step, however many rows each rank has"


@exercise
def exercise_2(efficiencies: Callable[..., Any]) -> str:
    """Strong and weak scaling, from three step times."""
    alone, strong, weak, world_size = 120.0, 40.0, 150.0, 4
    answer = efficiencies(alone, strong, weak, world_size)
    if answer is None:
        raise Wrong("no-return", "the function returns nothing: is a `return` missing?")
    if not attempted(answer):
        raise NotAttempted
    if not isinstance(answer, (tuple, list)) or len(answer) != 2:
        raise Wrong("not-a-pair", "two numbers are wanted: strong, then weak")
    right = (alone / strong / world_size, alone / weak)
    if torch.allclose(torch.tensor(answer[::-1]).double(), torch.tensor(right).double()):
        raise Wrong("swapped-parts", "the two are right, but in the other order: strong first")
    close(
        answer[0],
        right[0],
        [
            (
                alone / strong,
                "speed-up",
                "that is the speed-up: efficiency is the speed-up *per rank*",
            ),
            (
                strong / alone,
                "strong-inverted-and-w-missing",
                "you divided strong-scaling efficiency the other way round, and the world size is "
                "missing",
            ),
            (
                strong * world_size / alone,
                "strong-inverted",
                "you divided strong-scaling efficiency the other way round: more than 1 would mean "
                "that sharing makes each rank faster",
            ),
            (
                alone / strong * world_size,
                "multiplied-by-ranks",
                "the speed-up must be divided by the world size, not multiplied",
            ),
        ],
        what="strong-scaling efficiency",
    )
    close(
        answer[1],
        right[1],
        [
            (
                weak / alone,
                "weak-inverted",
                "you divided weak-scaling efficiency the other way round: a slower step must give "
                "a smaller number",
            ),
            (
                alone / weak / world_size,
                "weak-divided-by-ranks",
                "in weak scaling the work has grown with the ranks already: do not divide by the "
                "world size once more",
            ),
            (
                alone * world_size / weak,
                "scaled-speed-up",
                "that is the scaled speed-up, W times the efficiency",
            ),
        ],
        what="weak-scaling efficiency",
    )
    return "one rank's time over the time of all, and for constant work once more over W"


@exercise
def exercise_3(waiting: Callable[[Any], Any], timeline: Timeline) -> str:
    """How long each rank waits in the all-reduce of a step."""
    made_up = [
        _step(arrival=0.003, done=0.0100),
        _step(arrival=0.007, done=0.0104),
        _step(arrival=0.005, done=0.0101),
    ]
    for case, spans in (("three ranks", made_up), ("the measured step", timeline)):
        answer = waiting(spans)
        if answer is None:
            raise Wrong("no-return", "the function returns nothing: is a `return` missing?")
        if not attempted(answer):
            raise NotAttempted
        reduces = [next(s for s in one if s.name == "all-reduce") for one in spans]
        arrivals = torch.tensor([1e3 * span.start for span in reduces], dtype=torch.float64)
        found = torch.as_tensor(answer).double()
        what = f"{case}: your answer"
        close(found, arrivals.max() - arrivals, _wrong_waits(spans, arrivals), atol=1e-4, what=what)
    waits = ", ".join(f"{wait:.2f}" for wait in (arrivals.max() - arrivals).tolist())
    return f"in the measured step the ranks wait {waits} ms for each other"


def _wrong_waits(
    spans: Timeline, arrivals: torch.Tensor
) -> Iterator[tuple[torch.Tensor, str, str]]:
    reduces = [next(s for s in one if s.name == "all-reduce") for one in spans]
    ends = torch.tensor([1e3 * span.stop for span in reduces], dtype=torch.float64)
    right = arrivals.max() - arrivals
    yield (
        ends - arrivals,
        "whole-all-reduce",
        "that is all of the all-reduce: waiting *and* sending",
    )
    yield -right, "sign", "the sign is wrong: a rank waits from its own arrival to the last one's"
    yield (
        arrivals - arrivals.min(),
        "lateness",
        "that is how late each rank comes; the one that comes *last* waits for nobody",
    )
    yield right / 1e3, "seconds-not-ms", "those are seconds: milliseconds are wanted"
    yield (
        ends.max() - ends,
        "ends-compared",
        "you compared the ends; a rank waits from the *start* of its all-reduce",
    )
    yield (
        ends.max() - arrivals,
        "end-not-arrival",
        "up to the last arrival, not up to the end of the all-reduce",
    )


def _step(arrival: float, done: float) -> list[Span]:
    return [
        Span("draw", 0.0, 0.001),
        Span("all-reduce", arrival, done),
        Span("update", done, done + 0.001),
        Span("step", 0.0, done + 0.001),
    ]


@exercise
def exercise_4(choose: Callable[[int, int, int], Any]) -> str:
    """The better of the two pure layouts."""
    cases = [(16, 256, 2), (3, 256, 2), (1, 64, 2), (5, 1024, 4), (6, 7, 3), (3, 6, 4), (8, 8, 8)]
    for samples, rows, ranks in (*cases, (17, 3, 2)):
        case = f"S = {samples}, B = {rows}, {ranks} ranks"
        answer = choose(samples, rows, ranks)
        if answer is None:
            raise Wrong("no-return", "the function returns nothing: is a `return` missing?")
        if not attempted(answer):
            raise NotAttempted
        if not isinstance(answer, Layout):
            raise Wrong("not-a-layout", f"{case}: a spnb.Layout is wanted, not {answer!r}")
        by_samples, by_rows = Layout(sample=ranks), Layout(data=ranks)
        if answer not in (by_samples, by_rows):
            raise Wrong(
                "hybrid",
                f"{case}: {answer} is neither of the two pure layouts; hybrids are for notebook 05",
            )
        if answer == by_samples and samples < ranks:
            raise Wrong(
                "idle-ranks",
                f"{case}: spnb.fit refuses {answer}, since a rank would have no sample",
            )
        best = {layout: limit(layout, samples, rows) for layout in (by_samples, by_rows)}
        other = by_rows if answer == by_samples else by_samples
        if best[answer] < best[other]:
            raise Wrong(
                "larger-tile",
                f"{case}: {answer} allows {best[answer]:.2f} times one rank, {other} allows "
                f"{best[other]:.2f}: look at the largest tile",
            )
        if answer == by_rows and best[answer] == best[other] and samples >= ranks:
            raise Wrong(
                "tie",
                f"{case}: both allow {best[answer]:.2f}; share the samples then, since each rank "
                "also draws fewer",
            )
    return "the largest tile decides, and where the tiles are alike, the draws do"
