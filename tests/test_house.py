"""Holds the house's rules: imports go down the floors only, and nothing leaks."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("maths", "parallel", "run", "teach")
UP = {
    "maths": ("spnb.parallel", "spnb.run", "spnb.teach"),
    "parallel": ("spnb.maths", "spnb.run", "spnb.teach"),
    "run": ("spnb.teach",),
    "teach": (),
}
FORBIDDEN = {
    "maths": (*UP["maths"], "torch.distributed", "ipywidgets", "matplotlib", "IPython"),
    "parallel": (*UP["parallel"], "ipywidgets", "matplotlib"),
    "run": (*UP["run"], "ipywidgets", "matplotlib"),
    "teach": (),
}
LOCAL_PATHS = re.compile(r"(?<![\w./~<>$}-])/(?:root|work|home/\w+|Users/\w+)/|file:///\w")


def imported(code: str, module: str, is_package: bool = False) -> Iterator[str]:
    """Every module that a file's code imports, wherever in the file it does so.

    Args:
        code: The file's text.
        module: The file's own dotted name, which relative imports start from.
        is_package: Whether the file is an `__init__.py`.
    """
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=target, names=names, level=level):
                parts = module.split(".")
                base = parts[: len(parts) - level + is_package] if level else []
                origin = ".".join([*base, *([target] if target else [])])
                yield from (f"{origin}.{alias.name}" for alias in names)
            case ast.Call(args=[ast.Constant(value=str(name)), *_]) if ast.unparse(node.func) in (
                "__import__",
                "importlib.import_module",
                "import_module",
            ):
                yield name
            case ast.Attribute() if (chain := ast.unparse(node)) == "torch.distributed":
                yield chain


def violations(code: str, module: str, is_package: bool = False) -> list[str]:
    """What a file imports although its floor may not."""
    floor = module.split(".")[1] if "." in module else ""
    found = []
    for name in imported(code, module, is_package):
        banned = FORBIDDEN.get(floor, ())
        if any(f"{name}.".startswith(f"{entry}.") for entry in banned):
            found.append(name)
        # Lower floors may name other floors, but not the roof (spnb itself), which imports all.
        elif floor in ("maths", "parallel", "run") and name.split(".")[0] == "spnb":
            if len(name.split(".")) < 2 or name.split(".")[1] not in FLOORS:
                found.append(name)
    return found


def library() -> list[Path]:
    return sorted((ROOT / "spnb").rglob("*.py"))


def dotted(path: Path) -> tuple[str, bool]:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    is_package = parts[-1] == "__init__"
    return ".".join(parts[:-1] if is_package else parts), is_package


def project_files() -> list[Path]:
    """The repository's files, or those that would be committed."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [p for name in listing.stdout.split("\0") if name and (p := ROOT / name).is_file()]


@pytest.mark.parametrize("path", library(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path: Path) -> None:
    module, is_package = dotted(path)
    assert violations(path.read_text(encoding="utf-8"), module, is_package) == []


@pytest.mark.parametrize("path", library(), ids=lambda path: str(path.relative_to(ROOT)))
def test_library_files_say_what_they_are_for(path: Path) -> None:
    code = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(code)), "a module begins with what it is for"


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("spnb.maths.priors", "import torch.distributed as dist"),
        ("spnb.maths.priors", "from torch import distributed"),
        ("spnb.maths.priors", "import torch\ntorch.distributed.get_rank()"),
        ("spnb.maths.priors", "def f():\n    import matplotlib.pyplot"),
        ("spnb.maths.priors", "from ..parallel import layout"),
        ("spnb.maths.priors", "from .. import run"),
        ("spnb.maths.priors", "import importlib\nimportlib.import_module('ipywidgets')"),
        ("spnb.parallel.pool", "from spnb.maths.priors import normal"),
        ("spnb.parallel.pool", "if TYPE_CHECKING:\n    from spnb import maths"),
        ("spnb.parallel.pool", "from spnb import Layout"),
        ("spnb.parallel.pool", "import spnb"),
        ("spnb.run.fit", "from spnb.teach.check import close"),
        ("spnb.run.fit", "import ipywidgets"),
    ],
)
def test_a_violation_is_caught(module: str, code: str) -> None:
    assert violations(code, module) != []


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("spnb.maths.priors", "import torch.distributions\nfrom . import objectives"),
        ("spnb.maths.priors", "from .objectives import elbo"),
        ("spnb.run.fit", "from ..maths.priors import normal\nfrom spnb.parallel import layout"),
        ("spnb.teach.check", "import ipywidgets\nfrom spnb import fit\nfrom spnb.maths import a"),
        ("spnb.tour", "import matplotlib\nfrom . import run"),
    ],
)
def test_what_is_allowed_passes(module: str, code: str) -> None:
    assert violations(code, module) == []


def test_relative_imports_start_from_a_package_itself() -> None:
    assert list(imported("from . import a", "spnb.maths", is_package=True)) == ["spnb.maths.a"]
    assert list(imported("from ..run import a", "spnb.maths", is_package=True)) == ["spnb.run.a"]
    assert list(imported("from ..run import a", "spnb.maths.x")) == ["spnb.run.a"]


def test_notebooks_have_no_outputs() -> None:
    for path in project_files():
        if path.suffix == ".ipynb":
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            run = [c for c in cells if c.get("outputs") or c.get("execution_count")]
            assert not run, f"{path.relative_to(ROOT)} has outputs: run `make notebooks`"


def test_no_path_of_one_machine_is_named() -> None:
    found = {}
    for path in project_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if here := LOCAL_PATHS.findall(text):
            found[str(path.relative_to(ROOT))] = here
    assert found == {}


def test_paths_of_one_machine_are_caught() -> None:
    slash = "/"  # so that this file has none of them
    assert LOCAL_PATHS.search(f"cd {slash}root/project")
    assert LOCAL_PATHS.search(f"torch @ file:{slash * 3}wheels/torch.whl")
    elsewhere = (f"https://example.org{slash}home/me/", f"~{slash}work/", f".{slash}root/")
    assert not LOCAL_PATHS.search(" and ".join(elsewhere))
