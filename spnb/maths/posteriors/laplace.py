"""Laplace: a normal around the mode, as wide as the loss is flat."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from spnb.maths.models import BayesianModel
from spnb.maths.paths import drawn_in, layer_made_last, layer_of_predictions, owners
from spnb.maths.posteriors import noise
from spnb.maths.posteriors.drawing import Key
from spnb.maths.posteriors.normal_runs import normal_runs
from spnb.maths.posteriors.point import AroundPoint
from spnb.maths.posteriors.slopes import Slopes

LARGEST = 4096
"""Most weights whose whole covariance is kept."""
ROWS = 64
"""Most rows whose derivatives are taken at once."""
NUMBERS = 2**24
"""Most numbers in the derivatives taken at once, unless those of a single output have more."""


class Laplace(AroundPoint):
    r"""Laplace's approximation (MacKay 1992; Daxberger et al., arXiv 2106.14806).

    Training goes with one point, to the maximum a posteriori. Then the curvature there is summed
    over the data, as the Fisher information, and added to that of the prior:

    .. math:: H = \frac{1}{T} \sum_n J_n^\top \Lambda_n J_n + \operatorname{diag}(s^{-2}), \qquad
              q(w) = \mathcal N(\theta, H^{-1})

    with the network's Jacobian :math:`J_n` and the Fisher information :math:`\Lambda_n` of the
    likelihood at its output, the curvature there of KL(p(y | output) || p(y | another output)). For
    classes and for known noise this is the generalised Gauss–Newton matrix (Martens, arXiv
    1412.1193, section 9.2); unlike a Hessian it is never negative. T is the temperature. The ranks
    share the rows. For a net that is trained already, ``spnb.fit(spnb.Laplace(model), data,
    epochs=0)`` finds the curvature at the values that it holds.

    The curvature is that of the network's linearisation, and so should the samples be: far from the
    mode the network itself is no longer like it (Immer, Korzepa and Bauer, arXiv 2008.08171).
    *Linearised*, sample s predicts :math:`f(x; \theta) + J(x) (w_s - \theta)`.

    Args:
        model: the Bayesian model, with normal priors. Training starts at the values of its net.
        structure: ``"diagonal"``, or ``"full"`` for a whole matrix over at most 4,096 weights.
        weights: ``"all"``; ``"last"`` for those of the last layer alone, the others staying at the
            mode, the choice for large nets; or the name of a layer, or names of several. The last
            layer is the one whose outputs make the predictions, found by a forward pass on the
            first data. Learned noise that has a prior goes along.
        linearised: whether predictions are linearised around the mode, by forward-mode derivatives
            in about twice the time of a pass. None: yes, but for the last layer, in which a net
            usually is linear as it is.

    Attributes:
        loc: the mode :math:`\theta`, ``[P]``.
        root: of the covariance of the Q weights that have one: standard deviations ``[Q]``, or a
            matrix R with :math:`R R^\top = H^{-1}`, ``[Q, Q]``; NaN before training.

    Raises:
        ValueError: a prior is not normal, the net has no such layer, or a whole matrix would be
            too large.
    """

    root: Tensor

    common = ("point", "root")
    finishes = True

    def __init__(
        self,
        model: BayesianModel,
        structure: Literal["diagonal", "full"] = "diagonal",
        weights: str | Sequence[str] = "all",
        linearised: bool | None = None,
    ) -> None:
        super().__init__(model)
        if structure not in ("diagonal", "full"):
            raise ValueError(f"structure='{structure}' must be 'diagonal' or 'full'.")
        if linearised not in (None, True, False):
            raise ValueError(f"linearised={linearised!r} must be True, False or None.")
        self.structure = structure
        self.weights = weights if isinstance(weights, str) else list(weights)
        self.linearised = weights != "last" if linearised is None else linearised
        if self.estimates:
            raise ValueError("Laplace's approximation needs normal priors: others may not curve.")
        self._found_last = self._tried = self._one_by_one = False
        if weights == "last":  # there are no data yet: the layer that was made last
            self._take(drawn_in(model, [layer_made_last(model)]), for_now=True)
        elif weights == "all":
            self._take({site.name for site in model.drawn})
        else:
            self._take(drawn_in(model, [weights] if isinstance(weights, str) else weights))

    def _take(self, names: set[str], for_now: bool = False) -> None:
        """Make room for the covariance of some parameters, and of the noise if it has a prior."""
        self._names = names
        size = sum(stop - start for start, stop in self._spans())
        if self.structure == "full" and size > LARGEST:
            if not for_now:
                raise ValueError(
                    f"A full covariance of {size} weights has {size**2:.1e} numbers; at most "
                    f"{LARGEST} weights may have one: use structure='diagonal', weights='last', or "
                    "the name of a smaller layer."
                )
            size = 0
        shape = (size,) if self.structure == "diagonal" else (size, size)
        self.register_buffer("root", self.loc.detach().new_full(shape, torch.nan))

    def _spans(self) -> list[tuple[int, int]]:
        """Where in the flat vector the weights lie that have a covariance."""
        spans: list[tuple[int, int]] = []
        start = 0
        for site in self.model.drawn:
            stop = start + site.size
            if site.name in self._names or site.name.startswith("likelihood."):
                if spans and spans[-1][1] == start:
                    start, _ = spans.pop()
                spans.append((start, stop))
            start = stop
        return spans

    def _of(self, vectors: Tensor) -> Tensor:
        """Those weights, ``[..., Q]``, of whole vectors ``[..., P]``."""
        return torch.cat([vectors[..., start:stop] for start, stop in self._spans()], -1)

    def options(self) -> dict[str, Any]:
        """Of which weights, which form the covariance has, and how samples predict."""
        return {
            "structure": self.structure,
            "weights": self.weights,
            "linearised": self.linearised,
        }

    def meet(self, x: Tensor) -> None:
        """Find the last layer, if it is to be that, and see that the net can be differentiated.

        Raises:
            ValueError: there is no last layer, it is too large, or there are no derivatives.
        """
        if self.weights == "last" and not self._found_last:
            self._find_last(x)
        if self.training and not self._tried:
            self._try(x)

    def _find_last(self, x: Tensor) -> None:
        layer = layer_of_predictions(self.model, x)
        names, self._found_last = drawn_in(self.model, [layer]), True
        if self.finished and names != self._names:
            warnings.warn(
                f"The spread of this Laplace lies in {owners(sorted(self._names))}, as an earlier "
                f"version found it, but the predictions come from '{layer}': train it anew.",
                stacklevel=2,
            )
        elif names != self._names:
            self.weights = [layer]
            self._take(names)
        elif not self.root.numel():
            self._take(names)

    def _try(self, x: Tensor) -> None:
        """Take derivatives of a few rows, in both ways that will be needed."""
        slopes, self._tried = self._slopes(), True
        try:
            slopes.rows(x, range(1))
            if self.linearised:
                slopes.along(x, torch.zeros_like(slopes.own).unsqueeze(0))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise ValueError(
                f"Laplace needs derivatives of the predictions, and torch has none for this "
                f"{type(self.model.net).__name__}; the error above says why. Use another method, "
                "such as spnb.SWAG."
            ) from error
        self._one_by_one = slopes.one_by_one

    def _slopes(self) -> Slopes:
        """Derivatives at the mode; while it is trained, at where the net is."""
        sites = [site.name for site in self.model.drawn]
        names = [n for n in sites if n in self._names or n.startswith("likelihood.")]
        whole = self.loc if self.window is None else self.model.flatten(self.model.drawn)
        return Slopes(self.model, whole, self.point, names, self._one_by_one)

    def check(self, predictions: Tensor) -> None:
        """Refuse a likelihood whose curvature cannot be found."""
        self.model.likelihood.divergence(predictions, predictions)

    def finish(
        self, x: Tensor, y: Tensor, add_up: Callable[[Tensor], None], temperature: float
    ) -> None:
        """Find the curvature at the mode.

        Args:
            x: this rank's share of the inputs ``[n, ...]``.
            y: their targets ``[n, ...]``.
            add_up: replaces a tensor by its sum over all ranks.
            temperature: T; at zero nothing is left but the mode.

        Raises:
            FloatingPointError: the curvature is too uneven to be inverted.
        """
        if temperature == 0:
            self.root.zero_()
            return
        total = self._curvature(x, self.model.likelihood.observed(y))
        add_up(total)
        total /= temperature
        prior = self._prior_precision()
        if self.structure == "diagonal":
            self.root.copy_((total + prior).rsqrt())
            return
        # In double precision: data often bend some directions a million times more than the prior.
        half, failed = torch.linalg.cholesky_ex(total.double() + torch.diag(prior).double())
        if failed:
            raise FloatingPointError(
                f"The curvature of {len(prior)} weights at temperature {temperature:g} is too "
                "uneven to be inverted: use structure='diagonal', double precision or a higher "
                "temperature."
            )
        eye = torch.eye(len(prior)).to(half)
        self.root.copy_(torch.linalg.solve_triangular(half, eye, upper=False).T)

    def _curvature(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """The sum over rows of J' Λ J, or its diagonal, some rows and outputs after the other."""
        total = torch.zeros_like(self.root)
        if not len(x):
            return total
        slopes = self._slopes()
        size, kept = slopes.sizes(x[:1].to(total.device))
        pairs = max(1, NUMBERS // (len(slopes.own) + size + kept))  # of a row and an output
        outputs = min(size, pairs)
        step = min(ROWS, pairs // outputs)
        for first in range(0, len(x), step):
            own = x[first : first + step].to(total.device)
            counts = None if observed is None else observed[first : first + step].to(total.device)
            for start in range(0, size, outputs):
                some = range(start, min(start + outputs, size))
                here, bent = slopes.rows(own, some, counts)
                if self.structure == "diagonal":
                    total += (here * bent).sum((0, 1))
                else:
                    total += torch.einsum("ncq,ncr->qr", here, bent)
        return total

    def _prior_precision(self) -> Tensor:
        """That of the prior, ``[Q]``."""
        whole = torch.zeros_like(self.loc.detach())
        for run in normal_runs(self.model.drawn):
            whole[run.start : run.stop] = torch.as_tensor(run.scale).to(whole).square().reciprocal()
        return self._of(whole)

    def forget(self) -> None:
        """Drop the curvature of an earlier training."""
        self.root.fill_(torch.nan)

    @property
    def lacks(self) -> str:
        """The curvature, before training is over."""
        if self.root.numel() and not self.root.isnan().any():
            return ""
        return (
            "its curvature was not found yet; spnb.fit(posterior, data, epochs=0) finds it where "
            "the weights are"
        )

    def prepare(self) -> tuple[Tensor, ...]:
        """The mode ``[P]``; after training, the root of the covariance as well."""
        if self.training:
            return super().prepare()
        self._refuse_unfinished()
        return self.loc, self.root

    def draw(
        self, sample_ids: Sequence[int], key: Key, prepared: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Weights ``[C, P]`` of some samples."""
        prepared = self.prepare() if prepared is None else prepared
        weights = super().draw(sample_ids, key, prepared)
        if len(prepared) == 1:
            return weights
        root, weights = prepared[1], weights.clone()
        own = noise.draw(sample_ids, key, root[..., 0].flatten() if root.dim() > 1 else root, False)
        away = own * root if root.dim() == 1 else own @ root.T
        spans = self._spans()
        parts = away.split([stop - start for start, stop in spans], -1)
        for (start, stop), part in zip(spans, parts, strict=True):
            weights[:, start:stop] += part
        return weights

    def evaluate(self, weights: Tensor, x: Tensor) -> Tensor:
        """What drawn weights predict, ``[C, B, ...]``."""
        if self.training or not self.linearised:
            return super().evaluate(weights, x)
        slopes = self._slopes()
        found = slopes.along(x, self._of(weights - self.loc.detach()))
        self._one_by_one = slopes.one_by_one
        return found
