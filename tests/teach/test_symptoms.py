"""Symptoms are those of the run, and the explorer of troubles shows them."""

from __future__ import annotations

import dataclasses

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import spnb
from spnb.teach.explorable import Explorable
from spnb.teach.explore.troubles import STATES, trouble_explorer
from spnb.teach.symptoms import Symptoms, symptoms

ROWS = 60


def table() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, 4, generator=generator)
    return x, (x.sum(1) > 0).long()


def posterior(kind: type[spnb.Posterior] = spnb.MeanField, **options: float) -> spnb.Posterior:
    torch.manual_seed(0)
    model = spnb.BayesianModel(torch.nn.Linear(4, 2), dist.Normal(0, 0.5), "categorical")
    return kind(model, **options)


def trained(start: spnb.Posterior, **options: float) -> spnb.Fitted:
    usual = {"num_samples": 4, "epochs": 30, "learning_rate": 0.02, "batch_size": 20}
    return spnb.fit(start, table(), **(usual | options))


@pytest.fixture(scope="module")
def healthy() -> Symptoms:
    return symptoms(trained(posterior()), table(), table())


@pytest.mark.parametrize("kind", [spnb.MeanField, spnb.LowRank])
def test_what_is_read_off_is_what_happened(kind: type[spnb.Posterior]) -> None:
    start = posterior(kind, init_scale=0.1)
    run = trained(start)
    found = symptoms(run, table(), table())
    steps = run.history.steps
    assert len(steps) == 90
    assert found.data == pytest.approx(sum(step.data_term for step in steps[-9:]) / 9)
    with torch.no_grad():
        first = start.divergence(start.prepare()).item()
        last = run.posterior.divergence(run.posterior.prepare()).item()
        draws = run.posterior.draw(range(20_000), spnb.Key(3))
    assert found.kl_first == pytest.approx(first / 10, rel=1e-5)
    assert found.kl_last == pytest.approx(last / ROWS, rel=0.05)  # that before the last step
    torch.testing.assert_close(found.widths, draws.std(0) / 0.5, rtol=0.03, atol=0)
    assert found.scores == spnb.score(run.posterior, table(), num_samples=64)


def test_shares_of_widths(healthy: Symptoms) -> None:
    widths = torch.tensor([0.2, 0.95, 1.05, 1.5, 3.0])
    found = dataclasses.replace(healthy, widths=widths)
    assert (found.like_prior, found.wider) == pytest.approx((0.4, 0.4))
    assert "like prior 40%, wider 40%" in str(found)


def test_a_start_that_is_too_wide_shows() -> None:
    found = symptoms(trained(posterior(init_scale=2.0), learning_rate=1e-4), table(), table())
    assert found.wider == 1 and found.like_prior == 0


def test_other_methods_have_no_widths() -> None:
    with pytest.raises(TypeError, match="A Ensemble has no width|MeanField or LowRank"):
        symptoms(spnb.fit(posterior(spnb.Ensemble), table()), table(), table())
    empty = torch.zeros(0, 4), torch.zeros(0).long()
    with pytest.raises(ValueError, match="at least one row"):
        symptoms(trained(posterior(), epochs=1), empty, table())
    with pytest.raises(TypeError, match="fitted is a MeanField"):
        symptoms(posterior(), table(), table())
    wide = spnb.BayesianModel(torch.nn.Linear(4, 2), dist.Cauchy(0.0, 1.0), "categorical")
    with pytest.raises(ValueError, match="no finite standard deviation"):
        symptoms(trained(spnb.MeanField(wide), epochs=1), table(), table())


@pytest.fixture
def explorer(healthy: Symptoms) -> Explorable:
    wide = symptoms(trained(posterior(init_scale=2.0), epochs=5), table(), table())
    return trouble_explorer({"too wide": (wide, healthy), "none": (healthy, healthy)})


def test_the_explorer_shows_the_chosen_run(explorer: Explorable, healthy: Symptoms) -> None:
    assert explorer.summary.startswith("too wide, as it went wrong: ")
    explorer.set(run="mended")
    assert explorer.error is None and explorer.summary == f"too wide, mended: {healthy}."
    data, kl, widths = explorer.figure.axes
    assert [line.get_label() for line in data.lines] == list(STATES)
    assert data.lines[1].get_linewidth() > data.lines[0].get_linewidth()
    course = [step.divergence / ROWS for step in healthy.history.steps]
    assert kl.lines[1].get_ydata()[0] == pytest.approx(course[0])
    assert sum(bar.get_height() for bar in widths.patches) == 10  # every weight is in a bar


def test_no_troubles() -> None:
    with pytest.raises(ValueError, match="no troubles"):
        trouble_explorer({})
