"""A notebook in the browser, its kernel behind it, and what both say of an explorable."""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page

MINUTES = 60_000  # in milliseconds
SHOTS = Path(__file__).parents[2] / "out" / "browser"
"""Where the pictures of a run lie afterwards."""

RUN_ALL = """async (command) => {
    const { commands, restored, shell } = window.jupyterapp;
    await restored;
    const { context, sessionContext } = shell.currentWidget;
    await context.ready;
    await sessionContext.ready;
    await sessionContext.session.kernel.info;
    window.allRun = await commands.execute(command);
}"""

ASK = """async (code) => {
    const panel = window.jupyterapp.shell.currentWidget;
    const { kernel } = panel.context.sessionContext.session;
    const request = { code: '', silent: true, user_expressions: { found: code } };
    const reply = await kernel.requestExecute(request).done;
    const found = reply.content.user_expressions.found;
    return found.status === 'ok' ? found.data['text/plain'] : JSON.stringify(found);
}"""

PLACES = """selectors => selectors.map(selector => {
    const control = document.querySelector(selector);
    if (!control) return Infinity;
    const slider = control.querySelector('[role=slider]');
    if (slider) return Number(slider.getAttribute('aria-valuenow'));
    const list = control.querySelector('select');
    if (list) return list.selectedIndex;
    const buttons = [...control.querySelectorAll('button')];
    return buttons.length > 1 ? buttons.findIndex(b => b.classList.contains('mod-active')) : null;
})"""
"""Where controls stand on the page: their value, or the index of what is chosen."""

LOOK = """(lambda kept: (lambda e: __import__('json').dumps({
    'state': {name: str(value) for name, value in e.state.items()},
    'summary': e.summary, 'error': e.error, 'redraws': e.redraws, 'ms': e.last_ms,
    'picture': __import__('hashlib').sha256(e.png).hexdigest(),
    'places': {name: getattr(one, 'index', one.value) for name, one in e.controls.items()},
}))(kept.get(NAME) or kept.setdefault(NAME, next(e for e in __import__('gc').get_objects()
    if 'Explorable' in [k.__name__ for k in type(e).__mro__] and e.name == NAME
))))(vars(__import__('builtins')).setdefault('explorables_seen', {}))"""
"""What the kernel has; it looks for an explorable once and remembers it."""


@dataclass(frozen=True)
class Seen:
    """An explorable as the kernel knows it, when the page shows the same.

    Attributes:
        state: the controls' values as text.
        summary: its words.
        picture: SHA-256 of its PNG.
        redraws: how often it was drawn.
        ms: how long the last drawing took.
    """

    state: dict[str, str]
    summary: str
    picture: str
    redraws: int
    ms: float


