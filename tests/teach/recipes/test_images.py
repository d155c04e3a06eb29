"""The recipe of the vision transformer, small: it runs, ranks agree, and it leaves a record."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spnb.__main__ import main
from spnb.maths.networks import ViT
from spnb.teach import figures
from spnb.teach.recipes import NAMES, base, execute, images, recipe, recorded

needs_data = pytest.mark.skipif(
    not os.environ.get("SPNB_DATA"), reason="needs CIFAR-10 in $SPNB_DATA"
)


def test_the_full_size_network_is_the_papers() -> None:
    settings = images.SETTINGS["node"]
    with torch.device("meta"):
        net = images.network(settings)
        assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert sum(p.numel() for p in net.parameters()) == 2_676_778
    blocks = list(net.blocks)
    assert len(blocks) == 6 and blocks[0].heads == 3 and net.patch == 4
    assert net.head.in_features == 192 and blocks[0].perceptron[1].out_features == 768


def test_the_same_initial_weights_every_time() -> None:
    settings = images.SETTINGS["ci"]
    state = torch.get_rng_state()
    one, other = (dict(images.network(settings).named_parameters()) for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(images.network(replace(settings, seed=1)), ViT)


@needs_data
@pytest.mark.slow
@pytest.mark.pool
def test_ranks_agree_and_leave_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(
        images.SETTINGS["ci"], num_train=200, epochs=2, stopped=1, num_samples=3, test_samples=4
    )
    monkeypatch.setitem(images.SETTINGS, "ci", small)
    alone = execute("images", "ci", folder=tmp_path / "alone")
    shared = execute("images", "ci", ranks=2, folder=tmp_path / "shared")
    assert shared["layout"] == "sample=2 × data=1"
    for who, found in alone["scores"].items():
        assert shared["scores"][who] == pytest.approx(found, abs=2e-3)
    assert set(alone["scores"]) == {"Bayesian", "plain", "plain, 1 epochs"}
    assert alone["scores"]["plain"] != alone["scores"]["plain, 1 epochs"]
    record = json.loads((tmp_path / "alone" / "images.json").read_text())
    assert record["scores"] == alone["scores"] and record["settings"]["num_train"] == 200
    assert "subset" in record["data"] and "hands" in record["strangers"]
    assert (tmp_path / "alone" / "images.png").read_bytes().startswith(b"\x89PNG")


def test_bad_requests(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="There is no recipe 'wether'; there are images"):
        recipe("wether")
    with pytest.raises(ValueError, match="'huge' is no scale; there are ci, laptop, node"):
        execute("images", "huge")
    with pytest.raises(ValueError, match="ranks=0 must be at least 1"):
        execute("load", "ci", ranks=0)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot be written to .*file/out: Not a directory"):
        execute("load", "ci", folder=tmp_path / "file" / "out")
    with pytest.raises(SystemExit) as ended:
        main(["recipe", "wether"])
    assert ended.value.code == 2 and "There is no recipe" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_records_of_large_runs_are_drawn_and_described(name: str) -> None:
    record = recorded(name)
    assert record["recipe"] == name and record["scale"] == "laptop"
    assert "2 cores" in record["provenance"] and "torch" in record["provenance"]
    chosen = recipe(name)
    assert figures.png(chosen.draw(record)).startswith(b"\x89PNG")
    told = chosen.describe(record)
    assert all(who in told for who in record["scores"])


def test_a_record_that_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(base, "RECORDS", tmp_path)
    with pytest.raises(FileNotFoundError, match="'python -m spnb recipe load --out"):
        recorded("load")
    (tmp_path / "load.json").write_text('{"recipe": ')
    with pytest.raises(ValueError, match=r"load.json is damaged \(.*\): fetch it anew"):
        recorded("load")
