r"""What a machine's time goes by: a few constants, measured or from data sheets.

Communication follows the α–β model (Hockney, *Parallel Computing* 20, 1994): a message of n bytes
takes :math:`\alpha + n / \beta`. An all-reduce over W ranks takes
:math:`2 \lceil \log_2 W \rceil \alpha + 2 \frac{W - 1}{W} \frac{n}{\beta}`, an all-gather half of
that: the latency of a tree and the bytes of a ring, which is what well-made collectives reach
(Thakur, Rabenseifner and Gropp, *Int. J. High Performance Computing Applications* 19, 2005).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from spnb.parallel.arguments import real, whole


@dataclass(frozen=True)
class Link:
    """A connection between ranks.

    Attributes:
        latency: α, seconds a message takes however short it is.
        bandwidth: β, bytes a second of each rank in one direction.
    """

    latency: float
    bandwidth: float

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be."""
        real("latency", self.latency)
        real("bandwidth", self.bandwidth, above=True, infinite=True)

    def all_reduce(self, size: float, ranks: int) -> float:
        """Seconds to sum ``size`` bytes over some ranks."""
        return 2 * self.all_gather(size, ranks)

    def all_gather(self, size: float, ranks: int) -> float:
        """Seconds until each of some ranks has ``size`` bytes, of which it had its share."""
        hops = math.ceil(math.log2(ranks))
        return hops * self.latency + (ranks - 1) / ranks * size / self.bandwidth


@dataclass(frozen=True)
class Machine:
    """The constants of the cost model for one rank of a machine.

    Attributes:
        name: what it is called.
        source: where the figures come from.
        flops: floating-point operations a second in matrix products; used only where a network's
            passes were counted and not measured.
        launch: seconds each tensor operation takes however small; likewise.
        draw: seconds to draw one weight of one sample and to bring its gradient back.
        noise: the part of it that goes into a random number.
        update: seconds for one weight in a step: divergence, clipping, Adam.
        per_sample: seconds for a sample, whatever the network.
        per_step: seconds for a step, whatever the network.
        inside: link between ranks of one host.
        between: link between hosts; None for a machine of one host.
        ranks_per_host: how many ranks a host has.
        crowding: by what factor passes slow down when all ranks of a host compute at once.
        memory: bytes a rank may use; None: unknown.
    """

    name: str
    source: str
    flops: float
    launch: float
    draw: float
    noise: float
    update: float
    per_sample: float
    per_step: float
    inside: Link
    between: Link | None = None
    ranks_per_host: int = 8
    crowding: float = 1.0
    memory: float | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be."""
        for name in ("launch", "draw", "noise", "update", "per_sample", "per_step"):
            real(name, getattr(self, name))
        real("flops", self.flops, above=True, infinite=True)
        real("crowding", self.crowding, least=1.0)
        whole("ranks_per_host", self.ranks_per_host)
        if self.memory is not None:
            real("memory", self.memory, above=True, infinite=True)
        if self.noise > self.draw:
            raise ValueError(
                f"noise={self.noise:g} is more than draw={self.draw:g}, of which it is a part."
            )
        if not isinstance(self.inside, Link) or not isinstance(self.between, Link | None):
            raise TypeError(
                f"inside={self.inside!r} and between={self.between!r} must be links, such as "
                "spnb.machines.NVLINK_4; between may be None."
            )

    def link(self, ranks: int) -> Link:
        """The slowest link that a group of so many neighbouring ranks has to cross.

        Raises:
            ValueError: the ranks need several hosts, and nothing is known of how they connect.
        """
        if ranks <= self.ranks_per_host:
            return self.inside
        if self.between is None:
            raise ValueError(
                f"{ranks} ranks need {math.ceil(ranks / self.ranks_per_host)} hosts of "
                f"{self.ranks_per_host}, but '{self.name}' has no link between hosts: use "
                "dataclasses.replace(machine, between=spnb.machines.INFINIBAND_NDR)."
            )
        return self.between

    def slowdown(self, ranks: int) -> float:
        """By what factor passes slow down when so many ranks compute on each host."""
        here = min(ranks, self.ranks_per_host)
        if self.ranks_per_host == 1 or here == 1:
            return 1.0
        return 1.0 + (self.crowding - 1.0) * (here - 1) / (self.ranks_per_host - 1)
