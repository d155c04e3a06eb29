"""A Bayesian model: a net, a prior over its parameters and a likelihood of the targets.

`BayesianModel` is a real Pyro model: `pyro.infer.SVI`, `NUTS` and `Predictive` accept it as it
is. For everything that evaluates many samples of the weights it also offers a *flat* view, in
which all parameters with a prior form one vector ``[P]``, so that drawing, moving and
differentiating a sample are each one operation. Parameters without a prior, if any, form a second
vector ``[D]``, the *point*.
"""

from __future__ import annotations

import warnings
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
from spnb.maths.modules import of_rows, padding_rows, refuse_half_precision, refuse_unsupported
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
            Parameters with ``requires_grad=False`` are frozen: they keep their values and get no
            prior. The row ``padding_idx`` of an embedding keeps its value as well.
        prior: a pyro distribution for all parameters (a scalar one is expanded), or a function
            ``(name, parameter) -> distribution | None``; None leaves a parameter deterministic.
        likelihood: ``"categorical"``, ``"normal"`` (learned noise), ``"heteroscedastic"``, an
            object of `spnb.likelihoods`, or a function from predictions to a pyro distribution.

    Raises:
        ValueError: the net has no parameters to train, or in half precision; it holds a layer
            whose rows or samples are not independent (BatchNorm, Dropout); or a prior does not fit
            its parameter.
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
        self._padding = padding_rows(net)
        #: whether samples are evaluated one after the other, since `torch.vmap` cannot take the net
        self.one_by_one = False
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

    def refuse_changes(self) -> None:
        """Refuse a net that is no longer the one that the model was made of.

        Raises:
            ValueError: it has other layers, other frozen parameters, or half precision.
        """
        refuse_half_precision(next(self.net.parameters()).dtype)
        self._stateless.refuse_changes()

    def _resolve_sites(self, prior: priors.Prior) -> Iterator[Site]:
        with priors.of_net(self.net):
            trained = [(n, p) for n, p in self.net.named_parameters() if p.requires_grad]
            for name, parameter in trained:
                yield Site(name, parameter.shape, priors.resolve(prior, name, parameter))
        for name, parameter in self.likelihood.named_parameters():
            own = self.likelihood.priors.get(name)
            resolved = None if own is None else priors.resolve(own, name, parameter)
            yield Site(f"likelihood.{name}", parameter.shape, resolved)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> BayesianModel:
        """Take the priors along when the module moves to another device or precision."""
        refuse_half_precision(fn(next(self.net.parameters()).new_empty(0)).dtype)
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
            ``[C, B, ...]``. One sample is evaluated plainly, several at once by `torch.vmap`;
            nets that this cannot take are evaluated sample by sample, with a warning.
        """

        def one(weights: Tensor, x: Tensor) -> Tensor:
            return self.predict_one(self.unflatten(weights, self.drawn), point, x)

        if len(weights) != 1 and not self.one_by_one:
            try:
                with plain_attention():
                    return vmap(one, in_dims=(0, 0 if own_views else None))(weights, x)
            except torch.OutOfMemoryError:
                raise
            except Exception:  # the input may be wrong instead: then the next lines raise as well
                pass
        views = x if own_views else [x] * len(weights)
        found = torch.stack([one(own, view) for own, view in zip(weights, views, strict=True)])
        if len(weights) > 1 and not self.one_by_one:
            self.evaluate_one_by_one()
        return found

    def evaluate_one_by_one(self) -> None:
        """Do without `torch.vmap` from now on, and say so."""
        self.one_by_one = True
        warnings.warn(
            f"torch.vmap cannot evaluate several samples of this {type(self.net).__name__} at "
            "once: they are evaluated one after the other.",
            stacklevel=3,
        )

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
    def at(
        self, values: dict[str, Tensor], point: Tensor | None = None
    ) -> Iterator[Callable[[Tensor], Tensor]]:
        """Predictions of one sample as a function of the inputs, within a ``with`` block.

        It reads the given tensors themselves: write another sample into them, and the function
        predicts with that.

        Args:
            values: a tensor for each parameter that has a prior.
            point: ``[D]``, the deterministic parameters; None: they are among the values.
        """
        if point is not None and self._deterministic:
            values = values | self.unflatten(point, self._deterministic)
        held = self._held_padding()
        with self._stateless.at(values) as net:

            def predict(x: Tensor) -> Tensor:
                if not held:
                    return self._attach(of_rows(net(x), len(x)), values)
                # At each call: a sample may have been written into the same tensors since.
                padded = self._padded(values, held)
                with self._stateless.at(padded):
                    return self._attach(of_rows(net(x), len(x)), padded)

            yield predict

    def predict_held(self, x: Tensor) -> Tensor:
        """Predictions ``[B, ...]`` with the values that net and likelihood hold themselves."""
        outputs = of_rows(self.net(x), len(x))
        return self.likelihood.attach(outputs, dict(self.likelihood.named_parameters()))

    def with_padding(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Values of parameters in which embeddings have the rows for padding that the net holds."""
        return self._padded(values, self._held_padding())

    def _attach(self, outputs: Tensor, values: dict[str, Tensor]) -> Tensor:
        own = {name: values[f"likelihood.{name}"] for name in self._of_likelihood}
        return self.likelihood.attach(outputs, own)

    def _held_padding(self) -> dict[str, Tensor]:
        return {name: self.initial(name).detach() for name in self._padding}

    def _padded(self, values: dict[str, Tensor], held: dict[str, Tensor]) -> dict[str, Tensor]:
        return values | {
            name: torch.where(self._padding[name].to(own.device), own, values[name])
            for name, own in held.items()
        }

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
        with self.at(values) as predict:
            predictions = predict(x)
        distribution = self.likelihood(predictions)
        if y is not None:
            self.likelihood.require_distribution("The Pyro model")
            distribution, y, observed = self.likelihood.match(predictions, y, leading=0)
            if observed is not None:
                distribution = distribution.mask(likelihoods.whole_events(observed, distribution))
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
