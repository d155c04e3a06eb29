"""A report's curves and words against numbers that are counted by hand."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import spnb
from spnb.teach.report import LEVELS, report


def table(classes: bool, rows: int = 80) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, 3, generator=generator)
    y = x.sum(1, keepdim=True) + 0.5 * torch.randn(rows, 1, generator=generator)
    return x, ((y > 0).long().squeeze(1) if classes else y)


def trained(likelihood: str, outputs: int, **options: int) -> spnb.Fitted:
    torch.manual_seed(0)
    model = spnb.BayesianModel(torch.nn.Linear(3, outputs), dist.Normal(0, 1), likelihood)
    usual = {"epochs": 10, "num_samples": 2, "learning_rate": 0.05, "batch_size": 40}
    return spnb.fit(spnb.MeanField(model), table(likelihood == "categorical"), **usual | options)


def test_classes() -> None:
    fitted, held_out = trained("categorical", 2), table(True)
    figure, words = report(fitted, held_out, num_samples=16, seed=3)
    training, calibration, doubt = figure.axes
    steps = fitted.history.steps
    assert training.lines[0].get_ydata()[-1] == pytest.approx((steps[-1].loss + steps[-2].loss) / 2)
    draws = spnb.predict(fitted.posterior, held_out[0], num_samples=16, seed=3)
    mean = draws.softmax(-1).mean(0)
    wrong = (mean.argmax(-1) != held_out[1]).double()
    order = torch.special.entr(mean).sum(-1).argsort(stable=True)
    assert doubt.lines[0].get_ydata()[-1] == pytest.approx(wrong.mean().item())
    half = wrong[order[:40]].mean().item()
    assert f"{wrong.mean():.1%} of all rows are wrong, and {half:.1%} of the surer half" in words
    found = spnb.score(fitted.posterior, held_out, num_samples=16, seed=3)
    assert all(f"{name} {value:.4g}" in words for name, value in found.items())
    gap = (mean.amax(-1).mean() - 1 + wrong.mean()).item()
    assert f"{abs(gap):.1%} too {'sure' if gap > 0 else 'modest'}" in words
    assert sum(bar.get_height() for bar in calibration.patches) == pytest.approx(1)


@pytest.mark.parametrize(("likelihood", "outputs"), [("normal", 1), ("heteroscedastic", 2)])
def test_real_targets(likelihood: str, outputs: int) -> None:
    fitted, held_out = trained(likelihood, outputs), table(False)
    figure, words = report(fitted, held_out, num_samples=16)
    _, calibration, doubt = figure.axes
    draws = spnb.predict(fitted.posterior, held_out[0], num_samples=16)
    with torch.no_grad():
        likelihood_ = fitted.posterior.model.likelihood
        for place in (4, 18):  # 25 % and 95 %
            level = LEVELS[place].item()
            share = spnb.scores.coverage(draws, held_out[1], likelihood_, level).mean().item()
            assert calibration.lines[1].get_ydata()[place] == pytest.approx(share, abs=1e-9)
        rmse = spnb.scores.evaluate(draws, held_out[1], likelihood_)["rmse"]
    assert doubt.lines[0].get_ydata()[-1] == pytest.approx(rmse, rel=1e-5)
    assert f"The RMSE of all rows is {rmse:.4g}" in words
    inside = spnb.scores.coverage(draws, held_out[1], likelihood_, 0.9).mean()
    assert f"The interval of 90 % holds {inside:.1%}" in words


def test_what_was_not_trained_has_no_course() -> None:
    model = spnb.BayesianModel(torch.nn.Linear(3, 2), dist.Normal(0, 1), "categorical")
    chains = spnb.nuts(model, table(True), num_chains=1, num_samples=8, warmup=8)
    for known in (chains, chains.posterior):
        figure, words = report(known, table(True), num_samples=8)
        assert len(figure.axes) == 2 and "Draws, S = 8" in words


def test_what_a_report_cannot_be_of() -> None:
    def heavy(predictions: Tensor) -> dist.StudentT:
        return dist.StudentT(3.0, predictions, 1.0)

    model = spnb.BayesianModel(torch.nn.Linear(3, 1), dist.Normal(0, 1), heavy)
    with pytest.raises(ValueError, match="needs a likelihood with normal noise"):
        report(spnb.MeanField(model), table(False))
    fitted = trained("categorical", 2, epochs=1)
    with pytest.raises(ValueError, match="rows"):
        report(fitted, (torch.zeros(3, 3), torch.zeros(2).long()))
    with pytest.raises(ValueError, match="7"):
        report(fitted, (torch.zeros(3, 3), torch.full((3,), 7)))
    with pytest.raises(ValueError, match="7"):
        spnb.score(fitted.posterior, (torch.zeros(3, 3), torch.full((3,), 7)))
    with pytest.raises(TypeError, match="posterior is a str"):
        report("posterior.safetensors", table(True))


@pytest.mark.parametrize("classes", [True, False])
def test_missing_targets_are_not_drawn(classes: bool) -> None:
    """The same curves and words as of the rows that have a target."""
    x, y = table(classes)
    there = torch.rand(len(y), generator=torch.Generator().manual_seed(2)) > 0.3
    mark = -1 if classes else float("nan")
    known = y.masked_fill(~there.view(-1, *[1] * (y.dim() - 1)), mark)
    own = spnb.likelihoods.Categorical if classes else spnb.likelihoods.HeteroscedasticNormal
    fitted = trained("categorical" if classes else "heteroscedastic", 2)
    fitted.posterior.model.likelihood = own(missing=mark)
    drawn = []
    for data in ((x, known), (x[there], y[there])):
        figure, words = report(fitted, data, num_samples=16)
        curves = [line.get_ydata() for axes in figure.axes for line in axes.lines]
        drawn.append((curves, words.split("held out: ")[1]))
    for found, expected in zip(*(curves for curves, _ in drawn), strict=True):
        assert found == pytest.approx(expected)
    assert drawn[0][1] == drawn[1][1]
