"""Monte Carlo dropout: a sample is the network without some of its units."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spnb.maths.layers import input_units
from spnb.maths.models import BayesianModel
from spnb.maths.paths import layers_of_inputs
from spnb.maths.posteriors.base import Posterior
from spnb.maths.posteriors.drawing import Key


class MCDropout(Posterior):
    r"""Monte Carlo dropout (Gal and Ghahramani, arXiv 1506.02142).

    Sample s of a layer's weights is :math:`W_s = \Theta \operatorname{diag}(z_s) / (1 - p)`, where
    each input unit is left out, :math:`z_{sj} = 0`, with probability p. Units are what the layer's
    inputs have channels for: features of a linear layer, channels of a convolution of any kind, the
    dimensions of queries, keys and values. The masks belong to the sample, not to a row of the
    batch: one sample is one network, in training and prediction. The divergence is the mean of
    :math:`-\log p(W_s)`; the entropy of the masks is constant and left out (appendix of the paper:
    a mixture of narrow normals, in the limit).

    Args:
        model: the Bayesian model. :math:`\Theta` starts at the values that the net holds.
        rate: p, the probability that an input unit of a layer is left out, 0 ≤ p < 1. A number
            holds for all linear, convolutional and attention layers but those that the inputs come
            to first, by a forward pass: inputs are never left out. Before there are data, the first
            one in the net's order is taken for it. Or rates by the names of weights, which may
            include the first one.

    Attributes:
        loc: the weights :math:`\Theta`, ``[P]``; also the mean over all masks.
        rates: rate by name of the weights that lose units.
    """

    def __init__(self, model: BayesianModel, rate: float | Mapping[str, float] = 0.1) -> None:
        super().__init__(model)
        self.loc = nn.Parameter(model.flatten(model.drawn))
        drawn = {site.name for site in model.drawn}
        found = input_units(model.net)
        self._units = {name: units for name, (units, _) in found.items() if name in drawn}
        self._rate = None if isinstance(rate, Mapping) else rate
        self.rates = self._checked(
            rate if isinstance(rate, Mapping) else self._all_but(list(found)[:1], rate)
        )

    def _all_but(self, spared: Collection[str], rate: float) -> dict[str, float]:
        """One rate for all layers but some."""
        return {name: rate for name in self._units if name not in spared}

    def _checked(self, rates: Mapping[str, float]) -> dict[str, float]:
        """Rates by name, without those at which nothing is left out."""
        layers = list(self._units)
        if unknown := set(rates) - set(layers):
            raise ValueError(
                f"{sorted(unknown)} are no weights of layers; those of this net are {layers}."
            )
        for name, each in rates.items():
            if not 0 <= each < 1:
                raise ValueError(f"The dropout rate of '{name}' is {each}; it must be in [0, 1).")
        if not any(rates.values()):
            raise ValueError(
                f"No unit would ever be left out: the net has the layers {layers}, and a number as "
                "rate spares those that the inputs come to first. Give rates by name."
            )
        return {name: each for name, each in rates.items() if each > 0}

    def options(self) -> dict[str, Any]:
        """The rates by name."""
        return {"rate": self.rates}

    def meet(self, x: Tensor) -> None:
        """Find the layers that the inputs come to first, which a number as rate spares."""
        if self._rate is None:
            return
        layers = {name: layer for name, (_, layer) in input_units(self.model.net).items()}
        spared = layers_of_inputs(self.model, x, layers)
        self.rates = self._checked(self._all_but(spared, self._rate))
        self._rate = None

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
            part, units = parts[name], self._units[name]
            kept = torch.rand(units.count, generator=generator, device=like.device) >= rate
            part.mul_(units.over(kept.to(like) / (1 - rate), part.shape))
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
