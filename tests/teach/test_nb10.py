"""The checks of notebook 10: right answers pass, likely mistakes are named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spnb
from spnb.teach import check
from spnb.teach.checks import nb10


def said() -> str:
    return str(check.outcomes[-1])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda w, t, r: w * t / (1 - r), "✓"),
        (lambda w, t, r: w * t, "make up for the others"),
        (lambda w, t, r: w * t / r, "not by the rate"),
        (lambda w, t, r: w * (1 - t) / (1 - r), "1 means that a unit is there"),
        (lambda w, t, r: w * t * (1 - r), "is then the weight"),
        (lambda w, t, r: None, "return"),
        (lambda w, t, r: ..., "not attempted yet"),
    ],
)
def test_exercise_1(answer: Callable[[Tensor, Tensor, float], object], words: str) -> None:
    nb10.exercise_1(answer)
    assert words in said()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda w, g, e, n, z: w - e * g + (2 * e / n) ** 0.5 * z, "✓"),
        (lambda w, g, e, n, z: w - e * g, "noise is missing"),
        (lambda w, g, e, n, z: w - e * g + 2 * e / n * z, "take the root"),
        (lambda w, g, e, n, z: w - e * g + (2 * e) ** 0.5 * z, "divide by N"),
        (lambda w, g, e, n, z: w - e * g + (e / n) ** 0.5 * z, "*two* η / N"),
        (lambda w, g, e, n, z: w + e * g + (2 * e / n) ** 0.5 * z, "down the gradient"),
        (lambda w, g, e, n, z: ..., "not attempted yet"),
    ],
)
def test_exercise_2(answer: Callable[..., object], words: str) -> None:
    nb10.exercise_2(answer)
    assert words in said()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda z: z.softmax(-1).mean(0), "✓"),
        (lambda z: z.mean(0).softmax(-1), "averages the logits"),
        (lambda z: nn.functional.one_hot(z.argmax(-1), 4).double().mean(0), "votes"),
        (lambda z: z.softmax(0).mean(0), "over the classes"),
        (lambda z: z.softmax(-1).mean(1), "over the samples, dimension 0"),
        (lambda z: ..., "not attempted yet"),
    ],
)
def test_exercise_3(answer: Callable[[Tensor], object], words: str) -> None:
    nb10.exercise_3(answer)
    assert words in said()


class Own(spnb.Posterior):
    """One width for all weights, as in the notebook, with the noise that a subclass makes."""

    def __init__(self, model: spnb.BayesianModel) -> None:
        super().__init__(model)
        self.loc = nn.Parameter(model.flatten(model.drawn))
        self.log_width = nn.Parameter(self.loc.new_tensor(-3.0))

    def prepare(self) -> tuple[Tensor, Tensor]:
        return self.loc, self.log_width.exp()

    def noise(self, ids: Sequence[int], key: Any) -> Tensor:
        return torch.stack([self.normal(key.fold(s)) for s in ids])

    def normal(self, key: Any) -> Tensor:
        return torch.randn(len(self.loc), generator=key.generator(), dtype=self.loc.dtype)

    def draw(
        self, sample_ids: Sequence[int], key: Any, prepared: Sequence[Tensor] | None = None
    ) -> Tensor:
        loc, width = prepared or self.prepare()
        return loc + width * self.noise(sample_ids, key)

    def divergence(self, prepared: Sequence[Tensor], part: int = 0, parts: int = 1) -> Tensor:
        loc, width = prepared
        cross = self.cross_entropy.known(loc, (width**2).expand_as(loc), part, parts)
        return cross - len(loc) * width.log() / parts


class Open(Own):
    def draw(self, sample_ids: Any, key: Any, prepared: Any = None) -> Any:
        loc, width = prepared or self.prepare()
        return ...


class Keyless(Own):
    def noise(self, ids: Sequence[int], key: Any) -> Tensor:
        return torch.randn(len(ids), len(self.loc), dtype=self.loc.dtype)


class AllTheSame(Own):
    def noise(self, ids: Sequence[int], key: Any) -> Tensor:
        return torch.stack([self.normal(key) for _ in ids])


class ByPlace(Own):
    def noise(self, ids: Sequence[int], key: Any) -> Tensor:
        return torch.stack([self.normal(key.fold(place)) for place in range(len(ids))])


class Uniform(Own):
    def normal(self, key: Any) -> Tensor:
        return torch.rand(len(self.loc), generator=key.generator(), dtype=self.loc.dtype)


class Single(Own):
    def noise(self, ids: Sequence[int], key: Any) -> Tensor:
        return self.normal(key.fold(ids[0]))


class TakenTwice(Own):
    """Its divergence is counted on every rank in full."""

    def divergence(self, prepared: Sequence[Tensor], part: int = 0, parts: int = 1) -> Tensor:
        return super().divergence(prepared)


class NoEntropy(Own):
    def divergence(self, prepared: Sequence[Tensor], part: int = 0, parts: int = 1) -> Tensor:
        loc, width = prepared
        return self.cross_entropy.known(loc, (width**2).expand_as(loc), part, parts)


@pytest.fixture(scope="module")
def pool() -> Iterator[spnb.WorkerPool]:
    with spnb.WorkerPool(2) as pool:
        yield pool


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("method", "words"),
    [
        (Own, "✓"),
        (Open, "not attempted yet"),
        (Keyless, "asked twice"),
        (AllTheSame, "all samples are equal"),
        (ByPlace, "not its place in the list"),
        (Uniform, "standard normal noise has 0 and 1"),
        (Single, "where (3, 4) is wanted"),
        (TakenTwice, "two workers train to parameters that differ"),
        (NoEntropy, "the trained width"),
    ],
)
def test_exercise_4(method: type[spnb.Posterior], words: str, pool: spnb.WorkerPool) -> None:
    nb10.exercise_4(method, pool)
    assert words in said()
