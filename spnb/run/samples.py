"""Samples of the weights in evaluation, and the way of their gradients back to the parameters.

There are two ways; in both autograd sees the network at weights that are leaves. A `Chunk` leaves
the rest of the chain rule to autograd as well, and several chunks may be kept at once. A `Lane`
evaluates one sample after the other in the same memory, and the rest of the chain rule is the
posterior's own (`Drawing`), in place and without a graph. That keeps a sample's cost close to a
plain forward and backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

from spnb.maths.posteriors import Posterior
from spnb.parallel.keyed import Key
from spnb.run.sharded import Sharing


class Source:
    """What the samples of a step are drawn from, and where their gradients gather.

    Args:
        posterior: the posterior; the gradients of its parameters are there, and zero.
        key: key of the step.

    Attributes:
        leaves: what `Posterior.prepare` returned, as leaves of autograd, each with its ``grad``.
    """

    def __init__(self, posterior: Posterior, key: Key) -> None:
        self.posterior, self.key = posterior, key
        self._prepared = posterior.prepare()
        # What is a parameter itself gathers its gradient right where it belongs.
        self.leaves = tuple(p if p.is_leaf else p.detach().requires_grad_() for p in self._prepared)
        for leaf in self.leaves:
            if leaf.grad is None:
                leaf.grad = torch.zeros_like(leaf)

    def finish(self, part: int, parts: int, factor: float) -> Tensor:
        """Carry the gradients on to the parameters, with a part of the known divergence.

        Args:
            part: which part of the divergence to count.
            parts: into how many it is divided.
            factor: the divergence's factor in the loss.

        Returns:
            This part of the divergence, a scalar.
        """
        known = self.posterior.add_divergence(self.leaves, part, parts, factor)
        pairs = zip(self._prepared, self.leaves, strict=True)
        ends = [(whole, leaf.grad) for whole, leaf in pairs if whole is not leaf]
        torch.autograd.backward([end for end, _ in ends], [gradient for _, gradient in ends])
        return known


class Chunk:
    """A few samples with their graph, as many as one likes at once.

    Args:
        source: where to draw from.
        sample_ids: which samples.
    """

    def __init__(self, source: Source, sample_ids: Sequence[int]) -> None:
        self._source = source
        self._drawn = source.posterior.draw(sample_ids, source.key, source.leaves)
        self.weights = self._drawn.detach().requires_grad_()

    def predict(self, x: Tensor, own_views: bool = False) -> Tensor:
        """Predictions ``[C, B, ...]``, as `spnb.BayesianModel.predict` makes them."""
        posterior = self._source.posterior
        return posterior.model.predict(self.weights, posterior.point, x, own_views)

    def sampled_divergence(self) -> Tensor:
        """The part of the divergence that is estimated from each sample, ``[C]``."""
        posterior = self._source.posterior
        values = posterior.model.unflatten(self.weights, posterior.model.drawn)
        return posterior.sampled_divergence(values, self._source.leaves)

    def in_place(self) -> AbstractContextManager[object]:
        """Within it a single sample's weights are the net's, for what reads them on the way back.

        `torch.utils.checkpoint` evaluates parts of the net again there.
        """
        if len(self.weights) > 1:
            return nullcontext()
        model = self._source.posterior.model
        values = model.unflatten(self.weights.squeeze(0), model.drawn)
        return model.at(values, self._source.posterior.point)

    def carry_back(self) -> None:
        """Add the gradient at the samples to what they were drawn from."""
        if self.weights.grad is not None:
            self._drawn.backward(self.weights.grad)


class Lane:
    """One sample after the other, in the same memory, as long as a run lasts.

    Args:
        posterior: the posterior, or this rank's piece of it.
        sharing: how ranks share out its parameters, if they do.
    """

    def __init__(self, posterior: Posterior, sharing: Sharing | None = None) -> None:
        self._posterior, self._sharing, model = posterior, sharing, posterior.model
        like = next(posterior.parameters())
        size = sum(site.size for site in model.drawn)
        padded = size if sharing is None else sharing.padded
        self._weights = like.new_zeros(padded, requires_grad=False)
        self._gradient = torch.zeros_like(self._weights)
        self._values = model.unflatten(self._weights[:size], model.drawn)
        gradients = model.unflatten(self._gradient[:size], model.drawn)
        for name, leaf in self._values.items():
            leaf.requires_grad_()
            leaf.grad = gradients[name]  # autograd adds to it in place

    @contextmanager
    def over(self, source: Source) -> Iterator[Lane]:
        """Evaluate samples of a step within a ``with`` block."""
        posterior = self._posterior
        self._source = source
        self._drawing = posterior.drawing(posterior, source.key, source.leaves)
        with posterior.model.at(self._values, posterior.point) as self._predict:
            yield self
        del self._source, self._drawing  # three vectors, before the next step makes its own

    def draw(self, sample: int) -> Lane:
        """Put a sample in the place of the one before."""
        self._drawing.draw(sample, self._weights)
        if self._sharing:
            self._sharing.comm.gather_windows(self._weights)
        return self

    def predict(self, x: Tensor, own_views: bool = False) -> Tensor:
        """Predictions ``[1, B, ...]``."""
        return self._predict(x[0] if own_views else x).unsqueeze(0)

    def sampled_divergence(self) -> Tensor:
        """The part of the divergence that is estimated from the sample, ``[1]``."""
        values = {name: value.unsqueeze(0) for name, value in self._values.items()}
        if piece := self._posterior.piece_of_model:
            values = piece.of(values)
        return self._posterior.sampled_divergence(values, self._source.leaves)

    def in_place(self) -> AbstractContextManager[object]:
        """The sample's weights are the net's all along."""
        return nullcontext()

    def carry_back(self) -> None:
        """Add the gradient at the sample to what it was drawn from."""
        if self._sharing:
            own = self._sharing.comm.sum_windows(self._gradient)
            self._drawing.carry_back(own[: len(self._posterior.window or ())])
        else:
            self._drawing.carry_back(self._gradient)
        self._gradient.zero_()
