"""The equivalence lamp: lit without a mistake, dark with each, on live ranks and without."""

from __future__ import annotations

import pytest
import torch

import spnb
from spnb.teach.explore.lamp import equivalence_lamp
from spnb.teach.mistakes import MISTAKES, measure

Data = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture(scope="module")
def case() -> tuple[spnb.MeanField, Data]:
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
    posterior = spnb.MeanField(spnb.BayesianModel(net.double()), init_scale=0.1)
    return posterior, (torch.randn(20, 5, dtype=torch.float64), torch.randint(0, 3, (20,)))


@pytest.mark.parametrize("ranks", [1, 2, 3, 6])
@pytest.mark.parametrize("num_samples", [2, 7, 12])
def test_lit_without_a_mistake(
    case: tuple[spnb.MeanField, Data], ranks: int, num_samples: int
) -> None:
    reading = measure(*case, ranks=ranks, num_samples=num_samples)
    assert reading.equal and reading.difference < 1e-15


@pytest.mark.parametrize("mistake", MISTAKES)
def test_dark_with_each_mistake(case: tuple[spnb.MeanField, Data], mistake: str) -> None:
    reading = measure(*case, ranks=2, num_samples=7, mistakes=[mistake])
    assert not reading.equal and reading.difference > 1e-4


@pytest.mark.parametrize("mistake", [name for name in MISTAKES if name != "lost"])
def test_one_rank_cannot_make_them(case: tuple[spnb.MeanField, Data], mistake: str) -> None:
    assert measure(*case, ranks=1, num_samples=6, mistakes=[mistake]).equal


def test_what_the_mistakes_do(case: tuple[spnb.MeanField, Data]) -> None:
    both = measure(*case, ranks=2, num_samples=8, mistakes=["sum_for_mean", "kl_twice"])
    assert torch.allclose(both.parallel, 2 * both.serial)
    assert measure(*case, ranks=2, num_samples=8, mistakes=["lost"]).equal
    fewer = measure(*case, ranks=2, num_samples=6)
    lost = measure(*case, ranks=2, num_samples=7, mistakes=["lost"])
    assert torch.allclose(lost.parallel, fewer.serial)
    doubled = measure(*case, ranks=2, num_samples=8, mistakes=["same_seed"])
    assert torch.allclose(doubled.parallel, measure(*case, num_samples=4).serial)


def test_an_unknown_mistake_is_refused(case: tuple[spnb.MeanField, Data]) -> None:
    with pytest.raises(ValueError, match="'typo' is none of same_seed"):
        measure(*case, mistakes=["typo"])


def test_the_explorable_without_a_pool(case: tuple[spnb.MeanField, Data]) -> None:
    lamp = equivalence_lamp(*case, num_samples=7, ranks=3)
    assert (
        "7 samples on 3 ranks, computed here one after the other, with no mistake" in lamp.summary
        and "lit" in lamp.summary
    )
    dark = set()
    for name in MISTAKES:
        lamp.set(**{other: other == name for other in MISTAKES})
        assert "dark" in lamp.summary and MISTAKES[name] in lamp.summary
        dark.add(lamp.png)
    assert len(dark) == len(MISTAKES)
    lamp.set(**dict.fromkeys(MISTAKES, False), ranks=1)
    assert "lit" in lamp.summary and lamp.error is None


@pytest.mark.slow
def test_live_ranks_compute_the_same(
    case: tuple[spnb.MeanField, Data], pool: spnb.WorkerPool
) -> None:
    for mistakes in ([], ["same_seed"], ["sum_for_mean", "kl_twice"], ["lost"]):
        live = measure(*case, num_samples=7, mistakes=mistakes, pool=pool)
        here = measure(*case, num_samples=7, mistakes=mistakes, ranks=2)
        assert torch.allclose(live.parallel, here.parallel, rtol=0, atol=1e-14)
    lamp = equivalence_lamp(*case, pool=pool)
    assert "ranks" not in lamp.controls and "lit" in lamp.summary
    lamp.controls["kl_twice"].value = True
    assert "dark" in lamp.summary and lamp.error is None


@pytest.mark.slow
@pytest.mark.pool
def test_the_lamp_outlives_its_pool(case: tuple[spnb.MeanField, Data]) -> None:
    with spnb.WorkerPool(1) as pool:
        lamp = equivalence_lamp(*case, pool=pool)
        assert "on 1 live ranks" in lamp.summary
    lamp.controls["samples"].value = 5
    assert lamp.error is None and "5 samples on 1 ranks, computed here" in lamp.summary
