"""Low rank plus diagonal: normals that know of each other along a few directions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spnb.maths.models import BayesianModel
from spnb.maths.posteriors import noise
from spnb.maths.posteriors.base import Posterior, whole
from spnb.maths.posteriors.cross_entropy import bounds
from spnb.maths.posteriors.drawing import Key


class LowRank(Posterior):
    r"""A normal with covariance :math:`\operatorname{diag}(\sigma^2) + F F^\top`.

    Ong, Nott and Smith (arXiv 1701.03208). Sample s is
    :math:`w_s = \mu + \sigma \varepsilon_s + F z_s`, with standard normal noise
    :math:`\varepsilon_s` for each weight and :math:`z_s` for each direction. With the determinant
    lemma, :math:`\log\det = \sum_i \log \sigma_i^2 + \log\det(I + F^\top
    \operatorname{diag}(\sigma^{-2}) F)`, the entropy takes no matrix larger than K × K.

    Args:
        model: the Bayesian model.
        rank: K, number of directions, at least 1.
        init_scale: initial standard deviation of every weight, > 0: half of its variance lies in
            the diagonal, half in the directions, which start at random and the same everywhere.
        antithetic: draw the samples in pairs of opposite noise.

    Attributes:
        loc: the means :math:`\mu`, ``[P]``.
        rho: the unconstrained scales, :math:`\sigma = \log(1 + e^\rho)`, ``[P]``.
        factor: the directions :math:`F`, ``[P, K]``.
        antithetic: whether samples come in pairs of opposite noise.
    """

    undecayed = ("rho", "factor")

    def __init__(
        self,
        model: BayesianModel,
        rank: int = 8,
        init_scale: float = 0.02,
        antithetic: bool = False,
    ) -> None:
        super().__init__(model)
        whole("rank", rank, 1, "; rank 0 is `spnb.MeanField`")
        if not init_scale > 0:
            raise ValueError(f"init_scale={init_scale} must be positive.")
        self.loc = nn.Parameter(model.flatten(model.drawn))
        part = init_scale / math.sqrt(2)
        self.rho = nn.Parameter(torch.full_like(self.loc, part + math.log(-math.expm1(-part))))
        generator = torch.Generator().manual_seed(0)
        start = torch.randn(len(self.loc), rank, generator=generator, dtype=torch.float64)
        self.factor = nn.Parameter((start * part / math.sqrt(rank)).to(self.loc))
        self.antithetic = antithetic

    def options(self) -> dict[str, Any]:
        """Number of directions, and whether samples come in pairs."""
        return {"rank": self.rank, "antithetic": self.antithetic}

    @property
    def rank(self) -> int:
        """K, number of directions."""
        return self.factor.shape[1]

    @property
    def scale(self) -> Tensor:
        """Standard deviations of the diagonal part ``[P]``."""
        return nn.functional.softplus(self.rho)

    def prepare(self) -> tuple[Tensor, Tensor, Tensor]:
        """Means and diagonal standard deviations ``[P]``, directions ``[P, K]``."""
        return self.loc, self.scale, self.factor

    def draw(
        self, sample_ids: Sequence[int], key: Key, prepared: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Weights ``[C, P]`` of some samples."""
        loc, scale, factor = self.prepare() if prepared is None else prepared
        own = noise.draw(sample_ids, key, loc, self.antithetic)
        shared = noise.draw(sample_ids, key.fold("factor"), factor[0], self.antithetic)
        return torch.addcmul(loc, scale, own) + shared @ factor.T

    def divergence(self, prepared: Sequence[Tensor], part: int = 0, parts: int = 1) -> Tensor:
        """Less entropy, plus the cross-entropy where the prior is normal.

        The parts share out the weights; part 0 has the small determinant as well.
        """
        loc, scale, factor = prepared
        start, stop = bounds(len(loc), part, parts)
        crossed = self.cross_entropy.known(
            loc, scale.square() + factor.square().sum(1), part, parts
        )
        logs = scale[start:stop].log().sum() + (stop - start) * (1 + math.log(2 * math.pi)) / 2
        if part == 0:
            relative = factor / scale.unsqueeze(1)
            small = torch.eye(factor.shape[1]).to(factor) + relative.T @ relative
            half = torch.linalg.cholesky_ex(small).L  # what is not finite is reported later
            logs = logs + half.diagonal().log().sum()
        return crossed - logs
