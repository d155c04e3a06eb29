r"""Ranks along ``shard`` hold a share of the posterior's parameters each, none of them the whole.

Rank h of H has a window of the flat vector of weights: its means and scales, their gradients, and
the optimiser's state of them. For each sample it draws the weights in its window; the windows are
gathered, the network runs forwards and backwards on the rank's own rows, and the gradient at the
weights is summed over the ranks, of which each gets its window back (reduce-scatter). From there
the chain rule goes on within the window. So a sample costs :math:`P` numbers each way, and a rank
keeps :math:`8 P / H` numbers with Adam instead of :math:`8 P`, beside one sample's weights and
their gradient. It is ZeRO's third stage (arXiv 1910.02054), with samples in the place of layers.

It is not built on torch's FSDP2: that gathers *parameters*, means and scales, :math:`2 P` numbers,
keeps their whole gradients until the last sample, and knows nothing of what is drawn from them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spnb.maths.posteriors import Posterior
from spnb.maths.posteriors.pieces import Window
from spnb.parallel.collectives import Communicator


@dataclass(frozen=True)
class Sharing:
    """How the ranks along ``shard`` share out the weights.

    Attributes:
        comm: these ranks.
        num_weights: P, all weights.
    """

    comm: Communicator
    num_weights: int

    @property
    def padded(self) -> int:
        """P, or a little more, so that all windows are equally long."""
        return -(-self.num_weights // self.comm.size) * self.comm.size

    def window(self, rank: int) -> Window:
        """The weights of a rank; the last ones may have fewer, or none."""
        length = self.padded // self.comm.size
        start, stop = (min(n * length, self.num_weights) for n in (rank, rank + 1))
        return Window(start, stop, self.num_weights)

    def join(self, part: Tensor) -> Tensor:
        """What all ranks hold, ``[..., P]``, from a rank's own ``[..., n]``."""
        whole = part.new_zeros(*part.shape[:-1], self.padded, requires_grad=False)
        own = self.window(self.comm.rank)
        own.of(whole).copy_(part)
        rows = whole.view(-1, self.padded)
        for row in rows:
            self.comm.gather_windows(row)
        return whole[..., : self.num_weights]


def own_piece(posterior: Posterior, comm: Communicator, place: torch.device) -> Posterior:
    """The piece of a posterior that this rank trains, as rank 0 has it, where it is to compute.

    The whole stays where it was: a device sees one window after the other.

    Raises:
        TypeError: the method's parameters cannot be shared out.
    """
    sharing = sharing_of(posterior, comm)
    own = posterior.piece(sharing.window(sharing.comm.rank))
    for rank in range(sharing.comm.size):
        window = sharing.window(rank)
        for name, parameter in posterior.named_parameters():
            whole = parameter.detach()
            part = whole if name in posterior.common else window.of(whole)
            part = part.to(place, copy=True).contiguous()
            comm.copy_from_first(part)
            if rank == sharing.comm.rank:
                own.get_parameter(name).data = part
    return own.to(place).train()


def sharing_of(posterior: Posterior, comm: Communicator) -> Sharing:
    """How the weights of a posterior's model are shared out."""
    size = sum(site.size for site in posterior.model.drawn)
    return Sharing(comm.along("shard"), size)
