"""A Bayesian model: a net, a prior over its parameters and a likelihood of the targets.

`BayesianModel` is a real Pyro model: `pyro.infer.SVI`, `NUTS` and `Predictive` accept it as it
is. For everything that evaluates many samples of the weights it also offers a *flat* view, in
which all parameters with a prior form one vector ``[P]``, so that drawing, moving and
differentiating a sample are each one operation. Parameters without a prior, if any, form a second
vector ``[D]``, the *point*.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin as Distribution
from torch import Tensor, nn
from torch.func import vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from spnb.maths import likelihoods, priors
from spnb.maths.modules import refuse_unsupported
from spnb.maths.stateless import Stateless


@dataclass(frozen=True)
class Site:
    """One parameter of the model: its name, its shape, its prior (None: deterministic)."""

    name: str
    shape: torch.Size
    prior: Distribution | None

    @cached_property
    def size(self) -> int:
        """Number of its elements."""
        return self.shape.numel()


class BayesianModel(nn.Module):
    """Any `torch.nn.Module` with a prior over its parameters and a likelihood.

    Args:
        net: the network; maps inputs ``[B, ...]`` to outputs ``[B, ...]``, each row by itself.
        prior: a pyro distribution for all parameters (a scalar one is expanded), or a function
            ``(name, parameter) -> distribution | None``; None leaves a parameter deterministic.
        likelihood: ``"categorical"``, ``"normal"`` (learned noise), ``"heteroscedastic"``, an
            object of `spnb.likelihoods`, or a function from predictions to a pyro distribution.

    Raises:
        ValueError: the net has no parameters, holds a layer whose rows or samples are not
            independent (BatchNorm, Dropout), or a prior does not fit its parameter.
    """

    def __init__(
        self,
        net: nn.Module,
        prior: priors.Prior | None = None,
        likelihood: str | likelihoods.Likelihood | Callable[[Tensor], Distribution] = "categorical",
    ) -> None:
        super().__init__()
        refuse_unsupported(net)
        self.net = net
        self._stateless = Stateless(net)
        first = next(net.parameters())
        self.likelihood = likelihoods.named(likelihood).to(first)
        self._of_likelihood = [name for name, _ in self.likelihood.named_parameters()]
        default = pyro.distributions.Normal(0.0, 1.0) if prior is None else prior
        self.sites = tuple(self._resolve_sites(default))
        self._sort()
        if not self.drawn:
            raise ValueError(
                f"The prior leaves all {len(self.sites)} parameters deterministic; "
                "give at least one of them a distribution."
            )

    def _resolve_sites(self, prior: priors.Prior) -> Iterator[Site]:
        for name, parameter in self.net.named_parameters():
            yield Site(name, parameter.shape, priors.resolve(prior, name, parameter))
        for name, parameter in self.likelihood.named_parameters():
            own = self.likelihood.priors.get(name)
            resolved = None if own is None else priors.resolve(own, name, parameter)
            yield Site(f"likelihood.{name}", parameter.shape, resolved)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> BayesianModel:
        """Take the priors along when the module moves to another device or precision."""
        super()._apply(fn, recurse)
        like = next(self.net.parameters())
        self.sites = tuple(
            Site(s.name, s.shape, None if s.prior is None else priors.like(s.prior, like))
            for s in self.sites
        )
        self._sort()
        return self

    def _sort(self) -> None:
        """Keep apart what is asked for at every sample."""
        self._drawn = tuple(site for site in self.sites if site.prior is not None)
        self._deterministic = tuple(site for site in self.sites if site.prior is None)

    # -- the parameters -----------------------------------------------------------------------

    @property
    def drawn(self) -> tuple[Site, ...]:
        """The parameters that have a prior, in the order of the flat vector ``[P]``."""
        return self._drawn

    @property
    def deterministic(self) -> tuple[Site, ...]:
        """The parameters that have none, in the order of the point ``[D]``."""
        return self._deterministic

    def priors(self) -> dict[str, Distribution]:
        """The prior of every parameter that has one, by name."""
        return {site.name: site.prior for site in self.sites if site.prior is not None}

    def initial(self, name: str) -> Tensor:
        """The value that the net, or the likelihood, holds for a parameter."""
        if name.startswith("likelihood."):
            return self.likelihood.get_parameter(name.removeprefix("likelihood."))
        return self.net.get_parameter(name)

    def flatten(self, sites: tuple[Site, ...]) -> Tensor:
        """The held values of some parameters as one vector."""
        like = next(self.net.parameters())
        parts = [self.initial(site.name).detach().reshape(-1) for site in sites]
        return torch.cat(parts) if parts else like.new_zeros(0)

    @staticmethod
    def unflatten(vector: Tensor, sites: tuple[Site, ...]) -> dict[str, Tensor]:
        """A flat ``[..., P]`` as ``{name: [..., *shape of the parameter]}``; views, no copies."""
        parts = vector.split_with_sizes([site.size for site in sites], -1)
        return {
            site.name: part.view((*vector.shape[:-1], *site.shape))
            for site, part in zip(sites, parts, strict=True)
        }

    # -- predictions --------------------------------------------------------------------------

    def predict(self, weights: Tensor, point: Tensor, x: Tensor, own_views: bool = False) -> Tensor:
        """Predictions of some samples of the weights.

        Args:
            weights: ``[C, P]``, one row a sample.
            point: ``[D]``, the deterministic parameters.
            x: inputs ``[B, ...]``; ``[C, B, ...]`` with ``own_views``.
            own_views: whether each sample has its own view of the inputs (augmentation).

        Returns:
            ``[C, B, ...]``. One sample is evaluated plainly, several at once by `torch.vmap`.
        """
        if len(weights) == 1:
            values = self.unflatten(weights.squeeze(0), self.drawn)
            return self.predict_one(values, point, x[0] if own_views else x).unsqueeze(0)

        def one(weights: Tensor, x: Tensor) -> Tensor:
            return self.predict_one(self.unflatten(weights, self.drawn), point, x)

        with plain_attention():
            return vmap(one, in_dims=(0, 0 if own_views else None))(weights, x)

    def predict_one(self, values: dict[str, Tensor], point: Tensor, x: Tensor) -> Tensor:
        """Predictions ``[B, ...]`` of one sample.

        Args:
            values: the sample, a tensor for each parameter that has a prior.
            point: ``[D]``, the deterministic parameters.
            x: inputs ``[B, ...]``.
        """
        with self.at(values, point) as predict:
            return predict(x)

    @contextmanager
    def at(self, values: dict[str, Tensor], point: Tensor) -> Iterator[Callable[[Tensor], Tensor]]:
        """Predictions of one sample as a function of the inputs, within a ``with`` block.

        It reads the given tensors themselves: write another sample into them, and the function
        predicts with that.

        Args:
            values: a tensor for each parameter that has a prior.
            point: ``[D]``, the deterministic parameters.
        """
        if self._deterministic:
            values = values | self.unflatten(point, self._deterministic)
        with self._at(values) as predict:
            yield predict

    @contextmanager
    def _at(self, values: dict[str, Tensor]) -> Iterator[Callable[[Tensor], Tensor]]:
        own = {name: values[f"likelihood.{name}"] for name in self._of_likelihood}
        with self._stateless.at(values) as net:
            yield lambda x: self.likelihood.attach(net(x), own)

    # -- the Pyro model -----------------------------------------------------------------------

    def forward(self, x: Tensor, y: Tensor | None = None, num_data: int | None = None) -> Tensor:
        """The Pyro model: draws the weights, then the targets.

        Args:
            x: inputs ``[B, ...]``.
            y: targets ``[B, ...]``; None draws them.
            num_data: size of the data set of which x is a mini-batch; scales the likelihood.

        Returns:
            The targets ``[B, ...]``, site ``"y"`` in the plate ``"data"``.
        """
        values = {
            site.name: pyro.sample(site.name, site.prior)
            if site.prior is not None
            else pyro.param(site.name, self.initial(site.name))
            for site in self.sites
        }
        with self._at(values) as predict:
            distribution = self.likelihood(predict(x))
        within = len(distribution.batch_shape) - 1
        rows = torch.arange(len(x), device=x.device)
        with pyro.plate("data", num_data or len(x), subsample=rows):
            return pyro.sample("y", distribution.to_event(within), obs=y)


def plain_attention() -> AbstractContextManager[None]:
    """Within it attention is computed in plain steps, which `torch.vmap` knows as any other.

    torch's memory-efficient attention, which a GPU takes by default, fails on the way back under
    `torch.vmap` ("LSE is not correctly aligned", known to PyTorch's pull request 191085; found on
    torch 2.11), and that of a CPU evaluates the samples one after the other.
    """
    return sdpa_kernel(SDPBackend.MATH)
