"""The suite leaves nothing behind: no process, no temporary file, no shared memory.

Each test's processes carry its name in their environment: pytest puts it there, and a marker of
this run stands beside it. Temporary files go into a folder of this run that is looked at after
every test. What remains when all fixtures have been torn down fails the run, by the name of the
test that made it.
"""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

RUN = "SPNB_TEST_RUN"
GRACE = 30.0
"""Seconds that processes have for ending when all tests are over."""
TRACKERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
"""Python's own helpers, which live as long as the process that they belong to."""
TORCHS = ("torchinductor_", "torchelastic_")
"""Folders of torch's own: its compiler's cache, and the logs of its launcher, which keeps them."""
SHARED = Path("/dev/shm")


class Watch:
    """What a run of tests has made, and by which test.

    Args:
        folder: for temporary files.

    Attributes:
        name: that of the run, in the environment of all its processes.
        files: first test after which a file was there, by its path.
    """

    def __init__(self, folder: Path) -> None:
        self.name, self.folder = uuid.uuid4().hex, folder
        self.files: dict[Path, str] = {}
        self._shared = _shared_memory()

    def look(self, test: str) -> None:
        """Remember which test made the files that are new."""
        for path in self._present():
            self.files.setdefault(path, test)

    def remaining(self) -> list[str]:
        """A line for each process and each file that is still there."""
        found = [
            f"{test} left process {process.pid}: {' '.join(command)[:200]}"
            for process, command, test in self._processes()
        ]
        present = self._present()
        found += [f"{test} left {path}" for path, test in self.files.items() if path in present]
        return found

    def _present(self) -> set[Path]:
        files = {path for path in self.folder.iterdir() if not path.name.startswith(TORCHS)}
        return files | _shared_memory() - self._shared

    def _processes(self) -> Iterator[tuple[psutil.Process, list[str], str]]:
        for process in psutil.process_iter():
            if process.pid == os.getpid():
                continue
            try:
                environment, command = process.environ(), process.cmdline()
            except psutil.Error:
                continue
            if environment.get(RUN) != self.name or any(t in " ".join(command) for t in TRACKERS):
                continue
            yield process, command, environment.get("PYTEST_CURRENT_TEST", "a fixture")


def _shared_memory() -> set[Path]:
    """Segments of torch and multiprocessing, which only their owner would remove."""
    names = ("torch_", "psm_", "sem.mp-", "spnb")
    return {path for path in SHARED.glob("*") if path.name.startswith(names)}


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """The first fixture to be set up, so the last one to be torn down."""
    folder = tmp_path_factory.mktemp("tmp", numbered=False)
    watch = Watch(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(RUN, watch.name)
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", None)
        request.config.stash[_KEY] = watch
        yield
        del request.config.stash[_KEY]
    end = time.monotonic() + GRACE
    while (found := watch.remaining()) and time.monotonic() < end:
        time.sleep(0.1)
    if found:
        raise AssertionError("\n".join(["Something was left behind:", *found]))


_KEY = pytest.StashKey[Watch]()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Look at the files after every test."""
    if (watch := item.config.stash.get(_KEY, None)) is not None:
        watch.look(item.nodeid)
