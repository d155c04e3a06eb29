"""The doctor finds what is wrong, and says what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from spnb.parallel import devices
from spnb.teach import doctor, trial
from spnb.teach.doctor import BAD, GOOD, HINT, Finding, Report


@pytest.fixture
def _no_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are tried in one test; here they would only take time."""
    found = trial.Trial(1.0, 2e-5, 2e9, "shared memory", "cpu", 1e-16)
    monkeypatch.setattr(trial, "of_ranks", lambda ranks: found)


def about(name: str, ranks: int = 2) -> Finding:
    return next(f for f in doctor.examine(ranks).findings if f.name == name)


@pytest.mark.pool
def test_the_command_tells_a_machine_everything() -> None:
    env = {k: v for k, v in os.environ.items() if k not in doctor.LEFT_BY_LAUNCHERS}
    command = [sys.executable, "-m", "spnb.doctor", "--json"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {f["name"]: f for f in json.loads(done.stdout)["findings"]}
    assert found["same results"]["verdict"] == GOOD
    assert "GB/s" in found["all-reduce"]["value"]
    assert f"torch {version('torch')}" in found["packages"]["value"]
    assert {"cores", "memory", "devices", "/dev/shm", "ports", "worker pool"} <= set(found)


@pytest.mark.usefixtures("_no_ranks")
def test_what_is_wrong_gets_an_advice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "512")
    monkeypatch.setenv("SPNB_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setattr(devices, "visible_gpus", lambda: 1)
    monkeypatch.setattr(devices, "usable_cores", lambda: 1)
    monkeypatch.setattr(devices, "shared_memory_warning", lambda: "too small: make it larger")
    report = doctor.examine(2)
    found = {f.name: f for f in report.findings}
    advice = {name: f.advice for name, f in found.items() if f.verdict == HINT}
    assert advice["cores"] == "2 ranks share 1 core: the same results, later."
    assert advice["devices"] == "With 1 rank each would have a GPU."
    assert advice["/dev/shm"] == "too small: make it larger"
    assert advice["environment"].startswith("Unset RANK: this process would wait")
    assert "more threads wait" in advice["threads"]
    assert "is not a folder" in advice["data sets"]
    assert report.healthy and "with a hint" in report.summary


@pytest.mark.usefixtures("_no_ranks")
def test_a_gpu_that_torch_does_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "visible_gpus", lambda: 0)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "built without CUDA" in about("devices").advice
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert "driver too old" in about("devices").advice


def test_trouble_is_told_and_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(ranks: int) -> Any:
        raise RuntimeError("no worker came")

    monkeypatch.setattr(trial, "of_ranks", broken)
    from spnb.doctor import main

    assert main([]) == 1
    said = capsys.readouterr().out
    assert "✗ two ranks" in said and "RuntimeError: no worker came" in said
    assert said.strip().splitlines()[-1].startswith("Trouble in 1 of ")
    wrong = trial.Trial(1.0, 2e-5, 2e9, "gloo", "cpu", 0.3)
    monkeypatch.setattr(trial, "of_ranks", lambda ranks: wrong)
    assert about("same results").verdict == BAD
    with pytest.raises(SystemExit):
        main(["--ranks", "0"])


def test_the_page_can_be_read_aloud() -> None:
    page = Report((Finding("a <b>", "1", HINT, "do & see"),), 2.0)._repr_html_()
    assert 'aria-label="hint"' in page and "a &lt;b&gt;" in page and "do &amp; see" in page
    assert "1 with a hint" in page
