"""A real JupyterLab on loopback, and a real browser in front of it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Page, sync_playwright

from .explorables import ALONE, ON_WORKERS

ROOT = Path(__file__).parents[2]
TUTORIALS = ROOT / "tutorials"
EXPLORABLES = "explorables.ipynb"
"""A notebook that shows every explorable once."""
TOKEN = "only-for-this-test"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()
SETTINGS = {
    "apputils-extension/notification.jupyterlab-settings": {
        "fetchNews": "false",
        "checkForUpdates": False,
    },
    "notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
}


@dataclass
class Lab:
    """A running JupyterLab on copies of the notebooks.

    Attributes:
        url: where it listens.
    """

    url: str

    def address(self, notebook: str) -> str:
        """Where a notebook opens, in an empty workspace."""
        return f"{self.url}/lab/tree/{notebook}?token={TOKEN}&reset"

    def end_kernels(self) -> None:
        """End all kernels, and with them their workers: a notebook gets a new one next time."""
        for kernel in json.loads(self._ask("GET", "kernels")):
            self._ask("DELETE", f"kernels/{kernel['id']}")

    def _ask(self, method: str, what: str) -> bytes:
        headers = {"Authorization": f"token {TOKEN}"}
        request = urllib.request.Request(f"{self.url}/api/{what}", headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.read()


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    home = tmp_path_factory.mktemp("lab")
    folder = home / "notebooks"
    folder.mkdir()
    for notebook in (TUTORIALS / "solutions").glob("*.ipynb"):
        content = nbformat.read(notebook, nbformat.NO_CONVERT)
        content.cells = [cell for cell in content.cells if "aside" not in tags(cell)]
        nbformat.write(content, folder / notebook.name)
    nbformat.write(all_explorables(), folder / EXPLORABLES)
    for name, values in SETTINGS.items():
        file = home / "settings" / "@jupyterlab" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "PYTHONPATH": str(ROOT),  # for the page of all explorables
        "SPNB_CHECKS": "strict",  # an exercise whose check fails raises
        "SPNB_SCALE": "ci",
    }
    command = [
        sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root",
        "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={folder}", f"--IdentityProvider.token={TOKEN}",
        "--LabApp.expose_app_in_browser=True",
    ]  # fmt: skip
    with (home / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(f"{url}/api?token={TOKEN}", server, home / "log")
        yield Lab(url)
    finally:
        server.terminate()  # and with it the kernels, and with them their workers
        server.wait(60)


def all_explorables() -> nbformat.NotebookNode:
    """A notebook with a cell for each explorable."""
    cells = [
        "%matplotlib inline\nimport spnb\nfrom tests.browser.explorables import ALONE, ON_WORKERS\n"
        "pool = spnb.WorkerPool(2, threads=1, restarts=2, patience=60.0, silence=None)",
        *(f"ALONE[{name!r}]()" for name in ALONE),
        *(f"ON_WORKERS[{name!r}](pool)" for name in ON_WORKERS),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells], metadata={"kernelspec": kernel}
    )


def tags(cell: nbformat.NotebookNode) -> list[str]:
    """A cell's tags. ``aside`` marks a long one that no explorable needs: nbmake alone runs it."""
    found: list[str] = cell.metadata.get("tags", [])
    return found


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path, seconds: float = 180) -> None:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the browser."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if (path := shutil.which(name)) is not None:
            return path
    pytest.skip("needs the browser chromium, in Debian's package of that name")


@pytest.fixture
def page(lab: Lab, chromium: str, tmp_path: Path) -> Iterator[Page]:
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(tmp_path / "profile"), executable_path=chromium, args=FLAGS,
            viewport={"width": 1300, "height": 1000},
        )  # fmt: skip
        page = context.new_page()
        yield page
        context.close()
    lab.end_kernels()
