"""The suite leaves nothing behind: no process, no temporary file, no shared memory.

Each test's processes carry its name in their environment: pytest puts it there, and a marker of
this run stands beside it. Temporary files go into a folder of this run that is looked at after
every test, and so are the places that all processes of pytest share. What remains when the last
test is over is an error of the test that made it. A process of pytest that dies tells nothing; the
one that started it looks for what its tests have left.

Not seen are files that a test writes elsewhere on the machine, over others, or where git ignores
them; shared memory that is not torch's; and processes that it gives another environment.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).parents[2]
RUN = "SPNB_TEST_RUN"
GRACE = 30.0
"""Seconds that processes have for ending when all tests are over."""
TRACKERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
"""Python's own helpers, which live as long as the process that they belong to."""
CACHES = ("torchinductor_", "pytest-of-")
"""Folders that outlive a run on purpose: of torch's compiler, and of pytest in the tests."""
SHARED = (ROOT, *(ROOT / name for name in ("tutorials", "tutorials/solutions", "data")))
"""Folders in which all processes of pytest may leave something."""
KEPT = ("__pycache__", "build", "out")
"""Names in `SHARED` that stay, as hidden ones do: what Python and `make` write."""


class Watch:
    """What a run of tests has made, and by which test.

    Args:
        folder: for temporary files.
        name: that of the run, in the environment of all its processes.

    Attributes:
        files: first test after which a file was there, by its path.
        shared: the same for files in `SHARED`, that another process's test may have made.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.folder = name, folder
        self.files: dict[Path, str] = {}
        self.shared: dict[str, str] = {}
        self._before = _shared_memory()
        self._shared_before = shared_files()

    def look(self, test: str) -> None:
        """Remember which test made the files that are new."""
        for path in self._present():
            self.files.setdefault(path, test)
        for name in shared_files() - self._shared_before:
            self.shared.setdefault(name, test)

    def remaining(self) -> list[tuple[str, str]]:
        """The test and a description of each process and each file that is still there."""
        self.look("the end of the run")
        present = self._present()
        return [
            *processes_of(self.name),
            *((t, str(f)) for f, t in self.files.items() if f in present),
        ]

    def _present(self) -> set[Path]:
        files = {path for path in self.folder.iterdir() if not path.name.startswith(CACHES)}
        return files | _shared_memory() - self._before


def processes_of(run: str) -> Iterator[tuple[str, str]]:
    """The test and a description of each process that a run, or part of it, has started."""
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            environment, command = process.environ(), " ".join(process.cmdline())
        except psutil.Error:
            continue
        if environment.get(RUN, "").startswith(run) and not any(t in command for t in TRACKERS):
            test = environment.get("PYTEST_CURRENT_TEST", "a fixture (setup)").rpartition(" ")[0]
            yield test, f"process {process.pid}: {command[:200]}"


def shared_files() -> set[str]:
    """What lies in `SHARED`."""
    found = (path for folder in SHARED if folder.is_dir() for path in folder.iterdir())
    return {str(p) for p in found if not (p.name in KEPT or p.name.startswith("."))}


def unknown_files() -> set[str]:
    """Files anywhere in the repository that git neither has nor ignores."""
    command = ["git", "ls-files", "--others", "--exclude-standard", "--full-name"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    except OSError:  # there is no git
        return set()
    return {str(ROOT / name) for name in listed.stdout.splitlines()}


def _shared_memory() -> set[Path]:
    """Segments of torch whose maker, a process that their name tells, is gone."""
    found = Path("/dev/shm").glob("torch_*_*_*")
    return {path for path in found if not psutil.pid_exists(int(path.name.split("_")[1]))}


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Iterator[Any]:
    """Watch all tests, notebooks as well, and report what remains as errors."""
    config = session.config
    if hasattr(config, "workeroutput"):  # the process that started this one reports
        return (yield from _watched(config))
    before, seen = shared_files() | unknown_files(), config.stash.setdefault(_SEEN, {})
    if config.pluginmanager.has_plugin("dsession"):  # hands the tests to other processes
        try:
            result = yield
        finally:  # also where too many of them have died
            name, folder = config.stash[_RUN]
            _report(config, list(processes_of(name)))
            shutil.rmtree(folder, ignore_errors=True)
    else:
        result = yield from _watched(config)
    for name in sorted((shared_files() | unknown_files()) - before):
        _report(config, [(test, name) for test in seen.get(name, ["some test"])])
    return result


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell another process of pytest what the run is called, and where its temporary files go."""
    stash = node.config.stash
    if _RUN not in stash:
        stash[_RUN] = uuid.uuid4().hex, tempfile.mkdtemp()
    name, folder = stash[_RUN]
    node.workerinput |= {"run": f"{name}-{node.gateway.id}", "folder": folder}


def _watched(config: pytest.Config) -> Iterator[Any]:
    """Run the tests of this process, and tell what remains of each."""
    given = getattr(config, "workerinput", {})
    with (
        tempfile.TemporaryDirectory(dir=given.get("folder"), ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        watch = config.stash[_WATCH] = Watch(Path(folder), given.get("run") or uuid.uuid4().hex)
        patch.setenv("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # where `tmp_path` goes
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", None)
        patch.setenv(RUN, watch.name)
        result = yield
        end = time.monotonic() + GRACE
        while (found := watch.remaining()) and time.monotonic() < end:
            time.sleep(0.1)
    told = {"left behind": found, "seen": watch.shared}
    if hasattr(config, "workeroutput"):  # of xdist: sent to the process that reports
        config.workeroutput |= told
    else:
        _hear(config, told)
    return result


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hear what the tests of another process have left behind."""
    _hear(node.config, getattr(node, "workeroutput", {}))


def _hear(config: pytest.Config, told: dict[str, Any]) -> None:
    _report(config, told.get("left behind", []))
    for name, test in told.get("seen", {}).items():
        config.stash[_SEEN].setdefault(name, []).append(test)


def _report(config: pytest.Config, found: list[tuple[str, str]]) -> None:
    told = config.stash.setdefault(_TOLD, set())
    for test, what in found:
        if (test, what) in told:
            continue
        told.add((test, what))
        place = (test.partition("::")[0], None, test)
        message = f"{test} left behind: {what}"
        error = pytest.TestReport(test, place, {}, "failed", message, "teardown")
        config.hook.pytest_runtest_logreport(report=error)


_WATCH = pytest.StashKey[Watch]()
_RUN = pytest.StashKey[tuple[str, str]]()
"""Name and folder of a run whose tests are handed to other processes."""
_TOLD = pytest.StashKey[set[tuple[str, str]]]()
"""What has been reported."""
_SEEN = pytest.StashKey[dict[str, list[str]]]()
"""Tests after which a file in `SHARED` was there first, one of each process."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Look at the files after every test, also where its teardown fails."""
    try:
        return (yield)
    finally:
        item.config.stash[_WATCH].look(item.nodeid)
