"""Derivatives of a model's predictions by some of its weights, for many rows or outputs at once.

`torch.func` takes them for all rows together, where it can take the net. Recurrent layers, boolean
masks, ``.item()``, and recomputation are beyond it; then plain autograd takes them one by one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from contextlib import ExitStack
from typing import TypeVar

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.func import grad, jvp, vjp, vmap

from spnb.maths.models import BayesianModel, plain_attention

T = TypeVar("T")


class Slopes:
    """The predictions' derivatives J and their curvature at given weights.

    Args:
        model: the model.
        weights: where, ``[P]``.
        point: ``[D]``, the deterministic parameters.
        names: of the parameters to differentiate by, Q weights.
        one_by_one: whether it is known already that torch.func cannot take the net.

    Attributes:
        own: those weights ``[Q]``.
        one_by_one: whether torch.func could not take the net.
    """

    def __init__(
        self,
        model: BayesianModel,
        weights: Tensor,
        point: Tensor,
        names: Collection[str],
        one_by_one: bool = False,
    ) -> None:
        self._model, self._point = model, point.detach()
        self._values = model.unflatten(weights.detach(), model.drawn)
        self._sites = tuple(site for site in model.drawn if site.name in names)
        self.own = torch.cat([self._values[site.name].reshape(-1) for site in self._sites])
        self.one_by_one = one_by_one

    def sizes(self, x: Tensor) -> tuple[int, int]:
        """How many outputs a row has, and how many numbers it keeps for the way back.

        Args:
            x: some inputs ``[n, ...]``, at least one.
        """
        kept = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        leaf = self.own.clone().requires_grad_()
        with torch.enable_grad(), plain_attention():
            with saved_tensors_hooks(count, lambda tensor: tensor):
                outputs = self._model.predict_one(self._at(leaf), self._point, x[:1])
        return outputs.numel(), kept

    def rows(
        self, x: Tensor, outputs: range, observed: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Some rows of J and of Λ J, ``[n, C, Q]`` each.

        Args:
            x: inputs ``[n, ...]``.
            outputs: C neighbouring ones of the predictions of a row, as one vector.
            observed: which targets count, ``[n, ...]``; None: all.

        Returns:
            The derivatives, and the same times the curvature Λ of the divergence of the targets by
            some predictions from those by others, where these are the same.
        """
        return self._either(self._rows_at_once, self._rows_one_by_one, x, outputs, observed)

    def along(self, x: Tensor, away: Tensor) -> Tensor:
        """Predictions of the linearised net, ``[S, n, ...]``.

        Args:
            x: inputs ``[n, ...]``.
            away: S differences from the weights, ``[S, Q]``.
        """
        return self._either(self._along_at_once, self._along_one_by_one, x, away)

    def _either(self, at_once: Callable[..., T], one_by_one: Callable[..., T], *given: object) -> T:
        if not self.one_by_one:
            try:
                with plain_attention():
                    return at_once(*given)
            except torch.OutOfMemoryError:
                raise
            except Exception:  # the inputs may be wrong instead: then the next lines raise as well
                pass
        with ExitStack() as stack:
            stack.enter_context(torch.enable_grad())
            stack.enter_context(plain_attention())
            # Their recurrent layers have no second derivatives.
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
            stack.enter_context(torch.backends.mkldnn.flags(enabled=False, allow_tf32=None))
            found = one_by_one(*given)
        if not self.one_by_one:
            self.one_by_one = True
            warnings.warn(
                f"torch.func cannot differentiate this {type(self._model.net).__name__}, so its "
                "derivatives are taken row by row, which takes longer.",
                stacklevel=2,
            )
        return found

    def _at(self, own: Tensor) -> dict[str, Tensor]:
        """All parameters, where some of them are these ``[Q]``."""
        return self._values | self._model.unflatten(own, self._sites)

    def _divergence(self, here: Tensor, other: Tensor, *observed: Tensor) -> Tensor:
        """The divergence of one row's predictions from others ``[...]``."""
        counts = [mask.unsqueeze(0) for mask in observed]
        return self._model.likelihood.divergence(here[None, None], other[None, None], *counts)

    # -- by torch.func ------------------------------------------------------------------------

    def _rows_at_once(
        self, x: Tensor, outputs: range, observed: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        def of_row(row: Tensor, *observed: Tensor) -> tuple[Tensor, Tensor]:
            def output(own: Tensor) -> Tensor:
                return self._model.predict_one(self._at(own), self._point, row[None]).squeeze(0)

            def bent(direction: Tensor) -> Tensor:
                slope = grad(lambda other: self._divergence(here, other, *observed))
                return jvp(slope, (here,), (direction,))[1]

            here, back = vjp(output, self.own)[:2]
            directions = _directions(here, outputs)
            return vmap(back)(directions)[0], vmap(back)(vmap(bent)(directions))[0]

        masks = [] if observed is None else [observed]
        slopes, turned = vmap(of_row)(x, *masks)
        return slopes, turned

    def _along_at_once(self, x: Tensor, away: Tensor) -> Tensor:
        def output(own: Tensor) -> Tensor:
            return self._model.predict_one(self._at(own), self._point, x)

        def linear(away: Tensor) -> Tensor:
            here, change = jvp(output, (self.own,), (away,))[:2]
            return here + change

        return vmap(linear)(away)

    # -- by plain autograd --------------------------------------------------------------------
    # The weights stay in the net until the way back is over, for layers that are computed again.

    def _rows_one_by_one(
        self, x: Tensor, outputs: range, observed: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        leaf = self.own.clone().requires_grad_()
        slopes = leaf.new_empty(len(x), len(outputs), len(leaf)).detach()
        bent = torch.empty_like(slopes)
        for n, row in enumerate(x):
            masks = [] if observed is None else [observed[n]]
            with self._model.at(self._at(leaf), self._point) as predict:
                here = predict(row[None]).squeeze(0)
                other = here.detach().requires_grad_()
                divergence = self._divergence(here.detach(), other, *masks)
                (slope,) = torch.autograd.grad(divergence, other, create_graph=True)
                for c, direction in enumerate(_directions(here.detach(), outputs)):
                    (turned,) = torch.autograd.grad(slope, other, direction, retain_graph=True)
                    for into, back in ((slopes, direction), (bent, turned)):
                        (into[n, c],) = torch.autograd.grad(here, leaf, back, retain_graph=True)
        return slopes, bent

    def _along_one_by_one(self, x: Tensor, away: Tensor) -> Tensor:
        """The derivative of the way back, which is linear in what comes back, is the way there."""
        leaf = self.own.clone().requires_grad_()
        with self._model.at(self._at(leaf), self._point) as predict:
            here = predict(x)
            back = torch.zeros_like(here, requires_grad=True)
            (slope,) = torch.autograd.grad(here, leaf, back, create_graph=True)
            changes = [torch.autograd.grad(slope, back, own, retain_graph=True)[0] for own in away]
        return here.detach() + torch.stack(changes)


def _directions(output: Tensor, outputs: range) -> Tensor:
    """Vectors of some outputs of a row, ``[C, ...]``, that are 1 there and 0 elsewhere."""
    found = torch.zeros(len(outputs), output.numel(), dtype=output.dtype, device=output.device)
    found[range(len(outputs)), outputs] = 1
    return found.view(-1, *output.shape)
