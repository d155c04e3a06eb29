"""Pieces of a posterior: the parameters of some neighbouring weights of the flat vector alone.

Where each weight is drawn and judged by itself, a piece can do all that the whole can, for its own
weights: draw them, and say how far they are from the prior. So ranks can share out the parameters
of a posterior that is too large for one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin as Distribution
from torch import Tensor

from spnb.maths.models import BayesianModel, Site


@dataclass(frozen=True)
class Window:
    """Some neighbouring elements of a vector.

    Attributes:
        start: the first one.
        stop: the one after the last.
        whole: length of the vector.
    """

    start: int
    stop: int
    whole: int

    def of(self, tensor: Tensor) -> Tensor:
        """What lies in it, of a tensor ``[..., whole]`` (or longer); a view."""
        return tensor[..., self.start : self.stop]

    def __len__(self) -> int:
        return self.stop - self.start


class PieceOfModel:
    """The parameters of a model that lie in a window, as far as their priors are concerned.

    Args:
        model: the model; it may move to another device or precision later.
        window: which of its weights.
    """

    def __init__(self, model: BayesianModel, window: Window) -> None:
        self._model, self._window = model, window
        self._sites: tuple[Site, ...] = ()

    @property
    def drawn(self) -> tuple[Site, ...]:
        """Flat pieces of the parameters, under the parameters' names."""
        if self._sites is not self._model.drawn:
            self._sites = self._model.drawn
            self._cuts = {}
            pieces, begin = [], 0
            for site in self._sites:
                start = max(self._window.start - begin, 0)
                stop = min(self._window.stop - begin, site.size)
                if start < stop:
                    self._cuts[site.name] = (start, stop)
                    prior = _cut_prior(site, start, stop)
                    pieces.append(Site(site.name, torch.Size([stop - start]), prior))
                begin += site.size
            self._pieces = tuple(pieces)
        return self._pieces

    def of(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The pieces of whole parameters.

        Args:
            values: samples of them, ``{name: [C, *shape]}``.

        Returns:
            ``{name: [C, length of the piece]}``.
        """
        names = [site.name for site in self.drawn]
        return {name: values[name].flatten(1)[:, slice(*self._cuts[name])] for name in names}


def _cut_prior(site: Site, start: int, stop: int) -> Distribution:
    """The prior of some elements of a parameter.

    Raises:
        ValueError: the elements depend on each other, or it is not known how to cut it.
    """
    prior = site.prior
    while isinstance(prior, torch.distributions.Independent):
        prior = prior.base_dist
    cut = {}
    try:
        assert prior is not None and not prior.event_shape
        for name in prior.arg_constraints:
            whole = getattr(prior, name)
            if not any(whole.stride()):  # one number for all: never written out
                cut[name] = whole.flatten()[:1].expand(stop - start)
            else:
                cut[name] = whole.expand(site.shape).reshape(-1)[start:stop]
        piece: Distribution = type(prior)(**cut, validate_args=False)
        assert piece.batch_shape == (stop - start,)
    except (AssertionError, TypeError, AttributeError) as error:
        raise ValueError(
            f"The prior of '{site.name}', a {type(prior).__name__}, cannot be cut into pieces: use "
            "a layout with shard=1, or a prior of independent elements."
        ) from error
    return piece.to_event(1)