class Notebook:
    """A notebook that is open in the browser.

    Args:
        page: the browser's page.
        address: where the notebook opens.

    Attributes:
        page: the page.
        errors: what the page's console reported as an error.
    """

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        page.set_default_timeout(2 * MINUTES)
        page.goto(address)
        page.wait_for_function("() => window.jupyterapp !== undefined")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell")

    def theme(self, name: str) -> None:
        """Choose a theme of JupyterLab, ``"Light"`` or ``"Dark"``; the server remembers it."""
        change = "theme => window.jupyterapp.commands.execute('apputils:change-theme', { theme })"
        self.page.evaluate(change, f"JupyterLab {name}")
        light = str(name == "Light").lower()
        self.page.wait_for_selector(f"body[data-jp-theme-light={light}]", state="attached")

    def run_all(self, command: str = "notebook:run-all-cells") -> None:
        """Run all cells, and see that none failed and none is still running."""
        # Not awaited here: what is evaluated has no time limit, what is waited for has.
        self.page.evaluate("() => { window.allRun = undefined; }")
        self.page.evaluate(f"() => {{ ({RUN_ALL})('{command}'); }}")
        if command.startswith("notebook:restart"):
            self.page.locator(".jp-Dialog .jp-mod-accept").click()
        self.page.wait_for_function("() => window.allRun !== undefined", timeout=8 * MINUTES)
        assert self.page.evaluate("() => window.allRun")
        assert self.page.locator(".jp-OutputArea-output[data-mime-type*=error]").count() == 0

    def explorables(self) -> list[str]:
        """Names of the explorables on the page, from top to bottom."""
        found = self.page.locator("[class*=spnb-][class*=-picture]").evaluate_all(
            "all => all.map(one => one.className.match(/spnb-(\\w+)-picture/)?.[1])"
        )
        return [name for name in found if name]

    def ask(self, expression: str) -> Any:
        """What an expression gives in the kernel, once it has done everything sent before."""
        return ast.literal_eval(self.page.evaluate(ASK, expression))

    def settled(self, name: str, after: Seen | None = None, seconds: float = 120) -> Seen:
        """An explorable as the kernel has it, once the page shows just that and nothing moves.

        Args:
            name: of the explorable.
            after: how it was before; another drawing is waited for. (The kernel hears controls in
                other threads than the one that answers here.)
            seconds: how long to wait at most.
        """
        limit, before = time.monotonic() + seconds, None
        while True:
            found = json.loads(self.ask(LOOK.replace("NAME", repr(name))))
            error, places = found.pop("error"), found.pop("places")
            assert error is None, f"{name}: {error}"
            seen = Seen(**found)
            drawn = after is None or seen.redraws > after.redraws
            moved = seen != before or not self._has_sent(name, places)
            if drawn and not moved and self._shows(name, seen):
                return seen
            assert time.monotonic() < limit, f"{name}: the page does not show {seen}"
            before = seen
            self.page.wait_for_timeout(60)

    def _has_sent(self, name: str, places: dict[str, Any]) -> bool:
        """Whether the kernel knows where the page's controls stand: the page sends with a delay."""
        found = self.page.evaluate(PLACES, [f".spnb-{name}-{key}" for key in places])
        return all(
            here is None or abs(here - there) <= 0.06  # the page rounds to one decimal
            for here, there in zip(found, places.values(), strict=True)
        )

    def _shows(self, name: str, seen: Seen) -> bool:
        words = self.page.locator(f".spnb-{name}-summary p").inner_text()
        image = self.page.locator(f".spnb-{name}-picture img")
        source, alt = (image.get_attribute(key) or "" for key in ("src", "alt"))
        picture = hashlib.sha256(base64.b64decode(source.partition(",")[2])).hexdigest()
        return picture == seen.picture and alt == seen.summary == " ".join(words.split())

    def control(self, name: str, control: str) -> Locator:
        """A control of an explorable."""
        return self.page.locator(f".spnb-{name}-{control}")

    def shoot(self, name: str, file: str) -> Path:
        """Keep a picture of an explorable, as it stands in the page."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        path = SHOTS / f"{file}.png"
        whole = self.page.locator(f".spnb-{name}").first
        whole.scroll_into_view_if_needed()
        whole.screenshot(path=path)
        return path


def press(control: Locator) -> bool:
    """Change a control by the keyboard alone.

    Returns:
        Whether it has anything to change.
    """
    if (slider := control.locator("[role=slider]")).count():
        slider.focus()
        low, high, now = (
            float(slider.get_attribute(f"aria-value{which}") or 0)
            for which in ("min", "max", "now")
        )
        if low == high:
            return False
        slider.press("ArrowRight" if now < high else "ArrowLeft")
    elif (select := control.locator("select")).count():
        select.focus()
        chosen, number = select.evaluate("one => [one.selectedIndex, one.options.length]")
        if number < 2:
            return False
        select.press("ArrowDown" if chosen + 1 < number else "ArrowUp")
    elif control.locator("button").count():
        others = control.locator("button:not(.mod-active)")
        if not others.count():
            return False
        others.first.focus()
        others.first.press("Enter")
    else:
        control.focus()
        control.press("Enter")
    return True


def drag(page: Page, control: Locator) -> bool:
    """Drag a slider's handle to a third of its track, or click another button.

    Returns:
        Whether it is a slider or buttons, and has anything to change.
    """
    if (slider := control.locator(".noUi-target")).count():
        slider.scroll_into_view_if_needed()
        track, handle = slider.bounding_box(), control.locator("[role=slider]").bounding_box()
        assert track and handle
        middle = handle["y"] + handle["height"] / 2
        place = (handle["x"] + handle["width"] / 2 - track["x"]) / track["width"]
        aim = track["x"] + track["width"] * (0.2 if place > 0.5 else 0.8)
        page.mouse.move(handle["x"] + handle["width"] / 2, middle)
        page.mouse.down()
        page.mouse.move(aim, middle, steps=6)
        page.mouse.up()
        return True
    if (others := control.locator("button:not(.mod-active)")).count():
        others.first.click()
        return True
    return False
