"""A run goes on as what it was: all that decides about it is compared, and nothing else is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, StepLR

import spnb
from spnb.maths import augmentations
from spnb.run import checkpoint, files, identity

PoolOf = Callable[[int], spnb.WorkerPool]
NOISE = 0.5
"""A global that a likelihood reads."""


class Shifted(nn.Module):
    """A net with all that a module can hold: settings, buffers, a frozen layer, code of its own."""

    def __init__(self, slope: float = 0.2, mean: float = 0.0, frozen: float = 1.0) -> None:
        super().__init__()
        self.slope = slope
        self.options = {"anything": slope}
        self.register_buffer("mean", torch.tensor([mean, 1.0]))
        self.scale = nn.Parameter(torch.tensor(frozen), requires_grad=False)
        self.body = nn.Sequential(nn.Linear(2, 4), nn.LeakyReLU(0.1), nn.Linear(4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.body(x - self.mean) + self.slope


class Squared(Shifted):
    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.body(x - self.mean).square() + self.slope


Squared.__qualname__ = Squared.__name__ = "Shifted"  # the same, but for its code


def with_slope(slope: float) -> nn.Module:
    net = Shifted()
    net.body[1] = nn.LeakyReLU(slope)
    return net


class Jitter:
    """An augmentation without words of its own."""

    def __init__(self, size: float) -> None:
        self.size = size

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return x + self.size * torch.randn(x.shape, generator=generator)


class Named(Jitter):
    def __init__(self, size: float, calls: int = 0) -> None:
        super().__init__(size)
        self.calls = calls

    def __repr__(self) -> str:
        return f"Named({self.size})"


class Drawing(Jitter):
    """It keeps a generator of its own, which nothing can compare."""

    def __init__(self, size: float) -> None:
        super().__init__(size)
        self.generator = torch.Generator()


def noisy(scale: float) -> Callable[[Tensor], Any]:
    return lambda predictions: dist.Normal(predictions, scale)


def by_a_global(predictions: Tensor) -> Any:
    return dist.Normal(predictions, NOISE)


def squares(predictions: Tensor, targets: Tensor) -> Tensor:
    return (predictions - targets).square().mean(0).flatten(1).sum(1)


def lengths(predictions: Tensor, targets: Tensor) -> Tensor:
    return (predictions - targets).abs().mean(0).flatten(1).sum(1)


def on_the_bias(scale: float) -> spnb.priors.Prior:
    return lambda name, parameter: dist.Normal(0.0, scale if name == "body.2.bias" else 1.0)


def training(folder: Path | None, **changes: Any) -> spnb.Fitted:
    """A short run of which everything can be changed."""
    torch.manual_seed(changes.pop("start", 0))
    net = changes.pop("net", Shifted)()
    data = [torch.linspace(-1, 1, 20).view(10, 2), torch.linspace(0, 1, 10).view(10, 1)]
    likelihood = changes.pop("likelihood", spnb.likelihoods.Normal(0.5))
    model = spnb.BayesianModel(net, prior=changes.pop("prior", None), likelihood=likelihood)
    posterior = changes.pop("method", spnb.MeanField)(model)
    settings: dict[str, Any] = {"batch_size": 5, "epochs": 3, "num_samples": 2, **changes}
    if posterior.draws_in_training is not None:
        del settings["num_samples"]
    return spnb.fit(posterior, data, checkpoints=folder, **settings)


def changed(name: str, one: Any, other: Any, words: str, **more: Any) -> Any:
    return pytest.param({name: one, **more}, {name: other, **more}, words, id=f"{name}: {words}")


@pytest.mark.parametrize(
    ("there", "here", "words"),
    [
        changed("prior", dist.Normal(0.0, 1.0), dist.Normal(0.0, 9.0), "scale=1.0 there, 9.0 here"),
        changed("prior", dist.Normal(0.0, 1.0), dist.Laplace(0.0, 1.0), "pyro.Laplace here"),
        changed("prior", None, on_the_bias(2.0), r"prior\['body.2.bias'\].scale=1.0 there, 2.0"),
        changed(
            "prior",
            spnb.priors.scale_mixture(),
            spnb.priors.scale_mixture(wide=2.0),
            "component_distribution.scale has other values",
        ),
        changed("likelihood", noisy(0.5), noisy(0.1), "likelihood.function.scale=0.5 there, 0.1"),
        changed("likelihood", noisy(0.5), by_a_global, "likelihood.function has other code"),
        changed(
            "likelihood",
            spnb.likelihoods.Normal(0.5),
            spnb.likelihoods.Normal(0.1),
            "likelihood.known=0.5 there, 0.1 here",
        ),
        changed(
            "likelihood",
            spnb.likelihoods.Normal(dist.LogNormal(0.0, 1.0)),
            spnb.likelihoods.Normal(dist.LogNormal(0.0, 2.0)),
            "scale=1.0 there, 2.0 here",
        ),
        changed(
            "objective",
            spnb.AlphaDivergence(0.5),
            spnb.AlphaDivergence(0.9),
            "objective.alpha=0.5 there, 0.9 here",
        ),
        changed(
            "objective",
            spnb.PlainAveraging(spnb.AlphaDivergence(0.5)),
            spnb.PlainAveraging(spnb.AlphaDivergence(0.9)),
            "objective.objective.alpha=0.5 there, 0.9 here",
        ),
        changed(
            "objective",
            spnb.Objective(squares),
            spnb.Objective(lengths),
            "objective.function has other code",
        ),
        changed("net", Shifted, partial(Shifted, slope=0.3), "network.slope=0.2 there, 0.3 here"),
        changed("net", Shifted, partial(Shifted, mean=0.1), "network.mean has other values"),
        changed("net", Shifted, partial(Shifted, frozen=2.0), "network.scale has other values"),
        changed("net", Shifted, Squared, "Shifted.forward has other code"),
        changed("net", Shifted, partial(with_slope, 0.3), r"body\[1\]|body.*negative_slope=0.1"),
        changed(
            "method",
            partial(spnb.MCDropout, rate=0.1),
            partial(spnb.MCDropout, rate=0.5),
            "rate.*=0.1 there, 0.5 here",
        ),
        changed(
            "method",
            partial(spnb.SGMCMC, chains=2, cycles=1, keep=2, friction=0.1),
            partial(spnb.SGMCMC, chains=2, cycles=1, keep=2, friction=0.5),
            "method.friction=0.1 there, 0.5 here",
        ),
        changed(
            "method",
            spnb.MeanField,
            partial(spnb.MeanField, antithetic=True),
            "method.antithetic=False there, True here",
        ),
        changed(
            "optimizer",
            lambda q: torch.optim.SGD(q.parameters(), 0.1, momentum=0.5),
            lambda q: torch.optim.SGD(q.parameters(), 0.1, momentum=0.9),
            "momentum=0.5 there, 0.9 here",
        ),
        changed(
            "optimizer",
            lambda q: torch.optim.SGD([q.loc, q.rho], 0.1),
            lambda q: torch.optim.SGD([q.rho, q.loc], 0.1),
            "parameters.*=loc there, rho here",
        ),
        changed(
            "optimizer",
            lambda q: torch.optim.Adam(q.parameters(), 0.1),
            lambda q: torch.optim.RMSprop(q.parameters(), 0.1),
            r"optimizer=torch.Adam there, torch.RMSprop here\.",
        ),
        changed(
            "schedule",
            lambda optimizer, steps: StepLR(optimizer, 2, gamma=0.5),
            lambda optimizer, steps: StepLR(optimizer, 2, gamma=0.9),
            "schedule.gamma=0.5 there, 0.9 here",
        ),
        changed(
            "schedule",
            lambda optimizer, steps: LambdaLR(optimizer, lambda step: 1 / (step + 1)),
            lambda optimizer, steps: LambdaLR(optimizer, lambda step: 1 / (step + 2)),
            r"schedule.lr_lambdas\[0\] has other code",
        ),
        changed("schedule", "cosine", "constant", "schedule=torch.CosineAnnealingLR there"),
        changed("augment", Jitter(0.1), Jitter(0.2), "augment.size=0.1 there, 0.2 here"),
        changed(
            "augment", Named(0.1), Named(0.2), r"augment=Named\(0.1\) there, Named\(0.2\) here"
        ),
        changed(
            "augment",
            augmentations.Chain(Jitter(0.1)),
            augmentations.Chain(Jitter(0.2)),
            r"augment.steps\[0\].size=0.1 there, 0.2 here",
        ),
        changed("augment", None, Jitter(0.2), "augment=None there, Jitter here"),
    ],
)
def test_under_another_model_or_method_no_run_goes_on(
    tmp_path: Path, there: dict[str, Any], here: dict[str, Any], words: str
) -> None:
    training(tmp_path, **there)
    with pytest.raises(ValueError, match=f"belongs to another run: .*{words}"):
        training(tmp_path, resume=True, **here)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        training(tmp_path, resume=True, **there, start=1)  # where the net begins does not matter


def test_a_global_of_a_likelihood_is_a_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training(tmp_path, likelihood=by_a_global)
    monkeypatch.setattr(sys.modules[__name__], "NOISE", 0.1)
    with pytest.raises(ValueError, match=r"likelihood.function.NOISE=0.5 there, 0.1 here"):
        training(tmp_path, likelihood=by_a_global, resume=True)


def test_what_cannot_be_compared_is_named_once(tmp_path: Path) -> None:
    training(tmp_path / "a", augment=Drawing(0.1), objective=spnb.Objective(squares))
    with pytest.warns(UserWarning) as seen:
        training(
            tmp_path / "a", augment=Drawing(0.1), objective=spnb.Objective(squares), resume=True
        )
    (warning,) = seen
    assert re.search(r"cannot tell: augment\.generator\. See", str(warning.message))
    training(tmp_path / "b", augment=Named(0.1, calls=0))
    with pytest.warns(UserWarning, match=r"cannot tell: augment\.calls\. See"):
        training(tmp_path / "b", augment=Named(0.1, calls=7), resume=True)


def test_rounding_is_no_other_run(tmp_path: Path) -> None:
    """The mean of some data depends in its last digits on how many threads have added it up."""
    training(tmp_path, net=partial(Shifted, mean=0.1, slope=0.3))
    with pytest.warns(
        UserWarning, match=r"tell: network\.slope, network\.options\S+, network\.mean\. See"
    ):
        training(tmp_path, net=partial(Shifted, mean=0.1 + 3e-8, slope=0.3 + 1e-12), resume=True)


SCRIPT = """
import sys, torch, spnb
import pyro.distributions as dist
from torch import nn
SCALE, NAMES = 0.3, {"body", "head", "neck", "tail", "foot"}
def helper(x): return x * SCALE
class Net(nn.Module):
    kinds = frozenset(NAMES)
    def __init__(self):
        super().__init__()
        self.names, self.device = set(NAMES), torch.device("cpu")
        self.body = nn.LSTM(2, 3, batch_first=True)
        self.head = nn.Linear(3, 1)
    def forward(self, x):
        if "body" in {"body", "neck", "tail"}:
            return self.head(self.body(x.unsqueeze(1))[0][:, 0])
        return super().forward(x)
