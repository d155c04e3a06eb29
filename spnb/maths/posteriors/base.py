"""What every posterior is: a way from sample indices to weights.

A posterior offers three things, and parallelism over samples is then written once for all of
them: `prepare`, what is computed once a step; `draw`, sample indices to weights; and the
divergence from the prior. The noise of sample s comes from a *key* that is a function of
``(seed, step, s)`` alone, so the same index gives the same weights on any process.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from spnb.maths.models import BayesianModel, Site
from spnb.maths.posteriors.cross_entropy import CrossEntropy
from spnb.maths.posteriors.drawing import Drawing, Key
from spnb.maths.posteriors.pieces import PieceOfModel, Window


class Posterior(nn.Module):
    """Base of all posteriors.

    Its parameters are what training changes, and nothing else: the model, whose own parameters are
    only where the posterior starts, is held outside of the module's registry.

    Args:
        model: the Bayesian model whose weights are to be learned.

    Attributes:
        point: ``[D]``, the deterministic parameters of the model, learned as in a plain net; a
            parameter only if there are any.
        cross_entropy: that to the model's prior, of which `divergence` is made.
    """

    point: Tensor

    #: names of parameters that weight decay must leave alone: it would pull a standard deviation
    #: towards the value at zero, softplus(0) = 0.69, and no prior asks for it
    undecayed: tuple[str, ...] = ()

    #: whether each sample has parameters and a loss of its own, so that ranks along ``sample`` have
    #: nothing to tell each other while they train
    separate: bool = False

    #: whether each weight is drawn and judged by itself, so that ranks can share out parameters:
    #: all of them and all buffers, but those in ``common``, have the weights as last dimension
    elementwise: bool = False
    common: tuple[str, ...] = ("point",)

    #: whether `finish` has something to do, also where nothing is trained (``epochs=0``)
    finishes: bool = False

    #: which weights this piece holds; None: it is the whole
    window: Window | None = None

    #: whether samples come in pairs of opposite noise, so that only half of it has to be drawn
    antithetic: bool = False

    @property
    def num_draws(self) -> int | None:
        """How many different samples there are; None: as many as one likes."""
        return None

    @property
    def draws_in_training(self) -> int | None:
        """How many there are in a step of training."""
        return self.num_draws

    @property
    def drawing(self) -> type[Drawing]:
        """How a training step draws its samples."""
        return Drawing

    def __init__(self, model: BayesianModel) -> None:
        super().__init__()
        if not isinstance(model, BayesianModel):
            raise TypeError(
                f"model is a {type(model).__name__}; give a spnb.BayesianModel, such as "
                "spnb.BayesianModel(net, likelihood='categorical')."
            )
        self._model = (model,)
        self.piece_of_model: PieceOfModel | None = None
        self.cross_entropy = CrossEntropy(model)
        point = model.flatten(model.deterministic)
        if len(point):
            self.point = nn.Parameter(point)
        else:
            self.register_buffer("point", point, persistent=False)

    @property
    def model(self) -> BayesianModel:
        """The Bayesian model."""
        return self._model[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Posterior:
        """Take the model along to another device or precision."""
        self.model._apply(fn, recurse)  # first, since it may refuse
        super()._apply(fn, recurse)
        return self

    def forward(self, *inputs: Any) -> Tensor:
        """A posterior has no one output; see `spnb.predict`.

        Raises:
            NotImplementedError: says what to call instead.
        """
        raise NotImplementedError(
            f"A {type(self).__name__} cannot be called: spnb.predict(posterior, x, num_samples=64) "
            "gives the predictions of that many samples, [64, N, ...]."
        )

    def options(self) -> dict[str, Any]:
        """What besides the model it was made with, as far as it shapes the parameters; for files.

        Values that JSON can hold, by the names of the arguments.
        """
        return {}

    def moves(
        self, learning_rate: float, noise_per_step: float, key: Key, total: int
    ) -> Optimizer | None:
        """What moves the parameters, where the method is a way of moving; None: an optimiser.

        Args:
            learning_rate: as given to `spnb.fit`.
            noise_per_step: T / N, temperature over the size of the data set: the loss is the
                negative log posterior times this.
            key: of the random numbers of all its steps.
            total: how many steps there will be.
        """
        return None

    def meet(self, x: Tensor) -> None:
        """Look at a few rows of inputs, before training and before predictions.

        Args:
            x: inputs ``[b, ...]``, where the posterior computes.
        """

    def forget(self) -> None:
        """Drop what an earlier training left behind besides the parameters, before the first step.

        So an interrupted training cannot pass for a finished one.
        """

    @property
    def lacks(self) -> str:
        """What training has yet to leave behind, in words; empty: nothing."""
        return ""

    @property
    def finished(self) -> bool:
        """Whether everything is there that samples are drawn from after training."""
        return not self.lacks

    def _refuse_unfinished(self) -> None:
        """Refuse to draw samples from what is not there yet.

        Raises:
            ValueError: the posterior is unfinished; says what it lacks.
        """
        if lacks := self.lacks:
            raise ValueError(f"This {type(self).__name__} cannot be sampled from yet: {lacks}.")

    def check(self, predictions: Tensor) -> None:
        """Refuse a likelihood that the method cannot take, before any work begins.

        Args:
            predictions: of a few rows, ``[1, b, ...]``.
        """

    def observe(self, step: int, total: int) -> None:
        """Look at the parameters after each step of training.

        Args:
            step: how many steps were taken.
            total: how many there will be.
        """

    def finish(
        self, x: Tensor, y: Tensor, add_up: Callable[[Tensor], None], temperature: float
    ) -> None:
        """Do what is left to do after the last step.

        Args:
            x: this rank's share of the inputs ``[n, ...]``.
            y: their targets ``[n, ...]``.
            add_up: replaces a tensor by its sum over all ranks.
            temperature: T of the objective: the likelihood counts 1 / T times.
        """

    def part(self, samples: range) -> Posterior:
        """A copy that holds only some samples, where each has parameters of its own.

        Args:
            samples: which; they keep their indices.
        """
        raise NotImplementedError

    def join(self, gather: Callable[[Tensor], Tensor]) -> Posterior:
        """The whole again, from the parts that the ranks trained.

        Args:
            gather: a rank's own ``[m, ...]`` to that of all samples, ``[M, ...]``.
        """
        raise NotImplementedError

    @property
    def sites(self) -> tuple[Site, ...]:
        """The model's parameters that have a prior, or the pieces of them that this piece holds."""
        return self.model.drawn if self.piece_of_model is None else self.piece_of_model.drawn

    def piece(self, window: Window) -> Posterior:
        """A copy that holds the parameters of some weights alone, where these are drawn singly.

        Args:
            window: which weights.

        Raises:
            TypeError: the method is not one of them.
        """
        if not self.elementwise:
            raise TypeError(
                f"{type(self).__name__} does not draw each weight by itself, so its parameters "
                "cannot be shared out: use a layout with shard=1."
            )
        return self._cut(window, lambda name, tensor: window.of(tensor).clone())

    def assemble(self, join: Callable[[str, Tensor], Tensor]) -> Posterior:
        """The whole again, from the pieces of all ranks.

        Args:
            join: name and tensor ``[..., n]`` of this piece to those of the whole.
        """
        return self._cut(None, join)

    def _cut(self, window: Window | None, change: Callable[[str, Tensor], Tensor]) -> Posterior:
        other = copy.copy(self)
        other._parameters, other._buffers = dict(self._parameters), dict(self._buffers)
        for name, parameter in self.named_parameters():
            if name not in self.common:
                changed = change(name, parameter.detach())
                other._parameters[name] = nn.Parameter(changed, parameter.requires_grad)
        for name, buffer in self.named_buffers():
            if name not in self.common:
                other._buffers[name] = change(name, buffer)
        other.window = window
        other.piece_of_model = None if window is None else PieceOfModel(self.model, window)
        other.cross_entropy = CrossEntropy(other.piece_of_model or self.model)
        return other

    def label(self, name: str, index: int) -> str:
        """Which of the net's parameters an element of a trained one belongs to, for messages.

        A trained one has the same number of elements for each weight, those of a weight together.
        """
        sites = self.model.deterministic if name == "point" else self.sites
        elements, weights = self.get_parameter(name).numel(), sum(site.size for site in sites)
        if elements % weights:
            return f"'{name}'"  # shared by the weights
        index //= elements // weights
        for site in sites:
            if index < site.shape.numel():
                return f"'{site.name}' ({name})"
            index -= site.shape.numel()
        raise IndexError(f"'{name}' has no element {index}.")

    def prepare(self) -> tuple[Tensor, ...]:
        """What all samples of a step share, as differentiable functions of the parameters."""
        raise NotImplementedError

    def draw(
        self, sample_ids: Sequence[int], key: Key, prepared: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Weights ``[C, P]`` of some samples, differentiable in ``prepared``.

        Args:
            sample_ids: indices s of the samples, any subset in any order.
            key: key of the step; sample s takes its noise from ``key.fold(s)``.
            prepared: what `prepare` returned; computed anew if None.
        """
        raise NotImplementedError

    def evaluate(self, weights: Tensor, x: Tensor) -> Tensor:
        """What drawn weights predict after training, ``[C, B, ...]``.

        Args:
            weights: what `draw` returned, ``[C, P]``.
            x: inputs ``[B, ...]``.
        """
        return self.model.predict(weights, self.point, x)

    def divergence(self, prepared: Sequence[Tensor], part: int = 0, parts: int = 1) -> Tensor:
        """What is known of KL(posterior || prior) in closed form, or one part of it, a scalar.

        Args:
            prepared: what `prepare` returned.
            part: which part, from 0.
            parts: into how many the work is divided, one a rank; the parts add up to the whole.
        """
        raise NotImplementedError

    def add_divergence(
        self, leaves: Sequence[Tensor], part: int, parts: int, factor: float
    ) -> Tensor:
        """The same part, with ``factor`` times its derivatives added to gradients.

        Args:
            leaves: what `prepare` returned, as leaves of autograd, with their ``grad``.
            part: which part, from 0.
            parts: into how many the work is divided.
            factor: the divergence's factor in the loss.
        """
        with torch.enable_grad():
            known = self.divergence(leaves, part, parts)
        if known.requires_grad:
            known.backward(torch.full_like(known, factor))
        return known.detach()

    @property
    def estimates(self) -> bool:
        """Whether a part of the divergence has no closed form: that from a prior not normal."""
        return self.cross_entropy.estimates

    def sampled_divergence(
        self, values: Mapping[str, Tensor], prepared: Sequence[Tensor]
    ) -> Tensor:
        """That part of it, estimated from each of the drawn samples, ``[C]``: their -log prior.

        Args:
            values: the samples, ``{name: [C, *shape]}``.
            prepared: what `prepare` returned.
        """
        return self.cross_entropy.sampled(values)


def whole(name: str, value: int, least: int, why: str = "") -> None:
    """Refuse anything but whole numbers from some number on.

    Args:
        name: of the argument.
        value: what was given.
        least: the smallest that makes sense.
        why: what to do with less.

    Raises:
        TypeError: not a whole number.
        ValueError: less.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r} must be a whole number.")
    if value < least:
        raise ValueError(f"{name}={value} must be at least {least}{why}.")
