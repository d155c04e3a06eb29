"""The checks of notebook 10: right answers pass, likely mistakes are named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spnb
from spnb.teach.checks import nb10
from tests.teach.judged import found


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda w, t, r: w * t / (1 - r), "right"),
        (lambda w, t, r: w * t, "not-rescaled"),
        (lambda w, t, r: w * t / r, "divided-by-rate"),
        (lambda w, t, r: w * (1 - t) / (1 - r), "inverted-mask"),
        (lambda w, t, r: w * t * (1 - r), "multiplied-not-divided"),
        (lambda w, t, r: None, "no-return"),
        (lambda w, t, r: ..., "open"),
    ],
)
def test_exercise_1(answer: Callable[[Tensor, Tensor, float], object], expected: str) -> None:
    nb10.exercise_1(answer)
    assert found() == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda w, g, e, n, z: w - e * g + (2 * e / n) ** 0.5 * z, "right"),
        (lambda w, g, e, n, z: w - e * g, "noise-missing"),
        (lambda w, g, e, n, z: w - e * g + 2 * e / n * z, "no-square-root"),
        (lambda w, g, e, n, z: w - e * g + (2 * e) ** 0.5 * z, "not-divided-by-n"),
        (lambda w, g, e, n, z: w - e * g + (e / n) ** 0.5 * z, "factor-two-missing"),
        (lambda w, g, e, n, z: w + e * g + (2 * e / n) ** 0.5 * z, "uphill"),
        (lambda w, g, e, n, z: ..., "open"),
    ],
)
def test_exercise_2(answer: Callable[..., object], expected: str) -> None:
    nb10.exercise_2(answer)
    assert found() == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda z: z.softmax(-1).mean(0), "right"),
        (lambda z: z.mean(0).softmax(-1), "mean-of-logits"),
        (lambda z: nn.functional.one_hot(z.argmax(-1), 4).double().mean(0), "votes"),
        (lambda z: z.softmax(0).mean(0), "softmax-over-samples"),
        (lambda z: z.softmax(-1).mean(1), "wrong-dimension"),
        (lambda z: ..., "open"),
    ],
)
def test_exercise_3(answer: Callable[[Tensor], object], expected: str) -> None:
    nb10.exercise_3(answer)
    assert found() == expected


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


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (Own, "right"),
        (Open, "open"),
        (Keyless, "noise-not-from-key"),
        (AllTheSame, "equal-samples"),
        (ByPlace, "place-not-number"),
        (Uniform, "not-standard-normal"),
        (Single, "shape-of-draws"),
        (TakenTwice, "layouts-differ"),
        (NoEntropy, "value"),
    ],
)
def test_exercise_4(method: type[spnb.Posterior], expected: str, pool: spnb.WorkerPool) -> None:
    nb10.exercise_4(method, pool)
    assert found() == expected
