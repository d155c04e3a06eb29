"""Monte Carlo dropout: a sample is the network without some of its units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from spnb.maths.models import BayesianModel, Site
from spnb.maths.posteriors.base import Posterior
from spnb.maths.posteriors.drawing import Key


class MCDropout(Posterior):
    r"""Monte Carlo dropout (Gal and Ghahramani, arXiv 1506.02142).

    Sample s of a layer's weights is :math:`W_s = \Theta \operatorname{diag}(z_s) / (1 - p)`, where
    each input unit is left out, :math:`z_{sj} = 0`, with probability p. The masks belong to the
    sample, not to a row of the batch: one sample is one network, in training and prediction. The
    divergence is the mean of :math:`-\log p(W_s)`; the entropy of the masks is constant and left
    out (appendix of the paper: a mixture of narrow normals, in the limit).

    Args:
        model: the Bayesian model. :math:`\Theta` starts at the values that the net holds.
        rate: p, the probability that an input unit of a layer is left out, 0 ≤ p < 1. A number
            holds for all linear, convolutional and attention layers but the first one: inputs are
            never left out. Or rates by the names of weights, which may include the first one.

    Attributes:
        loc: the weights :math:`\Theta`, ``[P]``; also the mean over all masks.
        rates: rate by name of the weights that lose units.
    """

    def __init__(self, model: BayesianModel, rate: float | Mapping[str, float] = 0.1) -> None:
        super().__init__(model)
        self.loc = nn.Parameter(model.flatten(model.drawn))
        layers = _layers(model)
        self.rates = dict(rate) if isinstance(rate, Mapping) else dict.fromkeys(layers[1:], rate)
        if unknown := set(self.rates) - set(layers):
            raise ValueError(
                f"{sorted(unknown)} are no weights of layers; those of this net are {layers}."
            )
        for name, each in self.rates.items():
            if not 0 <= each < 1:
                raise ValueError(f"The dropout rate of '{name}' is {each}; it must be in [0, 1).")
        self.rates = {name: each for name, each in self.rates.items() if each > 0}
        if not self.rates:
            raise ValueError(
                f"No unit would ever be left out: the net has the layers {layers}, and a number as "
                "rate spares the first. Give rates by name."
            )

    def options(self) -> dict[str, Any]:
        """The rates by name."""
        return {"rate": self.rates}

    def prepare(self) -> tuple[Tensor]:
        """The weights ``[P]``."""
        return (self.loc,)

    def draw(
        self, sample_ids: Sequence[int], key: Key, prepared: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Weights ``[C, P]`` of some samples."""
        (loc,) = self.prepare() if prepared is None else prepared
        masks = [self._mask(key.fold("mask", sample), loc) for sample in sample_ids]
        return loc * torch.stack(masks)

    def _mask(self, key: Key, like: Tensor) -> Tensor:
        """Factors of all weights ``[P]`` in one sample: 0, 1 / (1 - p), or 1."""
        factors = torch.ones_like(like)
        parts = self.model.unflatten(factors, self.model.drawn)
        generator = key.generator(like.device)
        for name, rate in self.rates.items():
            part = parts[name]
            kept = torch.rand(part.shape[1], generator=generator, device=like.device) >= rate
            part.mul_((kept.to(like) / (1 - rate)).view(-1, *[1] * (part.dim() - 2)))
        return factors

    def divergence(self, prepared: Sequence[Tensor], part: int = 0, parts: int = 1) -> Tensor:
        """The mean of -log prior where it is normal; the parts share out the weights."""
        (loc,) = prepared
        return self.cross_entropy.known(loc, loc.square() * self._spread(loc), part, parts)

    def _spread(self, like: Tensor) -> Tensor:
        """Variances of the masks ``[P]``: p / (1 - p)."""
        spread = torch.zeros_like(like)
        parts = self.model.unflatten(spread, self.model.drawn)
        for name, rate in self.rates.items():
            parts[name].fill_(rate / (1 - rate))
        return spread


def _layers(model: BayesianModel) -> list[str]:
    """Names of the drawn weights that multiply a layer's inputs, in the net's order."""
    found = []
    for prefix, module in model.net.named_modules():
        if isinstance(module, nn.Linear | _ConvNd):
            found.append(f"{prefix}.weight" if prefix else "weight")
        elif isinstance(module, nn.MultiheadAttention):
            found.append(f"{prefix}.in_proj_weight")
    drawn = {site.name: site for site in model.drawn}
    return [name for name in found if name in drawn and _is_matrix(drawn[name])]


def _is_matrix(site: Site) -> bool:
    return len(site.shape) >= 2
