"""The exercise checks of notebook 05, *Hybrid layouts*."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from spnb.parallel.layout import Layout
from spnb.run.machine import Link
from spnb.run.plan import Plan, layouts
from spnb.run.step_cost import predict
from spnb.teach.attempt import NotAttempted, attempted
from spnb.teach.check import Wrong, close, exercise


@exercise
def exercise_1(sample_groups: Callable[[int, int], Sequence[Sequence[int]]]) -> str:
    """The groups of ranks along the sample axis."""
    for sample, data in ((4, 2), (2, 3), (3, 1), (1, 4)):
        answer = _given(sample_groups(sample, data))
        case = f"on a grid of {sample} × {data}"
        try:
            groups = {tuple(int(rank) for rank in group) for group in answer}
        except TypeError:
            raise Wrong(
                "not-groups", f"{case}: a list of lists of ranks is wanted, such as [[0, 1]]"
            ) from None
        size = sample * data
        layout = Layout(sample, data)
        expected = {layout.ranks(rank, "sample") for rank in range(size)}
        if {tuple(sorted(group)) for group in groups} == expected:
            continue
        turned = [tuple(range(start, start + sample)) for start in range(0, size, sample)]
        mistakes = [
            (
                {layout.ranks(rank, "data") for rank in range(size)},
                "rows-not-columns",
                "those are the rows of the grid, the groups along `data`: they hold the same "
                "samples, so they have nothing to tell each other about other samples",
            ),
            (
                {tuple(range(size))},
                "all-ranks",
                "all ranks together sum the *gradient*; the columns are wanted",
            ),
            (
                set(turned),
                "grid-turned",
                "the grid is turned: ranks count fastest along `data`, so it is view(sample, data)",
            ),
            (
                set(zip(*turned, strict=True)),
                "grid-turned",
                "the grid is turned: ranks count fastest along `data`, so it is view(sample, data)",
            ),
        ]
        for wrong, mistake, sentence in mistakes:
            if groups == wrong:
                raise Wrong(mistake, f"{case}: {sentence}")
        raise Wrong("value", f"{case} the groups are {sorted(expected)}, not {sorted(groups)}")
    return "a column of the grid sees the same rows, and knows all samples between its ranks"


@exercise
def exercise_2(efficiency: Callable[[int, int, int, int], Any]) -> str:
    """How busy the ranks of a layout are."""
    for s, b, sample, data in ((8, 64, 4, 2), (5, 25, 2, 2), (16, 64, 6, 1), (7, 25, 3, 4)):
        size, pairs = sample * data, s * b
        up, across = math.ceil(s / sample), math.ceil(b / data)
        down, least = s // sample, (s // sample) * (b // data)
        mistakes = [
            (
                1.0,
                "mean-tile",
                "that is 1 for every layout: you took the mean tile, not the largest; everybody "
                "waits for the largest",
            ),
            (
                pairs / size / math.ceil(pairs / size),
                "pairs-cut",
                "S * B / W forgets that samples cannot be cut: round up each axis by itself",
            ),
            (
                pairs / (size * up * b / data),
                "rows-cut",
                "the rows cannot be cut either: round up",
            ),
            (
                pairs / (size * s / sample * across),
                "samples-cut",
                "the samples cannot be cut either: round up",
            ),
            (
                pairs / (size * least),
                "rounded-down",
                "you rounded down: that is the smallest tile, and the rest of the work is lost",
            ),
            (
                pairs / (size * down * across),
                "samples-rounded-down",
                "you rounded the samples down: some are then lost",
            ),
            (
                pairs / (up * across),
                "speed-up",
                "that is the speed-up over one rank: divide by the world size",
            ),
            (size * up * across / pairs, "inverted", "that is upside down: more than 1 cannot be"),
            (
                least / (up * across),
                "smallest-tile",
                "that compares the smallest tile with the largest, not the mean",
            ),
        ]
        what = f"your efficiency for S = {s}, B = {b} on {sample} × {data} ranks"
        close(efficiency(s, b, sample, data), pairs / (size * up * across), mistakes, what=what)
    return "every layout is as fast as its largest tile"


@exercise
def exercise_3(all_reduce_seconds: Callable[..., Any]) -> str:
    """Time of an all-reduce in the α–β model."""
    for size, ranks, latency, bandwidth in ((1e6, 8, 1e-5, 1e9), (4e5, 6, 2e-5, 2e9)):
        answer = all_reduce_seconds(size, ranks, latency, bandwidth)
        hops, part = math.ceil(math.log2(ranks)), (ranks - 1) / ranks
        moved = part * size / bandwidth
        mistakes = [
            (
                hops * latency + moved,
                "all-gather-alone",
                "that is one half, an all-gather: an all-reduce has two",
            ),
            (
                2 * hops * latency + moved,
                "bytes-once",
                "the bytes move twice, too: once in each half",
            ),
            (
                hops * latency + 2 * moved,
                "latency-once",
                "the latencies come twice, too: once in each half",
            ),
            (2 * latency + 2 * moved, "one-message", "each half takes ⌈log₂ W⌉ messages, not one"),
            (
                2 * (ranks - 1) * latency + 2 * moved,
                "ring-latency",
                "W - 1 messages a half is a ring's latency; here each half takes ⌈log₂ W⌉",
            ),
            (
                2 * math.log2(ranks) * latency + 2 * moved,
                "not-whole",
                "there is no part of a message: round log₂ W up",
            ),
            (
                2 * math.log(ranks) * latency + 2 * moved,
                "natural-log",
                "that is the natural logarithm: math.log2 counts doublings",
            ),
            (
                2 * hops * latency + 2 * size / bandwidth,
                "own-share-moved",
                "a rank has its own share already: only (W - 1)/W of the bytes move",
            ),
            (2 * moved, "latency-missing", "the latency is missing: it is there even for one byte"),
            (
                2 * hops * latency,
                "bytes-missing",
                "the bytes are missing: they move at the bandwidth",
            ),
            (
                2 * hops * latency + 16 * moved,
                "bits-not-bytes",
                "the size is in bytes already, not in bits",
            ),
        ]
        expected = Link(latency, bandwidth).all_reduce(size, ranks)
        what = f"your time in seconds for {size:,.0f} bytes over {ranks} ranks"
        close(answer, expected, mistakes, rtol=1e-6, atol=0, what=what)
    return "this is the model that spnb.plan uses"


@exercise
def exercise_4(choose: Callable[[int, int, int], Any], plan: Plan) -> str:
    """A rule of thumb for the layout, held against the planner."""
    for size, s, b in ((8, 16, 64), (8, 5, 64), (8, 4, 64), (6, 4, 25), (4, 2, 3), (12, 9, 24)):
        _hold(choose, size, s, b)
    agreed, losses = 0, {}
    for size, s, b in _settings():
        chosen = _layout(choose(size, s, b))
        found = {
            layout: predict(plan.costs, plan.machine, layout, s, b).seconds
            for layout in layouts(size, s, b)
        }
        best = min(found, key=lambda layout: found[layout])
        agreed += best == chosen
        losses[size, s, b] = found[chosen] / found[best] - 1, best
    (size, s, b), (loss, best) = max(losses.items(), key=lambda entry: entry[1][0])
    return (
        f"in {agreed} of {len(losses)} settings your rule names the planner's layout; elsewhere a "
        f"step takes longer, at most by {loss:.0%}: for {size} ranks, S = {s}, B = {b} the planner "
        f"takes {best.sample} × {best.data}"
    )


def _hold(choose: Callable[[int, int, int], Any], size: int, s: int, b: int) -> None:
    """Hold a chosen layout against the rule: the smallest largest tile, then most sample ranks."""
    answer = _given(choose(size, s, b))
    case = f"for {size} ranks, S = {s}, B = {b}"
    try:
        layout = _layout(answer)
    except TypeError:
        raise Wrong("not-a-pair", f"{case}: a pair of numbers is wanted, (sample, data)") from None
    except ValueError as refusal:
        raise Wrong("no-layout", f"{case}: {refusal}") from None
    chosen = f"{layout.sample} × {layout.data}"
    if layout.size != size:
        raise Wrong("other-world-size", f"{case}: {chosen} is a layout of {layout.size} ranks")
    possible = list(layouts(size, s, b))
    if layout not in possible:
        raise Wrong(
            "idle-ranks", f"{case}: with {chosen} some ranks have no work, and spnb.fit refuses it"
        )

    def largest(layout: Layout) -> int:
        return math.ceil(s / layout.sample) * math.ceil(b / layout.data)

    best = min(possible, key=lambda layout: (largest(layout), -layout.sample))
    if layout == best:
        return
    better = f"{best.sample} × {best.data}"
    if largest(layout) == largest(best):
        raise Wrong(
            "tie",
            f"{case}: {chosen} and {better} have equally large tiles; rule 2 then cuts the samples",
        )
    mistake, why = "larger-tile", ""
    if layout == possible[-1]:
        mistake = "samples-cut-first"
        why = "; cutting the samples first forgets that they may not divide (or did you take the "
        why += "mean tile, not the largest?)"
    raise Wrong(
        mistake,
        f"{case}: the largest tile of {chosen} has {largest(layout)} pairs of sample and row, that "
        f"of {better} only {largest(best)}{why}",
    )


def _layout(answer: Any) -> Layout:
    """A layout from a pair of degrees, or from a layout."""
    if isinstance(answer, Layout):
        return answer
    degrees = [int(degree) for degree in answer]
    if len(degrees) != 2:
        raise TypeError
    return Layout(*degrees)


def _settings() -> Iterator[tuple[int, int, int]]:
    """World sizes, S and B for which there is a choice."""
    for size in (2**i for i in range(1, 11)):
        for s in (4, 5, 6, 8, 12, 16, 32, 64):
            for b in (64, 100, 256):
                if len(list(layouts(size, s, b))) > 1:
                    yield size, s, b


def _given(answer: Any) -> Any:
    """An answer that is one."""
    if not attempted(answer):
        raise NotAttempted
    if answer is None:
        raise Wrong("no-return", "the function returns nothing: is a `return` missing?")
    return answer
