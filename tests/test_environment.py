"""The lists of dependencies are in step with each other, and the citation is well formed."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

import pytest
import rattler
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from spnb.teach.datasets import mauna_loa

ROOT = Path(__file__).parents[1]
CONDA_NAMES = {"torch": "pytorch"}
CALENDAR = {"packaging", "xarray"}  # their major version is a year: no end can be known
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT: dict[str, Any] = PYPROJECT["project"]


def direct(*extras: str) -> dict[str, SpecifierSet]:
    """The project's direct dependencies and their ranges, with those of some extras."""
    listed = list(PROJECT["dependencies"])
    for extra in extras:
        listed += PROJECT["optional-dependencies"][extra]
    found: dict[str, SpecifierSet] = {}
    for requirement in map(Requirement, listed):
        name = canonicalize_name(requirement.name)
        assert found.setdefault(name, requirement.specifier) == requirement.specifier, name
    return found


def locked() -> dict[str, Requirement]:
    lines = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): pin for pin in pins}


def environment() -> tuple[list[rattler.MatchSpec], list[str]]:
    """The conda specs of environment.yml, parsed strictly, and its pip lines."""
    text = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    assert text["name"] == "spnb" and text["channels"][0] == "conda-forge"
    conda = [entry for entry in text["dependencies"] if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in text["dependencies"] if isinstance(entry, dict)]
    return [rattler.MatchSpec(spec, strict=True) for spec in conda], pip


def test_every_range_has_both_ends_but_where_versions_are_dates() -> None:
    for name, specifier in direct("lab", "test").items():
        ends = {">="} if name in CALENDAR else {">=", "<"}
        assert {part.operator for part in specifier} == ends, name


def test_the_lock_pins_every_direct_dependency_within_its_range() -> None:
    pins = locked()
    for name, specifier in direct("lab", "test").items():
        assert name in pins, f"{name} is not locked: run `make lock`"
        (pin,) = pins[name].specifier
        assert specifier.contains(pin.version), f"{name}=={pin.version} is not {specifier}"


def test_the_lock_is_portable() -> None:
    for name, pin in locked().items():
        (version,) = pin.specifier
        assert version.operator == "==" and Version(version.version).local is None, name
        assert pin.url is None and pin.marker is None, name
        assert not re.match(r"nvidia-|cuda-|triton", name), name


def test_the_lock_admits_debians_python() -> None:
    compared = 0
    for name, pin in locked().items():
        try:
            installed = metadata(name)
        except PackageNotFoundError:
            continue
        if pin.specifier.contains(installed["Version"]):
            wants = SpecifierSet(installed.get("Requires-Python") or "")
            assert wants.contains("3.11.2"), f"{name} wants Python {wants}"
            compared += 1
    if not compared:
        pytest.skip("none of the installed packages has the version of the lock")


def test_conda_has_the_same_dependencies_and_ranges() -> None:
    specs, _ = environment()
    conda = {s.name.normalized: SpecifierSet(str(s.version or "")) for s in specs if s.name}
    assert conda.pop("python") == SpecifierSet(PROJECT["requires-python"])
    assert conda.pop("pip") == SpecifierSet()
    wanted = {CONDA_NAMES.get(name, name): range_ for name, range_ in direct("lab").items()}
    assert conda == wanted


def test_a_wheel_holds_the_record_where_its_loader_looks() -> None:
    forced = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    ((source, target),) = forced.items()
    assert (ROOT / source).is_file() and Path(source).name == mauna_loa.NAME
    assert ROOT / target == Path(mauna_loa.__file__).with_name(mauna_loa.NAME)


def test_the_citation_is_complete() -> None:
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert cff["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= cff.keys()
    assert str(cff["version"]) == PROJECT["version"] and cff["license"] == PROJECT["license"]
    assert {"type", "title", "authors", "url", "year"} <= cff["preferred-citation"].keys()
