"""Posteriors in files: all methods come back as they were, and nothing else is let in."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import spnb
from spnb.maths import posteriors
from spnb.run import files
from tests.methods import METHODS
from tests.run.problems import problem

AGAIN = """
import sys, torch, spnb
from pathlib import Path
from tests.run.problems import problem
start, (x, _) = problem(25)
for file in Path(sys.argv[1]).glob("*.safetensors"):
    posterior = spnb.load(file, start.model)
    torch.save(spnb.predict(posterior, x, seed=3), file.with_suffix(".draws"))
"""


def trained(name: str) -> tuple[spnb.Posterior, torch.Tensor]:
    start, data = problem(25)
    return spnb.fit(METHODS[name](start.model), data, epochs=8).posterior, data[0]


def test_a_fresh_process_predicts_the_same(tmp_path: Path) -> None:
    expected = {}
    for name in METHODS:
        posterior, x = trained(name)
        spnb.save(posterior, tmp_path / f"{name}.safetensors")
        expected[name] = spnb.predict(posterior, x, seed=3)
    command = [sys.executable, "-c", AGAIN, str(tmp_path)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
    for name, draws in expected.items():
        assert torch.equal(torch.load(tmp_path / f"{name}.draws"), draws), name
    assert not list(tmp_path.glob(".*"))


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("exploded",)


def test_what_is_no_posterior_is_refused_and_never_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    posterior, _ = trained("LowRank")
    whole = spnb.save(posterior, "whole").read_bytes()
    (tmp_path / "bomb").write_bytes(pickle.dumps(Bomb()))
    (tmp_path / "short").write_bytes(whole[:-9])
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "header").write_bytes(b"\xff" + whole[1:])
    for name in ("bomb", "short", "empty", "header"):
        with pytest.raises(ValueError, match=f"'{name}' is no whole safetensors file: "):
            spnb.load(name, posterior.model)
    assert not (tmp_path / "exploded").exists()
    with pytest.raises(FileNotFoundError, match="There is no file 'nowhere'"):
        spnb.load("nowhere", posterior.model)
    save_file({"loc": torch.zeros(3)}, "foreign")
    with pytest.raises(ValueError, match="'foreign' is 'something else', version none; this reads"):
        spnb.load("foreign", posterior.model)
    saved = spnb.save(posterior, "saved")
    tensors, words = files.read(saved, "spnb posterior", "2")
    for change in ({"version": "99"}, {"format": "spnb checkpoint"}):  # each alone is enough
        files.write(Path("other"), tensors, words | change)
        with pytest.raises(ValueError, match="'other' is 'spnb .*; this reads 'spnb poster"):
            spnb.load("other", posterior.model)
    about = {"format": "spnb posterior", "version": "2", "method": "Posterior"}
    about |= {"sites": json.dumps([]), "options": json.dumps({})}
    for change in ({}, {"sites": ""}, {"options": '{"rank": "x"}'}, {"options": "[]"}):
        files.write(Path("strange"), {"loc": torch.zeros(3)}, about | change)
        with pytest.raises(ValueError, match="'strange'"):
            spnb.load("strange", posterior.model)


def test_another_model_is_refused_with_what_differs(tmp_path: Path) -> None:
    posterior, _ = trained("LowRank")
    file = spnb.save(posterior, tmp_path / "file")
    other = spnb.BayesianModel(torch.nn.Linear(12, 3).double())
    with pytest.raises(ValueError, match=r"has '0.weight' \[10, 12\] with a prior where this one"):
        spnb.load(file, other)
    normal = spnb.priors.fan_in()
    partly = problem(prior=lambda name, p: None if p.dim() < 2 else normal(name, p))[0].model
    with pytest.raises(ValueError, match=r"'0.bias' \[10\] without a prior"):
        spnb.load(file, partly)
    single = problem(dtype=torch.float32)[0].model
    with pytest.raises(ValueError, match=r"'factor' is float64 \[163, 2\] in .* float32 "):
        spnb.load(file, single)


def test_another_network_or_likelihood_of_the_same_shape_is_told(tmp_path: Path) -> None:
    posterior, _ = trained("MeanField")
    file = spnb.save(posterior, tmp_path / "file")
    net = problem()[0].model.net
    assert isinstance(net, torch.nn.Sequential)
    net[1] = torch.nn.ReLU()
    with pytest.warns(UserWarning, match="another model: .*=torch.Tanh there, torch.ReLU here"):
        spnb.load(file, spnb.BayesianModel(net))


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    posterior, x = trained("MeanField")
    file = spnb.save(posterior, tmp_path / "file")
    before = file.read_bytes()

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        spnb.save(trained("LowRank")[0], file)
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere/file' cannot be written: "):
        spnb.save(trained("Point")[0], tmp_path / "nowhere" / "file")
    assert list(tmp_path.iterdir()) == []


def test_only_known_methods_are_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(spnb.MeanField):
        pass

    start, (x, _) = problem()
    own = Own(start.model)
    with pytest.raises(TypeError, match="A Own is none of the known methods: Draws, MCDropout"):
        spnb.save(own, tmp_path / "file")
    monkeypatch.setitem(posteriors.METHODS, "Own", Own)
    spnb.save(own, tmp_path / "file")
    again = spnb.load(tmp_path / "file", start.model)
    assert type(again) is Own
    assert torch.equal(spnb.predict(again, x), spnb.predict(own, x))


def test_what_fit_and_nuts_return_is_saved(tmp_path: Path) -> None:
    start, (x, y) = problem(25)
    fitted = spnb.fit(start, (x, y), epochs=2)
    chains = spnb.nuts(start.model, (x, y), num_chains=1, num_samples=4, warmup=4)
    for found in (fitted, chains):
        again = spnb.load(spnb.save(found, tmp_path / "file"), start.model)
        assert type(again) is type(found.posterior)
        for name, value in found.posterior.state_dict().items():
            assert torch.equal(again.state_dict()[name], value)


def test_what_holds_no_posterior_is_refused(tmp_path: Path) -> None:
    start, _ = problem()
    for wrong in (start.model, start.model.net, start.state_dict(), str(tmp_path), None):
        with pytest.raises(TypeError, match="posterior is a .*; give what spnb.fit returned, or a"):
            spnb.save(wrong, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []
