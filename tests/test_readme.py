"""The README's code runs as it stands, and the commands it names exist."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser.explorables import ALONE, ON_WORKERS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.pool
def test_the_code_of_the_readme_runs_in_a_file_of_its_own(tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    script = tmp_path / "example.py"
    script.write_text(block)
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    scores = ast.literal_eval(ran.stdout)
    assert scores["accuracy"] > 0.9 and set(scores) == {"accuracy", "nll", "brier", "ece"}


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_the_commands_of_a_page_exist(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    spans = re.findall(r"`(make [^`]+)`|^(make .+)$", (ROOT / page).read_text(), re.MULTILINE)
    commands = [(one or other).partition("#")[0].split()[1:] for one, other in spans]
    targets = {word for words in commands for word in words if re.fullmatch(r"[a-z-]+", word)}
    assert targets >= {"test", "test-fast"} if page == "CONTRIBUTING.md" else targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_links_of_the_readme_lead_somewhere() -> None:
    for link in re.findall(r"\]\((?!https?://)([^)]+)\)", README):
        assert (ROOT / link).exists(), link


def explorables() -> set[str]:
    """Names of all explorables."""
    sources = (ROOT / "spnb" / "teach" / "explore").glob("*.py")
    made = re.compile(r"(?:Explorable|super\(\).__init__)\(\s*\"(\w+)\"")
    return {name for source in sources for name in made.findall(source.read_text())}


def test_a_page_shows_every_explorable() -> None:
    assert {*ALONE, *ON_WORKERS} == explorables(), "see tests/browser/explorables.py"


@pytest.mark.exhaustive  # its pictures take half an hour, so they may come later
def test_the_gallery_shows_every_explorable() -> None:
    pictures = re.findall(
        r"!\[([^\]]+)\]\((gallery/[^)]+)\)", (ROOT / "docs/gallery.md").read_text()
    )
    shown = {path.split("-")[1].removesuffix(".png") for _, path in pictures}
    assert shown == explorables(), "a title in SHOWN of tests/browser/gallery.py; `make gallery`"
    for words, path in pictures:
        assert words.strip(), path
        assert (ROOT / "docs" / path).stat().st_size < 100_000, path


def test_every_notebook_is_in_the_table_and_in_the_form_for_issues() -> None:
    form = (ROOT / ".github/ISSUE_TEMPLATE/course.yml").read_text()
    for path in (ROOT / "tutorials").glob("*.ipynb"):
        assert f"](tutorials/{path.name})" in README
        assert re.search(rf"- \"?{path.name[:2]} ", form), path.name
