"""The solver of ``environment.yml``, against a channel that is a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rattler.exceptions import InvalidMatchSpecError

from tests.conda_solve import ROOT, main, parse

ENVIRONMENT = """
name: small
channels: [conda-forge, nodefaults]
dependencies:
  - python >=3.11
  - numpy >=1.26,<3
  - pip: [-e ., "tool>=2"]
"""


def package(name: str, version: str, *depends: str) -> dict[str, Any]:
    """An entry of a channel's list."""
    return {
        f"{name}-{version}-0.conda": {
            "name": name,
            "version": version,
            "build": "0",
            "build_number": 0,
            "depends": depends,
            "sha256": "0" * 64,
            "size": 1,
        }
    }


@pytest.fixture
def channel(tmp_path: Path) -> Path:
    """Two versions of Python and three of numpy, of which only one fits."""
    folder = tmp_path / "channel"
    listed = (
        package("python", "3.10.1")
        | package("python", "3.12.4", "__glibc >=2.17")
        | package("numpy", "1.20", "python")
        | package("numpy", "2.1", "python >=3.11", "blas")
        | package("numpy", "3.0", "python")
        | package("blas", "1.0")
    )
    for platform, packages in (("linux-64", listed), ("noarch", {})):
        (folder / platform).mkdir(parents=True)
        content = {"info": {"subdir": platform}, "packages": {}, "packages.conda": packages}
        (folder / platform / "repodata.json").write_text(json.dumps(content))
    return folder


def solved(folder: Path, channel: Path, text: str = ENVIRONMENT) -> int:
    file = folder / "environment.yml"
    file.write_text(text)
    return main(["--file", str(file), "--channel", str(channel)])


def test_a_file_is_parsed() -> None:
    channels, specs, pip = parse(ENVIRONMENT)
    assert channels == ["conda-forge"] and pip == ["-e .", "tool>=2"]
    assert [spec.name.normalized for spec in specs if spec.name] == ["python", "numpy"]
    with pytest.raises(InvalidMatchSpecError):
        parse(ENVIRONMENT.replace(">=3.11", "=>3.11"))


def test_the_file_of_the_project_is_parsed() -> None:
    channels, specs, pip = parse((ROOT / "environment.yml").read_text("utf-8"))
    assert channels == ["conda-forge"] and pip == ["-e ."]
    assert {"python", "pytorch", "jupyterlab"} <= {s.name.normalized for s in specs if s.name}


def test_versions_that_fit_are_chosen(
    tmp_path: Path, channel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert solved(tmp_path, channel) == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["python 3.12.4", "numpy 2.1"]


def test_no_solution_is_told_with_the_spec(
    tmp_path: Path, channel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert solved(tmp_path, channel, ENVIRONMENT.replace(">=1.26,<3", ">=4")) == 1
    assert "numpy >=4" in capsys.readouterr().err


def test_a_channel_that_cannot_be_read_is_told_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert solved(tmp_path, tmp_path / "nowhere") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
