"""The best posterior of a run is had, whatever the method, the layout, and how often it stopped."""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import spnb
from spnb.run import checkpoint, training
from tests.methods import METHODS
from tests.run.problems import mlp, problem

PoolOf = Callable[[int], spnb.WorkerPool]
SAMPLES = 4
EPOCHS = 8


def counts(predictions: Tensor) -> Any:
    return dist.Poisson(predictions.exp())


class Stop(Exception):
    """Thrown in the middle of a run."""


class Stopping:
    """An augmentation that changes nothing, and stops the run at a step."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        if not self.left:
            raise Stop
        self.left -= 1
        return x

    def __repr__(self) -> str:
        return "Stopping"


def held_out() -> tuple[Tensor, Tensor]:
    """Rows of other classes than those that are learned from: all of them are drawn at random."""
    x, y = problem(60)[1]
    return x[25:], y[25:]


def run(
    folder: Path,
    layout: spnb.Layout | None = None,
    method: str = "MeanField",
    best: str | None = "nll",
    every: int | None = None,
    stop_at: int = -1,
    **changes: Any,
) -> spnb.Fitted | None:
    """A run that overfits soon; None if it was stopped."""
    x, y = problem(60)[1]
    posterior = METHODS[method](problem(60)[0].model)
    settings = {"num_samples": SAMPLES} if posterior.draws_in_training is None else {}
    plan = spnb.Checkpoints(folder, every=every, best=best)
    settings |= {"batch_size": 10, "epochs": EPOCHS, "learning_rate": 0.05} | changes
    settings.setdefault("validation", held_out())
    settings.setdefault("augment", Stopping(stop_at))
    try:
        return spnb.fit(posterior, (x[:25], y[:25]), layout=layout, checkpoints=plan, **settings)
    except Stop:
        return None


def judged(posterior: spnb.Posterior, name: str = "nll") -> float:
    """A score as it is found after each epoch."""
    most = posterior.num_draws
    return spnb.score(posterior, held_out(), num_samples=most or SAMPLES)[name]


def by_epoch(fitted: spnb.Fitted, name: str = "nll") -> list[float]:
    return [record.scores[name] for record in fitted.history.epochs]


def gap(one: spnb.Posterior | None, other: spnb.Posterior | None) -> float:
    assert one is not None and other is not None
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs if a.numel())


@pytest.mark.parametrize("method", ["MeanField", "LowRank", "Point", "MCDropout", "Ensemble"])
def test_the_best_has_the_smallest_score(tmp_path: Path, method: str) -> None:
    fitted = run(tmp_path, method=method)
    assert fitted is not None and fitted.best is not None
    scores = by_epoch(fitted)
    assert min(scores) < scores[-1] or method == "LowRank"  # which is at its best in the end
    assert judged(fitted.best) == pytest.approx(min(scores), rel=1e-12)
    assert judged(fitted.posterior) == pytest.approx(scores[-1], rel=1e-12)
    model = spnb.BayesianModel(mlp().double())  # of the same net, begun elsewhere
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = spnb.load(spnb.Checkpoints(tmp_path).best_file, model)
    assert gap(loaded, fitted.best) == 0
    fitted.best.to(torch.float32)  # the two have nothing in common
    assert judged(fitted.posterior) == pytest.approx(scores[-1], rel=1e-12)


def test_none_where_none_was_asked_for(tmp_path: Path) -> None:
    fitted = run(tmp_path, best=None)
    assert fitted is not None and fitted.best is None


def test_of_accuracy_the_largest_is_the_best(tmp_path: Path) -> None:
    fitted = run(tmp_path, best="accuracy")
    assert fitted is not None and fitted.best is not None
    scores = by_epoch(fitted, "accuracy")
    assert max(scores) > min(scores)
    assert judged(fitted.best, "accuracy") == max(scores)


def test_nan_is_never_better_and_anything_is_better_than_nan() -> None:
    nan, better = math.nan, checkpoint.better
    for name, worse in [("nll", 2.0), ("accuracy", 0.0)]:
        assert better(name, 1.0, None) and better(name, nan, None)
        assert better(name, 1.0, nan) and not better(name, nan, nan)
        assert better(name, 1.0, worse) and not better(name, worse, 1.0)
        assert not better(name, nan, 1.0) and not better(name, 1.0, 1.0)


def test_every_epoch_is_judged_however_rare_checkpoints_are(tmp_path: Path) -> None:
    fitted, rare = run(tmp_path / "a"), run(tmp_path / "b", every=1000)
    assert fitted is not None and rare is not None
    assert gap(rare.best, fitted.best) == 0
    assert spnb.Checkpoints(tmp_path / "b").steps() == [3 * EPOCHS]


@pytest.mark.parametrize("stop_at", [4, 20])
def test_it_is_the_same_after_a_stop(tmp_path: Path, stop_at: int) -> None:
    whole = run(tmp_path / "whole")
    assert whole is not None
    assert run(tmp_path / "cut", every=2, stop_at=stop_at) is None
    again = run(tmp_path / "cut", every=2, resume=True)
    finished = run(tmp_path / "cut", every=2, stop_at=0, resume=True)  # not a single step more
    for each in (again, finished):
        assert each is not None
        assert gap(each.best, whole.best) == 0 and by_epoch(each) == by_epoch(whole)


@pytest.mark.pool
@pytest.mark.parametrize(
    ("method", "degrees"),
    [
        ("MeanField", (2, 1, 1)),
        ("MeanField", (1, 2, 1)),
        ("MeanField", (1, 1, 2)),
        ("Ensemble", (2, 1, 1)),
        ("Laplace", (1, 2, 1)),
    ],
)
def test_it_is_the_same_on_all_ranks_of_all_layouts(
    pool_of: PoolOf, tmp_path: Path, method: str, degrees: tuple[int, int, int]
) -> None:
    whole = run(tmp_path / "whole", method=method)
    assert whole is not None
    layout = spnb.Layout(*degrees)
    found = pool_of(2).run(run, tmp_path / "ranks", layout, method)
    assert gap(found[0].best, found[1].best) == 0
    assert gap(found[0].best, whole.best) < 1e-9
    assert not any(
        parameter.requires_grad and parameter.grad is not None
        for parameter in found[0].best.parameters()
    )


def test_a_best_laplace_has_the_curvature_at_its_mode(tmp_path: Path) -> None:
    fitted = run(tmp_path, method="Laplace")
    assert fitted is not None and isinstance(fitted.best, spnb.Laplace)
    by_hand = spnb.Laplace(fitted.best.model)
    with torch.no_grad():
        by_hand.loc.copy_(fitted.best.loc)
    x, y = problem(60)[1]
    by_hand.finish(x[:25], y[:25], lambda total: None, 1.0)
    assert torch.allclose(fitted.best.root, by_hand.root, rtol=1e-9)
    assert not torch.equal(fitted.best.root, fitted.posterior.root)


@pytest.mark.parametrize("method", ["SWAG", "SGMCMC"])
def test_methods_that_collect_along_the_run_have_no_best(tmp_path: Path, method: str) -> None:
    with pytest.raises(ValueError, match=f"best='nll': {method} collects what it samples from"):
        run(tmp_path, method=method, stop_at=0)


def test_a_score_that_there_is_not_is_refused_before_the_first_step(tmp_path: Path) -> None:
    there = "there are accuracy, nll, brier, ece"
    with pytest.raises(ValueError, match=f"best='crps' is no score of this model; {there}"):
        run(tmp_path, best="crps", stop_at=0)
    with pytest.raises(ValueError, match="best='nll' needs validation data"):
        run(tmp_path, stop_at=0, validation=None)
    start, (x, y) = problem(20, likelihood="normal")
    plan = spnb.Checkpoints(tmp_path / "b", best="accuracy")
    with pytest.raises(ValueError, match="best='accuracy' is no score.* rmse, nll, .*crps"):
        spnb.fit(start, (x, y), validation=(x, y), checkpoints=plan, augment=Stopping(0))
    poisson = spnb.BayesianModel(nn.Linear(12, 1).double(), likelihood=counts)
    with pytest.raises(ValueError, match="best='crps' is no score of this model"):
        spnb.fit(
            spnb.MeanField(poisson),
            (x, y[:, :1].round().abs()),
            validation=(x, y[:, :1].round().abs()),
            checkpoints=spnb.Checkpoints(tmp_path / "c", best="crps"),
            augment=Stopping(0),
        )


def test_resume_does_not_take_the_best_for_the_last(tmp_path: Path) -> None:
    fitted = run(tmp_path)
    assert fitted is not None
    file = spnb.Checkpoints(tmp_path).best_file
    words = rf"is the best checkpoint, from which .* use .* spnb\.load\('{file}', model\)"
    for best in (file, shutil.copy(file, tmp_path / "mine.safetensors")):
        with pytest.raises(ValueError, match=words.replace(str(file), str(best))):
            run(tmp_path, resume=best, stop_at=0)
    further = spnb.fit(spnb.load(file, problem(60)[0].model), problem(60)[1], epochs=1)
    assert len(further.history.epochs) == 1


def test_a_best_that_was_lost_is_told(tmp_path: Path) -> None:
    file = spnb.Checkpoints(tmp_path).best_file
    assert run(tmp_path, stop_at=20) is None
    kept = file.read_bytes()
    file.unlink()
    with pytest.warns(UserWarning, match="The best of the 6 epochs before is lost"):
        again = run(tmp_path, resume=True)
    assert again is not None and again.best is not None
    assert judged(again.best) == pytest.approx(min(by_epoch(again)[6:]), rel=1e-12)
    file.write_bytes(kept[:-1])
    with pytest.warns(UserWarning, match="epochs before is lost"):
        again = run(tmp_path, resume=True)
    assert again is not None and again.best is None


def test_a_finished_run_is_not_lost_with_its_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = spnb.Checkpoints(tmp_path).best_file
    monkeypatch.setattr(training, "let_go", lambda posterior: file.unlink())  # after the last step
    with pytest.warns(UserWarning, match=r"There is no fitted\.best"):
        fitted = run(tmp_path)
    assert fitted is not None and fitted.best is None and len(fitted.history.epochs) == EPOCHS


def test_the_best_by_another_score_begins_anew(tmp_path: Path) -> None:
    assert run(tmp_path, stop_at=20) is None
    with pytest.warns(UserWarning, match="is not the best by ece"):
        again = run(tmp_path, best="ece", resume=True)
    assert again is not None and again.best is not None
    assert judged(again.best, "ece") == pytest.approx(min(by_epoch(again, "ece")[6:]), rel=1e-9)


def test_by_other_validation_data_no_run_goes_on(tmp_path: Path) -> None:
    assert run(tmp_path, stop_at=20) is None
    x, y = held_out()
    with pytest.raises(ValueError, match="another run: the validation data are others"):
        run(tmp_path, resume=True, validation=(x, y.flip(0)))
    fitted = run(tmp_path, best=None, resume=True, validation=(x, y.flip(0)))  # they decide nothing
    assert fitted is not None


def test_a_folder_of_another_run_is_not_written_to(tmp_path: Path) -> None:
    run(tmp_path / "a", best=None)
    run(tmp_path / "b", best=None)
    last = spnb.Checkpoints(tmp_path / "a").file(3 * EPOCHS)
    with pytest.raises(ValueError, match=r"b' holds a checkpoint of step 24, and .* is not from"):
        run(tmp_path / "b", best=None, resume=last)
    assert run(tmp_path / "a", best=None, resume=last) is not None
    assert run(tmp_path / "c", best=None, resume=last) is not None


def test_a_lone_best_is_not_overwritten_unasked(tmp_path: Path) -> None:
    assert run(tmp_path, every=1000, stop_at=7) is None
    assert [entry.name for entry in tmp_path.iterdir()] == [checkpoint.BEST]
    with pytest.raises(ValueError, match="holds 'best.safetensors': say resume=True"):
        run(tmp_path)


@pytest.mark.parametrize("method", ["MeanField", "Laplace", "SWAG", "SGMCMC", "Ensemble"])
def test_what_an_interrupted_run_had_learnt_can_be_loaded(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(tmp_path, method=method, best=None, every=5, stop_at=12) is None
    file = spnb.Checkpoints(tmp_path).file(10)
    model = problem(60)[0].model
    kind = type(METHODS[method](model))
    finished = method in ("MeanField", "Ensemble")
    if not hasattr(spnb.Posterior, "finished"):
        monkeypatch.setattr(kind, "finished", finished, raising=False)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        loaded = spnb.load(file, model)
    words = [str(each.message) for each in seen]
    assert len(words) == (not finished) and type(loaded) is kind
    assert all(f"holds a {kind.__name__} whose training had not come" in each for each in words)
    tensors, _ = checkpoint.load(file)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value.nan_to_num(), tensors[f"posterior/{name}"].nan_to_num()), name
    assert math.isfinite(judged(loaded))
    again = spnb.fit(loaded, problem(60)[1], epochs=8)  # as the sentence says
    assert math.isfinite(judged(again.posterior))
