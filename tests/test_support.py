"""What the suite promises of itself: nothing is left behind, and workers are asked for by name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pytest

ROOT = Path(__file__).parents[1]
CONFTEST = """
from pathlib import Path
from tests.support import leftovers
leftovers.GRACE = 0.5
leftovers.SHARED = (Path(__file__).parent / "shared",)
pytest_plugins = ["tests.support.tiers", "tests.support.leftovers"]
"""
TIDY = """
import subprocess, sys, tempfile
def test_tidy(tmp_path):
    (tmp_path / "mine").touch()
    with tempfile.TemporaryDirectory():
        subprocess.run([sys.executable, "-c", ""], check=True)
"""
LONG = 600 + os.getpid() / 1e6
"""Seconds, and the mark of the process that is left on purpose."""
UNTIDY = f"""
import pathlib, subprocess, sys, tempfile
import pytest
def test_leaves_a_folder():
    tempfile.mkdtemp(prefix="left-")
def test_leaves_a_process():
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep({LONG})"])
def test_leaves_a_file_among_those_of_others():
    pathlib.Path(__file__).with_name("shared").joinpath("new").touch()
@pytest.fixture
def broken():
    yield
    raise OSError
def test_leaves_a_file_and_breaks(broken):
    tempfile.mkstemp(prefix="left-")
def test_leaves_nothing():
    pass
"""
NOTEBOOK = nbformat.v4.new_notebook(
    cells=[nbformat.v4.new_code_cell("import tempfile; tempfile.mkdtemp(prefix='left-')")],
    metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
)
DEADLY = f"""
import os, subprocess, sys, tempfile
def test_before():
    pass
def test_dies():
    tempfile.mkdtemp(prefix="left-")
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep({LONG})"])
    os._exit(0)
"""
UNMARKED = """
import pytest, spnb
from jupyter_client.manager import KernelManager
def test_unmarked_kernel():
    manager = KernelManager()
    try:
        manager.start_kernel()
    finally:
        manager.cleanup_connection_file()
def test_unmarked_that_swallows_it():
    try:
        spnb.WorkerPool(1)
    except BaseException:
        pass
def test_unmarked():
    spnb.WorkerPool(1).run(int)
@pytest.mark.pool
def test_marked():
    with spnb.WorkerPool(1) as pool:
        assert pool.run(int) == [0]
"""


def suite(folder: Path, code: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a small suite of its own under the same rules."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "tmp").mkdir()
    (folder / "test_small.py").write_text(code)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null"]
    return subprocess.run(
        [*command, f"--rootdir={folder}", f"--basetemp={folder / 'temp'}", *options, str(folder)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "tmp")},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_tidy_suite_passes(tmp_path: Path) -> None:
    done = suite(tmp_path, TIDY)
    assert done.returncode == 0, done.stdout


@pytest.mark.kernel
@pytest.mark.parametrize("lanes", [[], ["-n1"]], ids=["alone", "xdist"])
def test_what_is_left_behind_is_an_error_of_its_test(tmp_path: Path, lanes: list[str]) -> None:
    (tmp_path / "book.ipynb").write_text(nbformat.writes(NOTEBOOK))
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/old").touch()
    done = suite(tmp_path, UNTIDY, "--nbmake", *lanes)
    end_what_was_left()
    assert done.returncode == 1, done.stdout
    errors = [line for line in done.stdout.splitlines() if line.startswith("ERROR ")]
    tests = sorted(line.split(" - ")[0].split("::")[-1] for line in errors)
    broken = "file_and_breaks"  # an error of its own, besides
    left = ("file_among_those_of_others", broken, broken, "folder", "process")
    assert tests == ["book.ipynb", *(f"test_leaves_a_{what}" for what in left)], done.stdout
    assert "test_leaves_a_file_among_those_of_others left behind: " in done.stdout
    assert "test_leaves_a_folder left behind: " in done.stdout
    assert "test_leaves_a_process left behind: process " in done.stdout
    assert "book.ipynb::book.ipynb left behind: " in done.stdout


def test_a_test_that_ends_its_process_is_named_with_what_it_left(tmp_path: Path) -> None:
    done = suite(tmp_path, DEADLY, "-n1", "--dist=loadfile", "--max-worker-restart=1")
    assert end_what_was_left() == 2  # xdist has tried it once more
    assert done.returncode != 0
    assert "worker 'gw0' crashed while running 'test_small.py::test_dies'" in done.stdout
    assert "test_small.py::test_dies left behind: process " in done.stdout, done.stdout
    assert not any(path.name.startswith("tmp") for path in (tmp_path / "tmp").iterdir())


def end_what_was_left() -> int:
    """End the processes that were left on purpose; how many there were."""
    command = [sys.executable, "-c", f"import time; time.sleep({LONG})"]
    found = [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == command]
    for process in found:
        process.kill()
    return len(found)


@pytest.mark.pool
def test_a_test_that_starts_workers_says_so(tmp_path: Path) -> None:
    done = suite(tmp_path, UNMARKED)
    # Refused as it starts, or at the latest when it is over.
    assert "2 failed, 2 passed" in done.stdout and "3 errors" in done.stdout, done.stdout
    assert "mark it with @pytest.mark.pool" in done.stdout
    assert "mark it with @pytest.mark.kernel" in done.stdout
