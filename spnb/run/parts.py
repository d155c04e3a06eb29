"""Which part of a posterior this rank holds, and how the parts of all ranks make the whole."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from spnb.maths.posteriors import Posterior
from spnb.parallel.collectives import Communicator
from spnb.parallel.layout import share
from spnb.run.sharded import Sharing


@dataclass(frozen=True)
class Parts:
    """A posterior that every rank holds as a whole.

    Attributes:
        comm: the ranks.
    """

    comm: Communicator

    @property
    def cuts(self) -> bool:
        """Whether ranks hold different parts."""
        return False

    def join(self, name: str, part: Tensor) -> Tensor:
        """The whole of a parameter, or of what has its shape; all ranks call it together.

        Args:
            name: of the parameter or buffer.
            part: what this rank holds.
        """
        return part

    def cut(self, name: str, whole: Tensor) -> Tensor:
        """This rank's part of the whole."""
        return whole

    def whole(self, posterior: Posterior) -> Posterior:
        """The whole posterior, on every rank; all of them call it together."""
        return posterior


@dataclass(frozen=True)
class SampleParts(Parts):
    """A posterior of which each rank along ``sample`` holds its own samples, ``[m, ...]``.

    Attributes:
        num_samples: M, how many there are in all.
    """

    num_samples: int

    @property
    def cuts(self) -> bool:
        """Whether ranks hold different parts."""
        return self.comm.layout.sample > 1

    def join(self, name: str, part: Tensor) -> Tensor:
        """All samples', ``[M, ...]``."""
        sizes = self.comm.layout.sizes("sample", self.num_samples)
        return part if name == "point" else self.comm.gather(part, "sample", 0, sizes)

    def cut(self, name: str, whole: Tensor) -> Tensor:
        """This rank's samples'."""
        own = share(self.num_samples, self.comm.layout.sample, self.comm.coordinate("sample"))
        return whole if name == "point" else whole[own.start : own.stop]

    def whole(self, posterior: Posterior) -> Posterior:
        """All samples together."""
        return posterior.join(lambda part: self.join("", part))


@dataclass(frozen=True)
class ShardParts(Parts):
    """A posterior of which each rank along ``shard`` holds the parameters of some weights.

    Attributes:
        sharing: which.
        common: names of what every rank holds as a whole.
    """

    sharing: Sharing
    common: tuple[str, ...]

    @property
    def cuts(self) -> bool:
        """They do."""
        return True

    def join(self, name: str, part: Tensor) -> Tensor:
        """All weights', ``[..., P]``."""
        return part if name in self.common else self.sharing.join(part)

    def cut(self, name: str, whole: Tensor) -> Tensor:
        """This rank's weights'."""
        own = self.sharing.window(self.sharing.comm.rank)
        return whole if name in self.common else own.of(whole)

    def whole(self, posterior: Posterior) -> Posterior:
        """All weights together: on the CPU, since a GPU may not have room for them."""
        return posterior.assemble(lambda name, part: self.join(name, part).cpu()).cpu()
