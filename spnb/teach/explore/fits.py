"""Fits of one small model on one record, for every setting that a reader may ask for.

Each setting, a prior scale and a noise, is really fitted when it is first asked for, by `spnb.fit`
and by Pyro's NUTS, and kept after that.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from pyro.infer import MCMC, NUTS
from torch import Tensor

from spnb.maths.models import BayesianModel
from spnb.maths.posteriors import MeanField
from spnb.maths.potential import potential
from spnb.parallel.keyed import Key
from spnb.run.training import fit
from spnb.teach.datasets import Scaling, Series

METHODS = ("prior", "mean field", "NUTS")


def stack(model: BayesianModel, samples: dict[str, Tensor]) -> Tensor:
    """Samples by the model's parameter names, as Pyro returns them, as rows ``[S, P]``."""
    count = len(samples[model.drawn[0].name])
    return torch.cat([samples[site.name].reshape(count, -1) for site in model.drawn], 1)


class Fits:
    """Posterior draws for every setting, made when they are first asked for.

    Args:
        make_model: ``(prior_scale, noise in ppm) -> model``; its net holds good point weights,
            from which both methods start.
        train: the record to learn from.
        test: a later stretch of it, to judge on.
        num_samples: draws to keep of each posterior.
        steps: training steps of the mean-field posterior.
        warmup: steps in which NUTS adapts.
        depth: NUTS doubles its path at most this many times.
        seed: of all random numbers.

    Attributes:
        year: scaling of the time, in years from the middle of the record.
        ppm: scaling of the values, from the training part alone.
    """

    def __init__(
        self,
        make_model: Callable[[float, float], BayesianModel],
        train: Series,
        test: Series,
        *,
        num_samples: int = 64,
        steps: int = 600,
        warmup: int = 60,
        depth: int = 6,
        seed: int = 0,
    ) -> None:
        self.make_model, self.train, self.test = make_model, train, test
        self.num_samples, self.steps, self.seed = num_samples, steps, seed
        self.warmup, self.depth = warmup, depth
        self.year, self.ppm = Scaling(train.time.mean().item(), 1.0), Scaling.of(train.values)
        self._kept: dict[tuple[str, float, float], Tensor] = {}

    @property
    def data(self) -> tuple[Tensor, Tensor]:
        """The training record, scaled: inputs and targets ``[N, 1]``."""
        return (
            self.year.apply(self.train.time).unsqueeze(1),
            self.ppm.apply(self.train.values).unsqueeze(1),
        )

    def keep(self, method: str, prior_scale: float, noise: float, weights: Tensor) -> None:
        """Hand in draws ``[S, P]`` that have been made already.

        They are put in random order: neighbours in a chain resemble each other, and the first
        few should stand for all.
        """
        generator = Key(self.seed).fold("order").generator()
        order = torch.randperm(len(weights), generator=generator)[: self.num_samples]
        self._kept[method, prior_scale, noise] = weights[order].detach()

    def is_kept(self, method: str, prior_scale: float, noise: float) -> bool:
        """Whether a setting has been fitted already."""
        return (method, prior_scale, noise) in self._kept

    def weights(self, method: str, prior_scale: float, noise: float) -> Tensor:
        """Draws of the weights ``[S, P]`` from the prior or one of the two posteriors."""
        if not self.is_kept(method, prior_scale, noise):
            model = self.make_model(prior_scale, noise)
            make = {"prior": self._prior, "mean field": self._mean_field, "NUTS": self._nuts}
            self.keep(method, prior_scale, noise, make[method](model))
        return self._kept[method, prior_scale, noise]

    def functions(self, method: str, prior_scale: float, noise: float, time: Tensor) -> Tensor:
        """What each draw says, in ppm, ``[S, T]``, at some times in decimal years ``[T]``."""
        weights = self.weights(method, prior_scale, noise)
        model = self.make_model(prior_scale, noise)
        with torch.no_grad():
            scaled = model.predict(weights, weights[0, :0], self.year.apply(time).unsqueeze(1))
        return self.ppm.undo(scaled.squeeze(-1))

    def _prior(self, model: BayesianModel) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return stack(
                model,
                {
                    s.name: s.prior.sample((self.num_samples,))  # type: ignore[union-attr]
                    for s in model.drawn
                },
            )

    def _mean_field(self, model: BayesianModel) -> Tensor:
        found = fit(
            MeanField(model, init_scale=0.05),
            self.data,
            num_samples=4,
            batch_size=len(self.train),
            epochs=self.steps,
            learning_rate=0.02,
            schedule="cosine",
            seed=self.seed,
        )
        key = Key(self.seed).fold("predict")  # the draws that spnb.predict would use
        return found.posterior.draw(range(self.num_samples), key)

    def _nuts(self, model: BayesianModel) -> Tensor:
        kernel = NUTS(potential_fn=potential(model, *self.data), max_tree_depth=self.depth)
        start = {"w": model.flatten(model.drawn)}
        chain = MCMC(kernel, self.num_samples, self.warmup, start, disable_progbar=True)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            chain.run()
        return chain.get_samples()["w"]
