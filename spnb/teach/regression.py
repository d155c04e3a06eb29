"""The standard benchmark of Bayesian regression: many random splits of one table, many methods.

After Hernández-Lobato and Adams (arXiv 1502.05336, section 5): some random splits into 90 % of the
rows to train on and 10 % to test on, inputs and targets standardised by the training part, one
hidden layer of 50 rectified units. Mean and standard error over the splits of the root mean squared
error and of the log-likelihood of a test row, in the units of the table. What has to be chosen, the
width of the prior, is chosen for each split and method by a validation part of its training rows.

The splits overlap: two of them share most of their training rows, and results that share rows vary
less than independent ones would. The standard errors are therefore the corrected ones of Nadeau and
Bengio (*Inference for the Generalization Error*, Machine Learning 52, 2003, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from spnb.maths import posteriors
from spnb.maths.likelihoods import Normal
from spnb.maths.models import BayesianModel
from spnb.maths.networks import mlp
from spnb.maths.posteriors import Posterior
from spnb.maths.priors import fan_in
from spnb.parallel import progress
from spnb.parallel.collectives import Communicator
from spnb.parallel.keyed import Key
from spnb.parallel.layout import Layout, share
from spnb.run.chains import nuts
from spnb.run.predict import score
from spnb.run.training import fit
from spnb.teach.datasets import Scaling
from spnb.teach.linear import exact_linear

Pair = tuple[Tensor, Tensor]


Train = Callable[[BayesianModel, Pair, int, int], Posterior]
"""``(model, (x, y), epochs, seed) -> posterior``."""


@dataclass(frozen=True)
class Method:
    """A way to a posterior.

    Attributes:
        train: from a model and data to the posterior.
        hidden: whether its network has the hidden layer; without it the model is linear.
    """

    train: Train
    hidden: bool = True


def fitted(make: Callable[[BayesianModel], Posterior], **options: Any) -> Method:
    """A method that `spnb.fit` trains.

    Args:
        make: from a model to the posterior to train.
        **options: of `spnb.fit`, besides those of the protocol.
    """
    usual: dict[str, Any] = {"batch_size": 64, "learning_rate": 0.01, "schedule": "cosine"}

    def train(model: BayesianModel, data: Pair, epochs: int, seed: int) -> Posterior:
        return fit(make(model), data, epochs=epochs, seed=seed, **usual | options).posterior

    return Method(train)


def _nuts(model: BayesianModel, data: Pair, epochs: int, seed: int) -> Posterior:
    """Pyro's NUTS: one chain of as many steps as others have epochs, half of them to adapt."""
    half = max(4, epochs // 2)
    chains = nuts(
        model, data, num_chains=1, num_samples=half, warmup=half, seed=seed, max_tree_depth=6
    )
    return chains.posterior


def _linear(model: BayesianModel, data: Pair, epochs: int, seed: int) -> Posterior:
    """The exact posterior, which needs no epochs."""
    return exact_linear(model, data, seed=seed)


SEVERAL = {"num_samples": 4, "samples_in_flight": 4}

METHODS = {
    "linear": Method(_linear, hidden=False),
    "point": fitted(posteriors.Point),
    "mean field": fitted(lambda m: posteriors.MeanField(m, antithetic=True), **SEVERAL),
    "low rank": fitted(lambda m: posteriors.LowRank(m, antithetic=True), **SEVERAL),
    "MC dropout": fitted(lambda m: posteriors.MCDropout(m, rate=0.05), **SEVERAL),
    "ensemble": fitted(lambda m: posteriors.Ensemble(m, size=5), samples_in_flight=5),
    "SWAG": fitted(posteriors.SWAG, schedule="constant"),
    "Laplace, last layer": fitted(lambda m: posteriors.Laplace(m, "full", "last")),
    "SG-MCMC": fitted(
        lambda m: posteriors.SGMCMC(m, chains=4, cycles=2, keep=8),
        schedule="constant",
        samples_in_flight=4,
    ),
    "NUTS": Method(_nuts),
}
"""What can be compared, by name."""


@dataclass(frozen=True)
class Protocol:
    """The numbers of the benchmark.

    Attributes:
        splits: how many random splits.
        hidden: units of the hidden layer: 50, or 100 for the largest tables.
        epochs: passes over the training rows.
        gains: widths of the prior to choose from (`spnb.priors.fan_in`).
        test_samples: S in prediction.
        test_share: share of the rows to test on; the same share of the others validates.
        seed: names splits and all else.
    """

    splits: int = 20
    hidden: int = 50
    epochs: int = 100
    gains: tuple[float, ...] = (0.3, 1.0, 3.0)
    test_samples: int = 64
    test_share: float = 0.1
    seed: int = 0

    def held(self, rows: int) -> int:
        """Rows of a table to test on."""
        return round(self.test_share * rows)

    def overlap(self, rows: int) -> float:
        """Test rows over training rows, which a standard error over the splits has to know."""
        return self.held(rows) / (rows - self.held(rows))


def benchmark(
    x: Any,
    y: Any,
    methods: Sequence[str] = tuple(METHODS),
    protocol: Protocol | None = None,
    layout: Layout | None = None,
) -> dict[str, dict[str, list[float]]]:
    """Judge methods on any table, the splits shared out over the ranks.

    Args:
        x: inputs ``[N, F]``.
        y: targets ``[N]`` or ``[N, 1]``.
        methods: which of `METHODS`.
        protocol: the numbers; None: those of the standard benchmark.
        layout: the ranks, along whatever axis; None: this process does all.

    Returns:
        By method ``rmse`` (in units of y), ``log_likelihood`` (nats a row, of y in its units) and
        ``gain``, the width that was chosen: a list of one value a split, the same on every rank.

    Raises:
        ValueError: an unknown method, or a table that cannot be split so.
    """
    protocol = protocol or Protocol()
    x, y = _table(x, y)
    if unknown := [name for name in methods if name not in METHODS]:
        raise ValueError(f"There is no method {unknown[0]!r}; there are {', '.join(METHODS)}.")
    held = protocol.held(len(x))
    if held < 2 or len(x) - 2 * held < 2:
        raise ValueError(
            f"{protocol.test_share:.0%} of {len(x)} rows are {held}: test, validation and training "
            "part need at least 2 rows each."
        )
    comm = Communicator.join(layout)
    own = share(protocol.splits, comm.size, comm.rank)
    found = torch.zeros(len(methods), protocol.splits, 3, dtype=torch.float64)
    done, total = 0, len(own) * len(methods)
    for split in own:
        generator = Key(protocol.seed).fold("split", split).generator()
        order = torch.randperm(len(x), generator=generator)
        test, rest = (x[order[:held]], y[order[:held]]), (x[order[held:]], y[order[held:]])
        for row, name in enumerate(methods):
            seed = Key(protocol.seed).fold("run", split).generator().initial_seed()
            found[row, split] = torch.tensor(
                _judge(METHODS[name], rest, test, held, protocol, seed), dtype=torch.float64
            )
            done += 1
            progress.report(done, total, samples=1)
    comm.sum(found)
    names = ("rmse", "log_likelihood", "gain")
    return {
        method: dict(zip(names, values.T.tolist(), strict=True))
        for method, values in zip(methods, found, strict=True)
    }


def summary(values: Sequence[float], overlap: float = 0.0) -> tuple[float, float]:
    r"""Mean over the splits, and its standard error.

    .. math:: \sqrt{\Big(\frac{1}{n} + \frac{n_\text{test}}{n_\text{train}}\Big) s^2}

    (Nadeau and Bengio 2003, the corrected resampled *t* test.) With the variance over n alone, as
    for independent values, the error would be too small: by a factor of 1.8 for 20 splits into
    90 % and 10 %.

    Args:
        values: one a split.
        overlap: test rows over training rows, ``Protocol.overlap``; 0 for independent values.

    Raises:
        ValueError: there are fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"A standard error needs at least 2 splits, and there is {len(values)}.")
    tensor = torch.tensor(values, dtype=torch.float64)
    error = math.sqrt((1 / len(values) + overlap) * tensor.var().item())
    return tensor.mean().item(), error


def _judge(
    method: Method,
    rest: Pair,
    test: Pair,
    held: int,
    protocol: Protocol,
    seed: int,
) -> tuple[float, float, float]:
    """Test error, log-likelihood and the chosen width of one split and method."""
    x, y = rest

    def scored(train_on: Pair, judge_on: Pair, gain: float) -> tuple[float, float]:
        inputs, targets = Scaling.of(train_on[0], over=(0,)), Scaling.of(train_on[1])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed % 2**31)
            hidden = [protocol.hidden] if method.hidden else []
            net = mlp([x.shape[1], *hidden, 1], torch.nn.ReLU)
        noise = Normal(dist.LogNormal(-0.5, 1.0))  # in units of the targets' spread
        model = BayesianModel(net, fan_in(gain), noise)
        data = inputs.apply(train_on[0]), targets.apply(train_on[1])
        posterior = method.train(model, data, protocol.epochs, seed)
        count = min(protocol.test_samples, posterior.num_draws or protocol.test_samples)
        pair = inputs.apply(judge_on[0]), targets.apply(judge_on[1])
        got = score(posterior, pair, num_samples=count, seed=seed)
        unit = float(targets.scale)
        return got["rmse"] * unit, -got["nll"] - math.log(unit)

    best = protocol.gains[0]
    if len(protocol.gains) > 1:
        parts = (x[held:], y[held:]), (x[:held], y[:held])
        best = max(protocol.gains, key=lambda gain: scored(*parts, gain)[1])
    return *scored(rest, test, best), best


def _table(x: Any, y: Any) -> Pair:
    x, y = torch.as_tensor(x).double(), torch.as_tensor(y).double()
    y = y.unsqueeze(1) if y.dim() == 1 else y
    if x.dim() != 2 or y.shape != (len(x), 1):
        raise ValueError(
            f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}: give a table [N, F] and its "
            "targets [N]."
        )
    return x, y
