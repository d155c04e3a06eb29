"""The sample budget: its numbers against independent ones, its speed, and that it follows."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn.functional import nll_loss
from torchmetrics.functional.classification import binary_auroc, multiclass_calibration_error

from spnb.teach.explore.budget import (
    SCORES,
    auroc,
    calibration_error,
    curves,
    entropy,
    group_means,
    nll,
    sample_budget,
)


def probabilities(draws: int, images: int, sharpness: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(1, images, 8, generator=generator)
    own = torch.randn(draws, images, 8, generator=generator)
    return (sharpness * (shared + own)).softmax(-1)


@pytest.fixture(scope="module")
def known() -> Tensor:
    return probabilities(64, 50, 3.0, 0)


@pytest.fixture(scope="module")
def targets(known: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.multinomial(known.mean(0), 1, generator=generator).squeeze(1)


@pytest.fixture(scope="module")
def strange() -> Tensor:
    return probabilities(64, 20, 1.5, 2)


def test_groups_are_disjoint_neighbours_and_leave_out_what_fills_none() -> None:
    draws = torch.arange(7.0).view(7, 1, 1)
    assert group_means(draws, 3).flatten().tolist() == [1.0, 4.0]
    assert group_means(draws, 1).flatten().tolist() == list(range(7))


def test_nll_and_calibration_error_are_those_of_torch(known: Tensor, targets: Tensor) -> None:
    for size in (1, 8):
        means = group_means(known, size)
        likelihood, error = nll(means, targets), calibration_error(means, targets)
        for group, mean in enumerate(means):
            assert torch.allclose(likelihood[group], nll_loss(mean.log(), targets))
            theirs = multiclass_calibration_error(mean, targets, 8, n_bins=15)
            assert error[group].item() == pytest.approx(theirs.item(), abs=1e-6)


def test_an_impossible_class_is_a_large_finite_nll() -> None:
    assert 60 < nll(torch.tensor([[[1.0, 0.0]]]), torch.tensor([1])).item() < 100


def test_auroc_is_that_of_torchmetrics_and_counts_ties_by_half(
    known: Tensor, strange: Tensor
) -> None:
    inside, outside = (entropy(group_means(p, 4)) for p in (known, strange))
    ours = auroc(inside, outside)
    labels = torch.cat([torch.zeros(50), torch.ones(20)]).long()
    for group in range(len(ours)):
        theirs = binary_auroc(torch.cat([inside[group], outside[group]]) / 3, labels)
        assert ours[group].item() == pytest.approx(theirs.item(), abs=1e-6)
    assert auroc(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 1.0]])).item() == 0.75


def test_the_curves_are_means_and_spreads_over_groups(
    known: Tensor, targets: Tensor, strange: Tensor
) -> None:
    table = curves(known, targets, {"odd": strange}, [1, 2, 4])
    assert {score for score, _ in table} == set(SCORES)
    (likelihood,) = table["NLL", "odd"]
    by_hand = [
        nll_loss(known[start : start + 4].mean(0).log(), targets).item()
        for start in range(0, 64, 4)
    ]
    assert likelihood.means[2].item() == pytest.approx(statistics.mean(by_hand), rel=1e-5)
    assert likelihood.errors[2].item() == pytest.approx(statistics.stdev(by_hand), rel=1e-4)
    assert likelihood.whole == pytest.approx(nll_loss(known.mean(0).log(), targets).item())
    inner, outer = table["entropy", "odd"]
    assert outer.name == "odd" and len(outer.groups[2]) == 32
    assert outer.whole == pytest.approx(torch.special.entr(strange.mean(0)).sum(1).mean().item())
    assert inner.whole < outer.whole


def test_words_and_picture_follow_the_controls(
    known: Tensor, targets: Tensor, strange: Tensor
) -> None:
    outside = {"odd": strange, "same": known}
    budget = sample_budget(known, targets, outside, samples=4)
    table = curves(known, targets, outside, [1, 2, 4, 8, 16])
    assert budget.controls["samples"].options == (1, 2, 4, 8, 16), "four groups at least"
    seen = {budget.png}
    for score in SCORES:
        for name in outside:
            for size in (1, 16):
                budget.set(score=score, outside=name, samples=size)
                assert budget.error is None
                shown = table[score, name]
                said = re.findall(r"([\d.]+) ± ([\d.]+) \(all 64 draws: ([\d.]+)\)", budget.summary)
                assert len(said) == len(shown)
                for numbers, each in zip(said, shown, strict=True):
                    values = each.groups[size]
                    wanted = (values.mean().item(), values.std().item(), each.whole)
                    assert [float(n) for n in numbers] == pytest.approx(wanted, abs=5e-4)
                assert f"over {64 // size} groups" in budget.summary
                unit = "1 sample," if size == 1 else "16 samples,"
                assert budget.summary.startswith(f"{SCORES[score]} with {unit}")
                alone = score in ("NLL", "calibration error")
                assert ("play no part" in budget.summary) == alone
                seen.add(budget.png)
    assert len(seen) == 1 + 2 * 2 + 2 * 2 * 2, "NLL and calibration do not depend on `outside`"


def test_a_redrawing_follows_the_hand(follows_the_hand: Callable[..., None]) -> None:
    known, strange = probabilities(256, 302, 3.0, 0), probabilities(256, 302, 1.5, 1)
    budget = sample_budget(known, torch.zeros(302, dtype=torch.long), {"odd": strange})
    budget.set(score="entropy")  # the fullest figure
    follows_the_hand(partial(budget.set, samples=size) for size in (1, 4, 16, 64, 8, 2))


def test_a_score_without_spread_is_drawn_as_well() -> None:
    sure = torch.eye(4).expand(16, 4, 4).contiguous()
    flat = torch.full((16, 6, 4), 0.25)
    budget = sample_budget(sure, torch.arange(4), {"flat": flat}, samples=2)
    for score in SCORES:
        budget.set(score=score)
        assert budget.error is None
    assert "1.000 ± 0.000 (all 16 draws: 1.000)" in budget.summary


def test_what_does_not_fit_is_refused(known: Tensor, targets: Tensor, strange: Tensor) -> None:
    with pytest.raises(ValueError, match="5 stored draws are too few: give at least 8"):
        sample_budget(known[:5], targets, {"odd": strange[:5]})
    with pytest.raises(ValueError, match="do not fit"):
        sample_budget(known, targets[:-1], {"odd": strange})
    with pytest.raises(ValueError, match="do not fit"):
        sample_budget(known, targets, {"odd": strange[:32]})
