"""The exercise checks of notebook 11, *Scaling out*."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from spnb.parallel.layout import Axis, Layout
from spnb.teach.check import Wrong, close, equal, exercise

LAYOUTS = [(Layout(2, 8, 2), 8), (Layout(4, 2, 4), 8), (Layout(2, 2, 2), 4), (Layout(6), 4)]
AXES: tuple[Axis, ...] = ("shard", "data", "sample")


@exercise
def exercise_1(nodes_touched: Callable[[Layout, Axis, int], Any]) -> str:
    """How many nodes a group of ranks touches."""
    for layout, per_node in LAYOUTS:
        for axis in AXES:
            group = layout.ranks(0, axis)
            right = len({rank // per_node for rank in group})
            mistakes = [
                (
                    len(group),
                    "ranks-not-nodes",
                    "those are the ranks of the group: several may stand on one node",
                ),
                (
                    layout.size // per_node,
                    "all-nodes",
                    "those are all nodes: ask for those of the group",
                ),
                (
                    math.ceil(len(group) / per_node),
                    "neighbours-assumed",
                    "its ranks need not be neighbours: look where each of them stands",
                ),
                (
                    max(group) // per_node,
                    "last-node",
                    "nodes count from 0; and count those that are touched",
                ),
                (
                    len({rank % per_node for rank in group}),
                    "place-on-node",
                    "rank r is on node r // per_node",
                ),
            ]
            case = f"{layout} with {per_node} ranks a node, along {axis}: the number of nodes"
            equal(nodes_touched(layout, axis, per_node), right, mistakes, what=case)
    return "`shard` stays in the house as long as a node has as many ranks, or a multiple"


@exercise
def exercise_2(checkpoint_bytes: Callable[..., Any], file: str | Path) -> str:
    """The size of a checkpoint."""
    with safe_open(file, "pt") as there:
        weights = there.get_slice("posterior/loc").get_shape()[0]
    size = Path(file).stat().st_size
    mistakes: list[tuple[Any, str, str]] = [
        (
            1,
            "one-number-a-weight",
            "that is one number a weight: a Bayesian weight has a mean and a scale",
        ),
        (
            2,
            "moments-missing",
            "the optimiser is missing: without its moments the run would go on differently",
        ),
        (3, "too-few-moments", "Adam keeps *two* moments, and of the scale as well as of the mean"),
        (4, "two-numbers-missing", "mean and scale are missing, or Adam's moments of one of them"),
        (8, "gradient-kept", "the gradient is not kept: the next step computes its own"),
    ]
    for count, each in ((weights, 8), (1000, 4)):
        known = [(n * count * each, name, sentence) for n, name, sentence in mistakes]
        known += [(6 * count, "numbers-not-bytes", f"a number has {each} bytes")]
        close(checkpoint_bytes(count, each), 6 * count * each, known, what="your size")
    close(checkpoint_bytes(1000), 24_000, what="your size in single precision")
    said = 6 * weights * 8
    return f"{said:,} bytes; the file has {size:,}: the rest is its record, names and digest"


@exercise
def exercise_3(best_interval: Callable[[float, float], Any]) -> str:
    """Young's rule, and whether it wins when it is played out."""
    for write, between in ((2.4, 180_000.0), (37.0, 180_000.0), (10.0, 3600.0)):
        right = math.sqrt(2 * write * between)
        mistakes = [
            (
                math.sqrt(write * between),
                "factor-two-missing",
                "an accident costs *half* an interval: 2 under the root",
            ),
            (
                2 * write * between,
                "no-square-root",
                "the derivative gives the square of T: take the root",
            ),
            (
                math.sqrt(write * between / 2),
                "halved-not-doubled",
                "the 2 is on the other side: T² = 2 · write · between",
            ),
            (
                math.sqrt(2 * between / write),
                "divided-not-multiplied",
                "the longer a checkpoint takes, the rarer it should be",
            ),
            (
                math.sqrt(2 * write / between),
                "share-wasted",
                "that is the share of time that is wasted at best",
            ),
        ]
        close(best_interval(write, between), right, mistakes, what="your interval")
    chosen = float(best_interval(2.4, 180_000.0))
    waste = {t: _played(t, 2.4, 180_000.0) for t in (chosen / 4, chosen, 4 * chosen)}
    if min(waste, key=waste.__getitem__) != chosen:
        raise Wrong(
            "not-the-best",
            f"played out, your {chosen:.0f} s are not the best of a quarter, one and four",
        )
    quarter, best, four = (f"{share:.2%}" for share in waste.values())
    return (
        f"{chosen / 60:.0f} minutes; played out, {best} of the time is wasted, {quarter} at a "
        f"quarter of the interval and {four} at four times"
    )


def _played(interval: float, write: float, between: float) -> float:
    """Share of wasted time over many lives, each ended by an accident."""
    generator = torch.Generator().manual_seed(3)
    lives = torch.empty(50_000, dtype=torch.float64).exponential_(1 / between, generator=generator)
    kept = (lives / (interval + write)).floor() * interval
    return 1 - (kept.sum() / lives.sum()).item()


@exercise
def exercise_4(shards_needed: Callable[[float, float], Any]) -> str:
    """How many shards a posterior needs."""
    for weights, gigabytes in ((198e6, 60), (3.1e9, 20), (3.1e9, 60), (1e9, 32), (70e9, 60)):
        memory = gigabytes * 1e9
        least = 32 * weights / memory
        right = 2 ** max(0, math.ceil(math.log2(least)))
        mistakes = [
            (
                2 ** max(0, math.ceil(math.log2(least / 8))),
                "one-number-a-weight",
                "eight numbers a weight, not one",
            ),
            (
                2 ** max(0, math.ceil(math.log2(least / 4))),
                "two-numbers-a-weight",
                "eight numbers a weight, not two",
            ),
            (
                2 * right,
                "one-doubling-too-many",
                "that is one doubling too many: what just fits, fits",
            ),
            (right // 2, "one-doubling-too-few", "that does not fit yet: double once more"),
            (math.ceil(least), "not-a-power-of-two", "that fits, but is no power of two"),
        ]
        case = f"{weights:.3g} weights and {gigabytes} GB a GPU: the number of shards"
        answer = shards_needed(weights, memory)
        known = [mistake for mistake in mistakes if mistake[0] not in (right, 0)]
        equal(answer, right, known, what=case)
    return "as few as memory allows: each shard more has to send every sample's weights"
