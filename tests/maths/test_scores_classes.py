"""Scores of classes: against torchmetrics, scikit-learn and sums written out."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc, multiclass_calibration_error

from spnb.maths import scores
from spnb.maths.likelihoods import Categorical, Normal

CATEGORICAL = Categorical()


def problem(samples: int = 5, items: int = 400, classes: int = 4) -> tuple[Tensor, Tensor]:
    """Logits of sure and unsure samples that often disagree, and classes."""
    generator = torch.Generator().manual_seed(1)
    draws = 2 * torch.randn(samples, items, classes, generator=generator, dtype=torch.float64)
    targets = torch.randint(classes, (items,), generator=generator)
    draws[:, torch.arange(items), targets] += 1
    return draws, targets


def test_the_table_of_classes_is_that_of_the_mean_probabilities() -> None:
    draws, targets = problem()
    found = scores.evaluate(draws, targets, CATEGORICAL)
    mean = draws.softmax(-1).mean(0).numpy()
    assert found["accuracy"] == pytest.approx(accuracy_score(targets, mean.argmax(-1)))
    assert found["nll"] == pytest.approx(log_loss(targets, mean), rel=1e-12)
    each = [scores.evaluate(d[None], targets, CATEGORICAL)["nll"] for d in draws]
    assert found["nll"] < sum(each) / len(each) - 0.1  # not the mean of the samples' own scores


def test_reliability_adds_up_to_the_calibration_error() -> None:
    draws, targets = problem()
    curve = scores.reliability(draws, targets, CATEGORICAL)
    assert curve.count.sum() == len(targets)
    assert (curve.count > 0).all()
    gaps = (curve.accuracy - curve.confidence).abs()
    error = (gaps * curve.count).sum().item() / len(targets)
    table = scores.classification(draws, targets, CATEGORICAL)
    assert error == pytest.approx(table["ece"], rel=1e-6)
    assert error > 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sharpness", [0.0, 1.0, 3.0, 30.0])
def test_the_calibration_error_is_that_of_torchmetrics(
    dtype: torch.dtype, sharpness: float
) -> None:
    """From uniform probabilities, on an edge of the bins, to many of exactly 1."""
    draws, targets = problem(samples=3, items=300, classes=3)
    draws = (sharpness * draws).to(dtype)
    mean = draws.softmax(-1).mean(0)
    assert (sharpness == 30) == (mean == 1).any()
    found = scores.classification(draws, targets, CATEGORICAL)["ece"]
    theirs = multiclass_calibration_error(mean, targets, 3, n_bins=15).item()
    assert found == pytest.approx(theirs, abs=1e-6)
    assert (found > 0.01) == (sharpness > 0)


def test_a_probability_of_one_is_no_bin_with_the_others() -> None:
    """Errors of a bin cancel: 8 right at 0.94 and 2 wrong at 1 would be 0.952 - 0.8 in one."""
    draws = torch.tensor([[[0.94, 0.06]] * 8 + [[1.0, 0.0]] * 2], dtype=torch.float64).log()
    targets = torch.tensor([0] * 8 + [1] * 2)
    found = scores.classification(draws, targets, CATEGORICAL)["ece"]
    assert found == pytest.approx(0.8 * 0.06 + 0.2 * 1)


@pytest.mark.parametrize("samples", [1, 5])
def test_reliability_is_that_of_sklearn(samples: int) -> None:
    draws, targets = problem(samples)
    curve = scores.reliability(draws, targets, CATEGORICAL, bins=7)
    confidence, named = draws.softmax(-1).mean(0).max(-1)
    right, sure = calibration_curve(named == targets, confidence, n_bins=7)
    torch.testing.assert_close(curve.accuracy, torch.tensor(right))
    torch.testing.assert_close(curve.confidence, torch.tensor(sure))


def test_reliability_takes_the_surest_and_needs_a_bin() -> None:
    sure = torch.tensor([[[1000.0, 0.0], [0.0, 1000.0]]])
    curve = scores.reliability(sure, torch.tensor([0, 0]), CATEGORICAL)
    assert (curve.confidence.tolist(), curve.accuracy.tolist()) == ([1.0], [0.5])
    with pytest.raises(ValueError, match="bins=0"):
        scores.reliability(sure, torch.tensor([0, 0]), CATEGORICAL, bins=0)


def test_entropy_and_information_are_their_definitions() -> None:
    draws, _ = problem()
    entropy = scores.predictive_entropy(draws, CATEGORICAL)
    information = scores.mutual_information(draws, CATEGORICAL)
    p = draws.softmax(-1)
    torch.testing.assert_close(entropy, torch.distributions.Categorical(p.mean(0)).entropy())
    divergences = (p * (p / p.mean(0)).log()).sum(-1)  # its other form: KL(p_s || mean), averaged
    torch.testing.assert_close(information, divergences.mean(0))
    assert (information <= entropy).all()


def test_uncertainty_of_extreme_samples() -> None:
    split = torch.tensor([[[500.0, 0.0]], [[0.0, 500.0]]])  # each sure, of different classes
    assert scores.predictive_entropy(split, CATEGORICAL).item() == pytest.approx(math.log(2))
    assert scores.mutual_information(split, CATEGORICAL).item() == pytest.approx(math.log(2))
    flat = torch.zeros(3, 1, 2)  # all alike, and unsure
    assert scores.predictive_entropy(flat, CATEGORICAL).item() == pytest.approx(math.log(2))
    assert scores.mutual_information(flat, CATEGORICAL).item() == 0


def test_one_sample_has_no_mutual_information() -> None:
    draws, _ = problem(samples=1)
    assert scores.mutual_information(draws, CATEGORICAL).abs().max() < 1e-12


def test_uncertainty_of_classes_wants_classes() -> None:
    with pytest.raises(ValueError, match="not a Normal"):
        scores.predictive_entropy(torch.zeros(2, 3, 1), Normal(1.0))


@pytest.mark.parametrize("shift", [0.0, 50.0, -50.0])
def test_auroc_counts_pairs(shift: float) -> None:
    """Also far from [0, 1], where a sigmoid in single precision would make all of them equal."""
    generator = torch.Generator().manual_seed(2)
    known = torch.randn(200, generator=generator).mul(8).round() / 8 + shift  # many ties
    unknown = torch.randn(150, generator=generator).mul(8).round() / 8 + 0.5 + shift
    pairs = unknown.unsqueeze(1) - known
    expected = ((pairs > 0).double() + (pairs == 0).double() / 2).mean().item()
    found = scores.auroc(known, unknown)
    assert found == pytest.approx(expected, abs=1e-12)
    labels, values = torch.tensor([0] * 200 + [1] * 150), torch.cat([known, unknown])
    assert found == pytest.approx(roc_auc_score(labels, values), abs=1e-12)
    if not shift:  # theirs wants values in [0, 1]
        theirs = binary_auroc((values - values.min()) / (values.max() - values.min()), labels)
        assert found == pytest.approx(theirs.item(), abs=1e-6)
    assert 0.55 < found < 0.75


def test_auroc_of_the_extremes() -> None:
    assert scores.auroc(torch.tensor([1.0, 2.0]), torch.tensor([3.0])) == 1
    assert scores.auroc(torch.tensor([3.0]), torch.tensor([1.0, 2.0])) == 0
    assert scores.auroc(torch.ones(3), torch.ones(2)) == 0.5
    mixed = scores.auroc(torch.tensor([1, 2]), torch.tensor([1.5, math.inf], dtype=torch.float64))
    assert mixed == 0.75
    with pytest.raises(ValueError, match="0 known and 2 unknown"):
        scores.auroc(torch.empty(0), torch.ones(2))
    with pytest.raises(ValueError, match="1 of the 3 scores are nan"):
        scores.auroc(torch.tensor([math.nan]), torch.ones(2))
