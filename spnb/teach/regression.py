"""The standard benchmark of Bayesian regression: many random splits of one table, many methods.

After Hernández-Lobato and Adams (arXiv 1502.05336, section 5): some random splits into 90 % of the
rows to train on and 10 % to test on, inputs and targets standardised by the training part, one
hidden layer of 50 rectified units. Mean and standard error over the splits of the root mean squared
error and of the log-likelihood of a test row, in the units of the table. What has to be chosen, the
width of the prior, is chosen for each split and method by a validation part of its training rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Method:
    """How a method is trained.

    Attributes:
        make: from a model to the posterior to train.
        options: of `spnb.fit`, besides those of the protocol.
    """

    make: Callable[[BayesianModel], Posterior]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, model: BayesianModel, data: Pair, epochs: int, seed: int) -> Posterior:
        """Train it."""
        usual: dict[str, Any] = {"batch_size": 64, "learning_rate": 0.01, "schedule": "cosine"}
        options = usual | dict(self.options)
        return fit(self.make(model), data, epochs=epochs, seed=seed, **options).posterior


def _nuts(model: BayesianModel, data: Pair, epochs: int, seed: int) -> Posterior:
    """Pyro's NUTS with as many steps as others have epochs, half of them to adapt."""
    half = max(4, epochs // 2)
    chains = nuts(
        model, data, num_chains=1, num_samples=half, warmup=half, seed=seed, max_tree_depth=6
    )
    return chains.posterior


def _linear(model: BayesianModel, data: Pair, epochs: int, seed: int) -> Posterior:
    """A linear model in place of the network, with its exact posterior, for Laplace's is exact."""
    net = torch.nn.Linear(data[0].shape[1], 1)
    torch.nn.init.zeros_(net.weight)
    torch.nn.init.zeros_(net.bias)
    exact = Method(lambda m: posteriors.Laplace(m, "full"))
    return exact(BayesianModel(net, fan_in(), model.likelihood), data, epochs, seed)


SEVERAL = {"num_samples": 4, "samples_in_flight": 4}

METHODS: dict[str, Callable[[BayesianModel, Pair, int, int], Posterior]] = {
    "linear": _linear,
    "point": Method(posteriors.Point),
    "mean field": Method(lambda m: posteriors.MeanField(m, antithetic=True), SEVERAL),
    "low rank": Method(lambda m: posteriors.LowRank(m, antithetic=True), SEVERAL),
    "MC dropout": Method(lambda m: posteriors.MCDropout(m, rate=0.05), SEVERAL),
    "ensemble": Method(lambda m: posteriors.Ensemble(m, size=5), {"samples_in_flight": 5}),
    "SWAG": Method(posteriors.SWAG, {"schedule": "constant"}),
    "Laplace, last layer": Method(lambda m: posteriors.Laplace(m, "full", "last")),
    "SG-MCMC": Method(
        lambda m: posteriors.SGMCMC(m, chains=4, cycles=2, keep=8),
        {"schedule": "constant", "samples_in_flight": 4},
    ),
    "NUTS": _nuts,
}
"""Ways to a trained posterior: ``(model, (x, y), epochs, seed) -> posterior``."""


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
    held = round(protocol.test_share * len(x))
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


def summary(values: Sequence[float]) -> tuple[float, float]:
    """Mean over the splits and its standard error (0 for one split)."""
    tensor = torch.tensor(values, dtype=torch.float64)
    spread = tensor.std().item() if len(values) > 1 else 0.0
    return tensor.mean().item(), spread / math.sqrt(len(values))


def _judge(
    train: Callable[[BayesianModel, Pair, int, int], Posterior],
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
            net = mlp([x.shape[1], protocol.hidden, 1], torch.nn.ReLU)
        noise = Normal(dist.LogNormal(-0.5, 1.0))  # in units of the targets' spread
        model = BayesianModel(net, fan_in(gain), noise)
        data = inputs.apply(train_on[0]), targets.apply(train_on[1])
        posterior = train(model, data, protocol.epochs, seed)
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
