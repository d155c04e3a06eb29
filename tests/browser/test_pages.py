"""Explorables as pages of their own: Voilà serves them, and a reader moves them without a Lab."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Page

from spnb.teach.pages import PAGES

from .driver import SHOTS, press

pytestmark = [pytest.mark.browser, pytest.mark.kernel, pytest.mark.exhaustive]

MOVED = {"posterior": ("samples", "method"), "planner": ("ranks", "objective")}
"""Controls of each page that are pressed; the first has no fit to wait for."""


@pytest.fixture(params=list(PAGES))
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A page's name and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "spnb", "page", request.param, f"--port={port}"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen([*command, "--no-browser"], stdout=log, stderr=log)
    try:
        limit = time.monotonic() + 180
        while "is running at" not in (said := (tmp_path / "log").read_text()):
            assert time.monotonic() < limit and server.poll() is None, said
            time.sleep(0.2)
        yield request.param, f"http://127.0.0.1:{port}/"
        kernels = psutil.Process(server.pid).children(recursive=True)
        assert kernels
        server.terminate()
        server.wait(60)
        assert not psutil.wait_procs(kernels, timeout=60)[1], "no kernel is left"
    finally:
        server.kill()


def test_a_page_moves(served: tuple[str, str], page: Page) -> None:
    name, url = served
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(url, timeout=300_000)  # the page comes when all of it has run
    words = page.locator(f".spnb-{name}-summary p")
    words.wait_for(timeout=180_000)
    assert page.locator("h1").inner_text() == PAGES[name].title
    for control in MOVED[name]:
        before = words.inner_text()
        assert press(page.locator(f".spnb-{name}-{control}"))
        page.wait_for_function(
            "([name, before]) => { const words = document.querySelector(`.spnb-${name}-summary p`);"
            " return words.innerText !== before && words.role !== 'status'; }",
            arg=[name, before],
            timeout=180_000,
        )
    image = page.locator(f".spnb-{name}-picture img")
    assert image.get_attribute("alt") == " ".join(words.inner_text().split())
    page.screenshot(path=SHOTS / f"page-{name}.png")
    assert not errors
