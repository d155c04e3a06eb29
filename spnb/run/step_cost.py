r"""What a step costs in a layout, from a few constants.

The rank with the largest tile decides. With :math:`S_r` samples on :math:`b_r` rows, P weights and
W ranks,

.. math:: t = S_r \,(t_\text{pass}(b_r) + P\, t_\text{draw} + t_\text{sample}) + P\, t_\text{update}
          + t_\text{step} + t_\text{all-reduce}(2P) + t_\text{gather}.

Of two antithetic samples the second draws no noise. See `spnb.run.machine` for the constants and
`spnb.run.costs` for the passes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from spnb.maths.objectives import ELBO, Objective
from spnb.parallel.layout import Layout
from spnb.run.costs import Costs
from spnb.run.gradient import TOLD
from spnb.run.machine import Machine
from spnb.run.memory import of_rank

FORWARD_SHARE = 0.35
"""A forward pass' part of a forward and backward pass: one of three equal matrix products, and a
little more, since the first layer's inputs need no gradient."""


@dataclass(frozen=True)
class Prediction:
    """What a step is expected to cost in one layout.

    Attributes:
        layout: the layout.
        parts: seconds by kind: ``passes``, ``draw``, ``update``, ``all-reduce``, ``gather``.
        bytes_per_step: bytes that a rank hands to collectives.
        memory: bytes that a rank needs (`spnb.run.memory`), samples evaluated one by one.
        fits: whether that is within the limit.
    """

    layout: Layout
    parts: dict[str, float]
    bytes_per_step: int
    memory: float
    fits: bool

    @property
    def seconds(self) -> float:
        """Seconds of a step."""
        return sum(self.parts.values())


def predict(
    found: Costs,
    machine: Machine,
    layout: Layout,
    num_samples: int,
    num_rows: int,
    objective: Objective | None = None,
    recompute: bool = False,
    memory_limit: float | None = None,
    per_item: bool = True,
) -> Prediction:
    """What a step costs in one layout.

    Args:
        found: the network's costs.
        machine: the constants.
        layout: the layout.
        num_samples: as for `plan`.
        num_rows: B, over all ranks.
        objective: as for `plan`.
        recompute: as for `plan`.
        memory_limit: as for `plan`; None: none.
        per_item: whether the objective gives a loss for each item, or one for the batch, for which
            the predictions of all rows have to be gathered.
    """
    objective = objective or ELBO()
    samples = math.ceil(num_samples / layout.sample)
    rows = math.ceil(num_rows / layout.length("rows"))
    gathers = not (objective.linear_in_samples or objective.local)
    separable = objective.separable and per_item
    sharded = layout.shard > 1
    again = (recompute or sharded) and not separable
    own_weights = found.weights / layout.shard
    one_pass = found.passes(rows) * machine.slowdown(layout.size)
    drawn = math.ceil(samples / 2) if found.antithetic else samples
    noise = found.weights * (drawn * machine.noise)
    others = samples * (own_weights * (machine.draw - machine.noise) + machine.per_sample)
    total = 2 * own_weights + found.point + TOLD + layout.size
    sent = math.ceil(found.itemsize * total) if layout.size > 1 else 0
    parts = {
        "passes": samples * one_pass * (1 + FORWARD_SHARE * again),
        "draw": (noise + others) * (1 + again),
        "update": own_weights * machine.update + machine.per_step,
        "all-reduce": machine.link(layout.size).all_reduce(sent, layout.size),
        "gather": 0.0,
    }
    if gathers and layout.sample > 1:
        own = found.itemsize * found.prediction * samples * rows
        reach = layout.size if layout.size > machine.ranks_per_host else layout.sample
        parts["gather"] = machine.link(reach).all_gather(own * layout.sample, layout.sample)
        sent += own
    if not per_item and layout.length("rows") > 1:
        ranks = layout.length("rows")
        own = found.itemsize * found.prediction * (num_samples if gathers else samples) * rows
        reach = layout.size if layout.size > machine.ranks_per_host else ranks
        parts["gather"] += machine.link(reach).all_gather(own * ranks, ranks)
        sent += own
    if sharded:  # weights of each sample one way, their gradient the other
        whole = found.itemsize * found.weights
        one_way = machine.link(layout.shard).all_gather(whole, layout.shard)
        parts["gather"] += samples * (2 + again) * one_way
        sent += math.ceil(samples * ((1 + again) * whole / layout.shard + whole))
    memory = of_rank(
        found, layout, num_samples, num_rows, objective, recompute=recompute, per_item=per_item
    ).total
    fits = memory_limit is None or memory <= memory_limit
    return Prediction(layout, parts, sent, memory, fits)
