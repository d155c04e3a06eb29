"""The notebooks in a real browser: run all, then move an explorable by the keyboard."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from .conftest import Lab

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

MINUTES = 60_000  # in milliseconds


RUN_ALL = """async () => {
    const { commands, restored, shell } = window.jupyterapp;
    await restored;
    const { context, sessionContext } = shell.currentWidget;
    await context.ready;
    await sessionContext.ready;
    await sessionContext.session.kernel.info;
    window.allRun = await commands.execute('notebook:run-all-cells');
}"""


def run_all(page: Page) -> None:
    """Run all cells, and see that none failed."""
    page.set_default_timeout(2 * MINUTES)
    page.wait_for_function("() => window.jupyterapp !== undefined")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    # Not awaited here: what is evaluated has no time limit, what is waited for has.
    page.evaluate(f"() => {{ ({RUN_ALL})(); }}")
    page.wait_for_function("() => window.allRun !== undefined")
    assert page.evaluate("() => window.allRun")


def settled(page: Page, name: str) -> tuple[str, str]:
    """Words and picture of an explorable, once both have been still for 0.8 s."""
    before, still = ("", ""), 0
    while still < 4:
        page.wait_for_timeout(200)
        now = (
            page.locator(f".spnb-{name}-summary").inner_text(),
            page.locator(f".spnb-{name}-picture img").get_attribute("src") or "",
        )
        still = still + 1 if now == before else 0
        before = now
    return before


@pytest.mark.parametrize(
    ("notebook", "name", "control", "word"),
    [
        ("00_start_here.ipynb", "digits", "angle", "turned by"),
        ("03_sampling_parallelism_from_scratch.ipynb", "tiles", "samples", "evaluations"),
    ],
)
def test_a_slider_moves_the_picture_and_its_words(
    lab: Lab, page: Page, notebook: str, name: str, control: str, word: str
) -> None:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(lab.address(notebook))
    run_all(page)
    words, picture = settled(page, name)
    assert word in words
    handle = page.locator(f".spnb-{name}-{control} [role=slider]")
    handle.focus()
    handle.press("ArrowRight")
    moved, redrawn = settled(page, name)
    assert word in moved and moved != words and redrawn != picture
    alt = page.locator(f".spnb-{name}-picture img").get_attribute("alt")
    assert alt == " ".join(moved.split())
    handle.press("ArrowLeft")
    assert settled(page, name) == (words, picture)
    assert not errors
