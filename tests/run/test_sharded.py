"""Ranks that share out the parameters compute the same gradients and the same run."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import spnb
from spnb.maths.posteriors import noise
from spnb.maths.posteriors.cross_entropy import bounds
from spnb.parallel.collectives import Communicator
from spnb.run.loop import Loop
from spnb.run.optimizer import adam
from spnb.run.setup import begin
from tests.methods import METHODS
from tests.run.problems import OBJECTIVES, OF_REALS, Attention, mlp, problem, relative

PoolOf = Callable[[int], spnb.WorkerPool]
LAYOUTS = [(1, 1, 2), (2, 1, 2), (1, 2, 2), (1, 1, 3)]
METHODS_OF_PIECES = [n for n, make in METHODS.items() if make(problem()[0].model).elementwise]


def test_the_readme_names_the_methods_that_can_be_shared_out() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    sentence = re.search(r"by itself can be shared out: (.*)\.\n", readme)
    assert sentence and {*re.findall(r"`(\w+)`", sentence[1])} == {*METHODS_OF_PIECES} & {
        *dir(spnb)
    }


def mixed(name: str, parameter: nn.Parameter) -> Any:
    """Normal, known in closed form, only known by samples, and none at all."""
    if name == "0.weight":
        scales = torch.linspace(0.5, 2.0, parameter.numel(), dtype=parameter.dtype)
        return dist.Normal(0.1, scales.view(parameter.shape)).to_event()
    kinds = {"0.bias": dist.Laplace(0.0, 1.0), "2.weight": dist.StudentT(4.0, 0.0, 1.0)}
    return kinds.get(name)


def cases() -> list[tuple[str, Any, int, Any]]:
    every = list(itertools.product(OBJECTIVES, (mlp, Attention), (5,), (None,)))
    return [*every, ("ELBO", mlp, 4, mixed), ("PredictiveNLL", mlp, 2, mixed)]


def all_gradients(layout: spnb.Layout | None) -> list[dict[str, Tensor]]:
    found = []
    for name, net, S, prior in cases():
        likelihood = "normal" if name in OF_REALS else "categorical"
        posterior, data = problem(25, net=net, likelihood=likelihood, prior=prior)
        options: dict[str, Any] = dict(num_samples=S, seed=3, step=7, layout=layout)
        found.append(spnb.gradients(posterior, data, objective=OBJECTIVES[name](), **options))
    return found


@pytest.mark.parametrize("degrees", LAYOUTS)
def test_gradients_equal_serial(pool_of: PoolOf, degrees: tuple[int, int, int]) -> None:
    layout = spnb.Layout(*degrees)
    expected = all_gradients(None)
    for found in pool_of(layout.size).run(all_gradients, layout):
        for case, one, other in zip(cases(), found, expected, strict=True):
            assert relative(one, other) <= 1e-12, case


class OneScale(spnb.Posterior):
    """Normals whose scale is the same for all weights, so every rank holds it."""

    undecayed, elementwise, common = ("rho",), True, ("point", "rho")

    def __init__(self, model: spnb.BayesianModel) -> None:
        super().__init__(model)
        self.loc = nn.Parameter(model.flatten(model.drawn))
        self.rho = nn.Parameter(self.loc.new_full((1,), -2.0))

    def prepare(self) -> tuple[Tensor, Tensor]:
        return self.loc, nn.functional.softplus(self.rho)

    def draw(
        self, sample_ids: Sequence[int], key: spnb.Key, prepared: Sequence[Tensor] | None = None
    ) -> Tensor:
        loc, scale = self.prepare() if prepared is None else prepared
        return loc + scale * noise.draw(sample_ids, key, loc, False, self.window)

    def divergence(self, prepared: Sequence[Tensor], part: int = 0, parts: int = 1) -> Tensor:
        loc, scale = prepared[0], prepared[1].expand_as(prepared[0])
        start, stop = bounds(len(loc), part, parts)
        known = self.cross_entropy.known(loc, scale.square(), part, parts)
        return known - scale[start:stop].log().sum()


def train(layout: spnb.Layout | None, method: str, **changes: Any) -> spnb.Fitted:
    start, (x, y) = problem(25, prior=mixed if method in ("MeanField", "Point") else None)
    posterior = (METHODS | {"OneScale": OneScale})[method](start.model)
    S = {} if posterior.draws_in_training else {"num_samples": 4}
    settings: dict[str, Any] = dict(batch_size=10, epochs=7, learning_rate=0.02, clip_norm=0.5)
    settings |= {"validation": (x[:9], y[:9]), **S, **changes}
    return spnb.fit(posterior, (x, y), layout=layout, **settings)


@pytest.mark.parametrize("method", [*METHODS_OF_PIECES, "OneScale"])
def test_trained_posteriors_equal_serial(pool_of: PoolOf, method: str) -> None:
    serial = train(None, method)
    more = [(1, 2, 2), (2, 1, 2)] if method == "MeanField" else []
    for degrees in [(1, 1, 2), *more]:
        layout = spnb.Layout(*degrees)
        for found in pool_of(layout.size).run(train, layout, method):
            for name, expected in serial.posterior.state_dict().items():
                own = found.posterior.state_dict()[name]
                torch.testing.assert_close(own, expected, rtol=0, atol=1e-9)
            for own, other in zip(found.history.steps, serial.history.steps, strict=True):
                assert abs(own.loss - other.loss) < 1e-9
                assert abs(own.gradient_norm - other.gradient_norm) < 1e-9
            for own, other in zip(found.history.epochs, serial.history.epochs, strict=True):
                assert own.scores == pytest.approx(other.scores, abs=1e-9)


def stop_and_go(folder: Any, first: bool, layout: spnb.Layout | None) -> spnb.Fitted:
    epochs = 3 if first else 7
    return train(layout, "MeanField", checkpoints=folder, resume=True, epochs=epochs)


def test_a_run_is_taken_up_with_and_without_shards(pool_of: PoolOf, tmp_path: Any) -> None:
    serial = train(None, "MeanField")
    sharded, plain = spnb.Layout(shard=2), spnb.Layout(sample=2)
    for name, (begun, ended) in {"a": (plain, sharded), "b": (sharded, plain)}.items():
        pool_of(2).run(stop_and_go, tmp_path / name, True, begun)
        found = pool_of(2).run(stop_and_go, tmp_path / name, False, ended)[0]
        loc = serial.posterior.state_dict()["loc"]
        torch.testing.assert_close(found.posterior.state_dict()["loc"], loc, rtol=0, atol=1e-9)
        assert len(found.history.loss) == len(serial.history.loss)
    alone = train(None, "MeanField", checkpoints=tmp_path / "b", resume=True)
    torch.testing.assert_close(
        alone.posterior.state_dict()["loc"], found.posterior.state_dict()["loc"], rtol=0, atol=0
    )


def kept(layout: spnb.Layout) -> tuple[int, int]:
    """Numbers that a rank keeps: posterior with gradients, and the optimiser's, after a step."""
    start, data = problem(24)
    work, x, y = begin(start, data, None, layout, 4, seed=0)
    optimizer = adam(work.posterior, 0.1)
    Loop(work, optimizer).step(x, y)
    own = sum(2 * p.numel() for p in work.posterior.parameters())
    states = [v for s in optimizer.state.values() for v in s.values() if v.dim()]
    return own, sum(v.numel() for v in states)


