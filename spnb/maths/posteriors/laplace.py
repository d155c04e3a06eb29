"""Laplace: a normal around the mode, as wide as the loss is flat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import hessian, jacrev, jvp, vmap

from spnb.maths.models import BayesianModel, plain_attention
from spnb.maths.posteriors import noise
from spnb.maths.posteriors.drawing import Key
from spnb.maths.posteriors.normal_runs import normal_runs
from spnb.maths.posteriors.point import AroundPoint

LARGEST = 4096
"""Most weights whose whole covariance is kept."""
ROWS = 64
"""Rows whose Jacobians are formed at once."""


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
    share the rows.

    The curvature is that of the network's linearisation, and so should the samples be: far from the
    mode the network itself is no longer like it (Immer, Korzepa and Bauer, arXiv 2008.08171).
    *Linearised*, sample s predicts :math:`f(x; \theta) + J(x) (w_s - \theta)`.

    Args:
        model: the Bayesian model, with normal priors. Training starts at the values of its net.
        structure: ``"diagonal"``, or ``"full"`` for a whole matrix over at most 4,096 weights.
        weights: ``"all"``, or ``"last"`` for those of the last layer alone, the others staying at
            the mode; the choice for large nets.
        linearised: whether predictions are linearised around the mode, by forward-mode derivatives
            in about twice the time of a pass. None: for all weights yes; for those of the last
            layer no, in which a net usually is linear as it is.

    Attributes:
        loc: the mode :math:`\theta`, ``[P]``.
        root: of the covariance of the Q weights that have one: standard deviations ``[Q]``, or a
            matrix R with :math:`R R^\top = H^{-1}`, ``[Q, Q]``; zero before training.
    """

    root: Tensor

    common = ("point", "root")

    def __init__(
        self,
        model: BayesianModel,
        structure: Literal["diagonal", "full"] = "diagonal",
        weights: Literal["all", "last"] = "all",
        linearised: bool | None = None,
    ) -> None:
        super().__init__(model)
        if structure not in ("diagonal", "full") or weights not in ("all", "last"):
            raise ValueError(
                f"structure='{structure}' must be 'diagonal' or 'full', weights='{weights}' 'all' "
                "or 'last'."
            )
        if linearised not in (None, True, False):
            raise ValueError(f"linearised={linearised!r} must be True, False or None.")
        self.structure, self.weights = structure, weights
        self.linearised = weights == "all" if linearised is None else linearised
        if self.estimates:
            raise ValueError("Laplace's approximation needs normal priors: others may not curve.")
        self._first = _start_of_last_layer(model) if weights == "last" else 0
        size = len(self.loc) - self._first
        if structure == "full" and size > LARGEST:
            raise ValueError(
                f"A full covariance of {size} weights has {size**2:.1e} numbers; at most {LARGEST} "
                "weights may have one: use structure='diagonal' or weights='last'."
            )
        shape = (size,) if structure == "diagonal" else (size, size)
        self.register_buffer("root", self.loc.new_zeros(shape, requires_grad=False))

    def options(self) -> dict[str, Any]:
        """Of which weights, which form the covariance has, and how samples predict."""
        return {
            "structure": self.structure,
            "weights": self.weights,
            "linearised": self.linearised,
        }

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
            self.root.zero_()  # it may have been trained before
            return
        total = torch.zeros_like(self.root)
        with plain_attention():
            for rows in x.split(ROWS):
                total += self._curvature(rows.to(total.device))
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

    def _curvature(self, x: Tensor) -> Tensor:
        """The sum over some rows of J' Λ J, or of its diagonal."""
        model, point = self.model, self.point.detach()
        fixed, own = self.loc.detach().split([self._first, len(self.loc) - self._first])

        def output(own: Tensor, x: Tensor) -> Tensor:
            values = model.unflatten(torch.cat([fixed, own]), model.drawn)
            return model.predict_one(values, point, x.unsqueeze(0)).squeeze(0)

        def away(output: Tensor, here: Tensor) -> Tensor:
            return model.likelihood.divergence(here[None, None], output[None, None])

        outputs = vmap(output, in_dims=(None, 0))(own, x)
        bends = vmap(hessian(away))(outputs, outputs)
        slopes = vmap(jacrev(output), in_dims=(None, 0))(own, x).flatten(1, -2)  # [n, C, Q]
        size = slopes.shape[1]
        bent = torch.einsum("ncd,ndq->ncq", bends.reshape(len(x), size, size), slopes)
        if self.structure == "diagonal":
            return (slopes * bent).sum((0, 1))
        return torch.einsum("ncq,ncr->qr", slopes, bent)

    def _prior_precision(self) -> Tensor:
        """That of the prior, ``[Q]``."""
        whole = torch.zeros_like(self.loc.detach())
        for run in normal_runs(self.model.drawn):
            whole[run.start : run.stop] = torch.as_tensor(run.scale).to(whole).square().reciprocal()
        return whole[self._first :]

    def prepare(self) -> tuple[Tensor, ...]:
        """The mode ``[P]``; after training, the root of the covariance as well."""
        return (self.loc,) if self.training else (self.loc, self.root)

    def draw(
        self, sample_ids: Sequence[int], key: Key, prepared: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Weights ``[C, P]`` of some samples."""
        prepared = self.prepare() if prepared is None else prepared
        weights = super().draw(sample_ids, key, prepared)
        if len(prepared) == 1:
            return weights
        root = prepared[1]
        own = noise.draw(sample_ids, key, root[..., 0].flatten() if root.dim() > 1 else root, False)
        away = own * root if root.dim() == 1 else own @ root.T
        return weights + nn.functional.pad(away, (self._first, 0))

    def evaluate(self, weights: Tensor, x: Tensor) -> Tensor:
        """What drawn weights predict, ``[C, B, ...]``."""
        if self.training or not self.linearised:
            return super().evaluate(weights, x)
        model, mode, point = self.model, self.loc.detach(), self.point.detach()

        def output(own: Tensor) -> Tensor:
            return model.predict_one(model.unflatten(own, model.drawn), point, x)

        def linear(away: Tensor) -> Tensor:
            here, change = jvp(output, (mode,), (away,))[:2]
            return here + change

        with plain_attention():
            return vmap(linear)(weights - mode)


def _start_of_last_layer(model: BayesianModel) -> int:
    """Where in the flat vector the drawn parameters of the last layer begin, to its end."""
    names = [site.name for site in model.drawn if not site.name.startswith("likelihood.")]
    last = names[-1].rpartition(".")[0]
    before = 0
    for site in model.drawn:
        if site.name.rpartition(".")[0] == last:
            break
        before += site.size
    if not before:
        raise ValueError(f"weights='last': the net has no last layer apart from {names}.")
    return before