def prior(name, parameter): return dist.Normal(0.0, SCALE if name in NAMES else 2 * SCALE)
def likelihood(predictions, noise=SCALE): return dist.Normal(helper(predictions), noise)
class Augment:
    def __init__(self): self.names = NAMES | {"hand"}
    def __call__(self, x, generator): return x
model = spnb.BayesianModel(Net(), prior=prior, likelihood=likelihood)
kinds = {"a": lambda p, y: (p - y).square().mean(0).flatten(1).sum(1)}
objective = spnb.Objective(lambda p, y: kinds["a"](p, y))
fitted = spnb.fit(
    spnb.MeanField(model), (torch.ones(6, 2), torch.ones(6, 1)), epochs=int(sys.argv[1]),
    objective=objective, augment=Augment(), num_samples=2, resume=True, checkpoints="folder",
    schedule=lambda optimizer, steps: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: 0.9),
)
print(len(fitted.history.epochs))
"""


def test_another_process_goes_on(tmp_path: Path) -> None:
    """With other hashes, under another name, with comments: what the run does is the same."""
    for seed, name, head, epochs in [("1", "a.py", "", 2), ("2", "b.py", "# longer\n\n", 3)]:
        (tmp_path / name).write_text(head + SCRIPT)
        found = subprocess.run(
            [sys.executable, "-W", "error::UserWarning", name, str(epochs)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert found.stdout.split() == [str(epochs)], found.stderr


def test_the_same_text_by_another_hash_seed() -> None:
    code = (
        "from spnb.run import identity; from tests.run import test_decisive as t; "
        "print(identity.describe(net=t.Shifted(), f=t.training, s={'a', 'b', 'c', 'd', 'e'}, "
        "k=t.Squared, j=t.Jitter(0.1), n=t.noisy(0.1)))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    (text,) = texts
    assert json.loads(text)["unknown"] == []
    assert not re.search(r"0x[0-9a-f]{6}|/tests/|\.py\b", text)


def test_other_bytecode_is_no_other_code(tmp_path: Path) -> None:
    """Each version of Python compiles in its own way."""
    here = identity.describe(f=squares, slope=0.1)
    there = {**json.loads(identity.describe(f=lengths, slope=0.1)), "python": "3.99"}
    differ, doubts = identity.compare(json.dumps(there), here)
    assert differ == {} and len(doubts) == 1 and doubts[0].startswith("code (of Python 3.99 there")


@pytest.mark.pool
def test_any_layout_goes_on_and_plain_averaging_in_its_groups_alone(
    pool_of: PoolOf, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"likelihood": noisy(0.5), "schedule": "constant"}
    whole = training(None, epochs=4, **settings)
    pool_of(2).run(training, tmp_path / "a", layout=spnb.Layout(2, 1), **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = training(tmp_path / "a", epochs=4, resume=True, **settings)
    assert again.history.loss == pytest.approx(whole.history.loss, abs=1e-5)
    settings["objective"] = spnb.PlainAveraging(spnb.PredictiveNLL())
    pool_of(2).run(training, tmp_path / "b", layout=spnb.Layout(2, 1), **settings)
    with pytest.raises(ValueError, match="sample_groups=2 there, 1 here"):
        pool_of(2).run(training, tmp_path / "b", layout=spnb.Layout(1, 2), resume=True, **settings)


def old(path: Path) -> None:
    """Make a checkpoint one of the first version, which described settings by their names alone."""
    tensors, about = checkpoint.load(path)
    for name in ("model", "made_of", "validation"):
        about.pop(name, None)
    if "SGMCMC" in about["method"]:
        about["options"] = json.dumps({"chains": 2, "cycles": 1, "keep": 2})
    files.write(path, tensors, {"format": "spnb checkpoint", "version": "1", **about})


@pytest.mark.parametrize(
    "method",
    [
        spnb.MeanField,
        partial(spnb.SGMCMC, chains=2, cycles=1, keep=2),
        partial(spnb.LowRank, rank=2),
    ],
)
def test_old_checkpoints_go_on(tmp_path: Path, method: Any) -> None:
    whole = training(tmp_path, method=method)
    old(spnb.Checkpoints(tmp_path).file(4))
    with pytest.warns(UserWarning, match="written by an earlier version") as seen:
        again = training(tmp_path, method=method, resume=spnb.Checkpoints(tmp_path).file(4))
    assert len(seen) == 1 and again.history.loss == whole.history.loss
    old(spnb.Checkpoints(tmp_path).file(4))
    with pytest.raises(ValueError, match="learning_rate=0.001 there, 0.1 here"):
        training(
            tmp_path, method=method, resume=spnb.Checkpoints(tmp_path).file(4), learning_rate=0.1
        )


def test_a_longer_run_says_what_looks_ahead_and_how_to_start_anew(tmp_path: Path) -> None:
    swag = partial(spnb.SWAG, iterates=2)
    for number, (settings, words) in enumerate(
        [
            ({"schedule": "cosine"}, r"schedule='cosine' looks ahead"),
            ({"warmup_steps": 0.5}, r"warmup_steps=0.5, a share of the run, looks ahead"),
            (
                {"schedule": "cosine", "warmup_steps": 0.5},
                "warmup_steps=0.5, a share of the run, and schedule='cosine' look ahead",
            ),
            ({"method": swag}, "SWAG looks ahead"),
            (
                {"schedule": lambda o, steps: LambdaLR(o, lambda step: 1 - step / steps)},
                "schedule='.*lambda.*' looks ahead",
            ),
        ]
    ):
        folder = tmp_path / str(number)
        training(folder, **settings)
        with pytest.raises(ValueError, match=f"epochs=3 there, 5 here, and {words}") as error:
            training(folder, epochs=5, resume=True, **settings)
        advice = re.search(r"spnb\.fit\(spnb\.load\('(.*)', model\), \.\.\.\)", str(error.value))
        assert advice is not None
        model = spnb.BayesianModel(Shifted(), likelihood=spnb.likelihoods.Normal(0.5))
        start = spnb.load(advice[1], model)
        reached, _ = checkpoint.load(advice[1])
        assert torch.equal(start.get_parameter("loc"), reached["posterior/loc"])
        data = (torch.ones(10, 2), torch.ones(10, 1))
        assert spnb.fit(start, data, epochs=8, checkpoints=tmp_path / f"new {number}").history.loss


def test_a_longer_run_goes_on_where_its_schedule_does_not_look_ahead(tmp_path: Path) -> None:
    def steps(optimizer: torch.optim.Optimizer, total: int) -> StepLR:
        return StepLR(optimizer, 4, gamma=0.5)

    straight = training(None, epochs=5, schedule=steps, warmup_steps=3)
    training(tmp_path, schedule=steps, warmup_steps=3)
    again = training(tmp_path, epochs=5, schedule=steps, warmup_steps=3, resume=True)
    assert again.history.loss == straight.history.loss
    with pytest.raises(ValueError, match=r"another run: epochs=5 there, 3 here\. Give"):
        training(tmp_path, schedule=steps, warmup_steps=3, resume=True)
    with pytest.raises(ValueError, match="schedule=torch.SequentialLR there, torch.StepLR here"):
        training(tmp_path, epochs=6, schedule=steps, resume=True)