def test_each_rank_keeps_its_share(pool_of: PoolOf) -> None:
    P = sum(site.size for site in problem()[0].model.drawn)
    for size in (2, 3):
        found = pool_of(size).run(kept, spnb.Layout(shard=size))
        assert all(own <= 4 * (P // size + 1) and state == own for own, state in found)
        assert sum(own for own, _ in found) == 4 * P


def nan_on_one(layout: spnb.Layout) -> None:
    posterior, (x, y) = problem(24)
    with torch.no_grad():
        posterior.rho[-1] = float("nan")  # the last weight's, in the last rank's window
    spnb.fit(posterior, (x, y), layout=layout, num_samples=2)


def test_troubles_are_told_to_all(pool_of: PoolOf) -> None:
    with pytest.raises(FloatingPointError, match=r"Step 0, rank 1: '2.bias' \(rho\) is no longer"):
        pool_of(2).run(nan_on_one, spnb.Layout(shard=2))


def wrong(layout: spnb.Layout, method: str, prior: Any = None, **changes: Any) -> None:
    start, data = problem(24, prior=prior)
    spnb.fit(METHODS[method](start.model), data, layout=layout, **changes)


def correlated(name: str, parameter: nn.Parameter) -> Any:
    n, like = parameter.numel(), parameter.detach()
    eye = torch.eye(n).to(like)
    return (
        dist.MultivariateNormal(torch.zeros(n).to(like), eye)
        if parameter.dim() == 1
        else (dist.Normal(0.0, 1.0))
    )


def test_what_cannot_be_shared_out_is_refused(pool_of: PoolOf) -> None:
    layout = spnb.Layout(shard=2)
    with pytest.raises(TypeError, match="LowRank does not draw each weight by itself"):
        pool_of(2).run(wrong, layout, "LowRank")
    with pytest.raises(TypeError, match="Ensemble does not draw"):
        pool_of(2).run(wrong, layout, "Ensemble")
    with pytest.raises(ValueError, match="one sample is evaluated at a time"):
        pool_of(2).run(wrong, layout, "MeanField", samples_in_flight=2)
    with pytest.raises(ValueError, match=r"'0.bias', a MultivariateNormal, cannot be cut"):
        pool_of(2).run(wrong, layout, "MeanField", correlated)
    with pytest.raises(ValueError, match="2 ranks along data and shard but only 1 row: 1"):
        pool_of(2).run(wrong, layout, "MeanField", batch_size=1)


def windows(layout: spnb.Layout) -> tuple[list[float], list[float], dict[str, int]]:
    comm = Communicator.join(layout).along("shard")
    flat = torch.zeros(3 * comm.size)
    flat.view(comm.size, 3)[comm.rank] = comm.rank + 1.0
    comm.gather_windows(flat)
    own = comm.sum_windows(torch.arange(3.0 * comm.size) * (comm.rank + 1))
    return flat.tolist(), own.tolist(), {name: t.bytes for name, t in comm.traffic.items()}


def test_windows_are_gathered_and_summed(pool_of: PoolOf) -> None:
    for size in (2, 3):  # in shared memory, and by gloo where there are fewer cores
        total = size * (size + 1) / 2
        for rank, (flat, own, sent) in enumerate(
            pool_of(size).run(windows, spnb.Layout(shard=size))
        ):
            assert flat == [r + 1.0 for r in range(size) for _ in range(3)]
            assert own == [total * (3 * rank + i) for i in range(3)]
            assert sent == {"all_gather": 12, "reduce_scatter": 12 * size}
