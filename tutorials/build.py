"""Makes the notebooks: learner and solution versions out of the scripts in `sources/`.

    python tutorials/build.py            write them anew
    python tutorials/build.py --check    fail, with names, where one is not what its source gives

A source is a jupytext percent script, `sources/NN_name.py`. It holds everything once, the
solutions included. An exercise is this run of cells:

    # %% [markdown]
    # ### Exercise 1 · difficulty 2/5 · 5 minutes
    # What to do, and why.

    # %% tags=["exercise"]
    def average(total, world_size):
        # BEGIN SOLUTION
        # STUB: mean = ...  # divide by the right number
        mean = total / world_size
        # END SOLUTION
        return mean

    # %% [markdown] tags=["hint"]
    # How many terms does the sum have?

    # %% [markdown] tags=["expected"]
    # `average(6.0, 3)` is `2.0`.

    # %%
    check.exercise_1(average)

Between the two marks stands the solution, and in the learner's version the `STUB` lines take its
place (a region without any becomes `...`). A stub assigns or returns `...`, which the checker
reads as "not attempted yet", so every cell still runs. Hint, expected output and, for learners,
the solution follow the cell as folds. The solution version keeps the solution in the cell.

A cell that takes long and that nothing after it needs, but other such cells, may have the tag
``aside``: the tests in a browser, which are for the explorables, leave it out.

A source must have: one H1; a list under "You will be able to" that the list under "You can now"
repeats word for word; alt text for each image; exercises numbered from 1, each with hint,
expected output and a check. Cells over 25 lines, and fewer than 10 or more than 25 code cells, or
other than 3 to 5 exercises, only give warnings.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

HERE = Path(__file__).resolve().parent
OWN_TAGS = {"exercise", "hint", "expected"}
MARKS = re.compile(r"^\s*# (BEGIN SOLUTION|END SOLUTION|STUB:)", re.MULTILINE)
HEADING = re.compile(r"^### Exercise (\d+) · difficulty [1-5]/5 · \d+ minutes?$", re.MULTILINE)


class SourceError(Exception):
    """A source that breaks the conventions above."""


def split_solution(code: str) -> tuple[str, str]:
    """Split an exercise cell into what the learner sees and the whole solution.

    Args:
        code: The cell, with its `BEGIN SOLUTION`, `STUB:` and `END SOLUTION` lines.

    Returns:
        The learner's code and the solution's code, both without any of the marks.
    """
    stub: list[str] = []
    solution: list[str] = []
    region: list[str] | None = None  # the stub's lines, while inside a region
    for line in code.splitlines():
        word, indent = line.strip(), line[: len(line) - len(line.lstrip())]
        if word == "# BEGIN SOLUTION":
            if region is not None:
                raise SourceError("BEGIN SOLUTION inside a region")
            region, fallback = [], f"{indent}..."
        elif word == "# END SOLUTION":
            if region is None:
                raise SourceError("END SOLUTION without BEGIN SOLUTION")
            stub += region or [fallback]
            region = None
        elif word.startswith("# STUB:"):
            if region is None:
                raise SourceError("STUB outside a region")
            region.append((indent + word.removeprefix("# STUB:").removeprefix(" ")).rstrip())
        else:
            solution.append(line)
            if region is None:
                stub.append(line)
    if region is not None:
        raise SourceError("BEGIN SOLUTION without END SOLUTION")
    if stub == solution:
        raise SourceError("an exercise cell needs a BEGIN SOLUTION ... END SOLUTION region")
    return "\n".join(stub), "\n".join(solution)


def fold(title: str, body: str) -> str:
    """Markdown that is folded away under its title."""
    return f"<details><summary>{title}</summary>\n\n{body.strip()}\n\n</details>"


def build(source: str, *, solution: bool, origin: str = "") -> NotebookNode:
    """Make one notebook of a source.

    Args:
        source: The percent script.
        solution: Whether the exercises are solved in their cells.
        origin: The source's path, for the notebook's metadata.
    """
    script = jupytext.reads(source, fmt="py:percent")
    cells: list[NotebookNode] = []
    folds: NotebookNode | None = None  # the cell that takes the current exercise's folds
    answer = ""
    for cell in script.cells:
        tags = set(cell.metadata.get("tags", []))
        if folds is not None and not tags & {"hint", "expected"}:
            if not solution:
                _append(folds, fold("Solution", f"```python\n{answer}\n```"))
            folds = None
        if "exercise" in tags:
            stub, answer = split_solution(cell.source)
            cells += [_copy(cell, answer if solution else stub), folds := new_markdown_cell("")]
        elif tags & {"hint", "expected"}:
            if folds is None:
                raise SourceError(f"a {min(tags)} cell must follow its exercise cell")
            _append(folds, fold("Hint" if "hint" in tags else "Expected output", cell.source))
        elif cell.cell_type == "code" and MARKS.search(cell.source):
            raise SourceError("solution marks in a cell that is not tagged as an exercise")
        else:
            cells.append(_copy(cell, cell.source))
    if folds is not None and not solution:
        _append(folds, fold("Solution", f"```python\n{answer}\n```"))
    cells = [cell for cell in cells if cell.source]
    _number(cells)
    metadata = {
        "kernelspec": {
            "display_name": "Python 3 (ipykernel)",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
        "spnb": {"generated_from": origin},
    }
    if "execution" in script.metadata:
        metadata["execution"] = script.metadata["execution"]
    return new_notebook(cells=cells, metadata=metadata)


def _append(cell: NotebookNode, text: str) -> None:
    cell.source = f"{cell.source}\n\n{text}".strip()


def _copy(cell: NotebookNode, source: str) -> NotebookNode:
    new = new_code_cell if cell.cell_type == "code" else new_markdown_cell
    metadata = dict(cell.metadata)
    metadata.pop("lines_to_next_cell", None)  # jupytext's own note on the script's layout
    tags = [tag for tag in metadata.pop("tags", []) if tag not in OWN_TAGS]
    return new(source, metadata=metadata | ({"tags": tags} if tags else {}))


def _number(cells: list[NotebookNode]) -> None:
    """Give each cell an id that depends on its content alone, so that diffs stay small."""
    seen: dict[str, int] = {}
    for cell in cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[digest] = seen.get(digest, -1) + 1
        cell["id"] = f"{digest}-{seen[digest]}" if seen[digest] else digest


def review(source: str) -> tuple[list[str], list[str]]:
    """Hold a source to the conventions: what is wrong with it, and what is only unusual."""
    cells = jupytext.reads(source, fmt="py:percent").cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    errors, warnings = _review_exercises(cells)

    if (count := len(re.findall(r"^# ", prose, re.MULTILINE))) != 1:
        errors.append(f"{count} H1 headings instead of one")
    opening, closing = _bullets(prose, "You will be able to"), _bullets(prose, "You can now")
    if not opening:
        errors.append('no list under "You will be able to"')
    if opening != closing:
        errors.append('the list under "You can now" does not repeat "You will be able to"')
    images = re.findall(r"!\[\s*\]\(", prose) + re.findall(r"<img(?![^>]*\balt=\"[^\"]+)", prose)
    if images:
        errors.append(f"{len(images)} images without alt text")

    if not 10 <= len(code) <= 25:
        warnings.append(f"{len(code)} code cells (10 to 25 are usual)")
    for cell in code:
        if (lines := len(cell.splitlines())) > 25:
            warnings.append(f"a code cell of {lines} lines: {cell.splitlines()[0]!r}")
    return errors, warnings


def _bullets(text: str, title: str) -> list[str]:
    """The items of the first list after a line that holds the title."""
    _, found, rest = text.partition(title)
    items: list[str] = []
    for line in rest.splitlines()[1:] if found else []:
        if line.startswith("- "):
            items.append(line[2:].strip())
        elif items and line.startswith("  "):
            items[-1] += f" {line.strip()}"
        elif items:
            break
    return items


def _review_exercises(cells: list[NotebookNode]) -> tuple[list[str], list[str]]:
    errors: list[str] = []
    starts = [i for i, cell in enumerate(cells) if "exercise" in cell.metadata.get("tags", [])]
    for number, start in enumerate(starts, 1):
        following = starts[number] if number < len(starts) else len(cells)
        before = cells[start - 1].source if start else ""
        heading = HEADING.search(before)
        if heading is None or int(heading[1]) != number:
            want = f"### Exercise {number} · difficulty d/5 · m minutes"
            errors.append(f"the cell before exercise {number} needs the heading {want!r}")
        rest = cells[start + 1 : following]
        tags = {tag for cell in rest for tag in cell.metadata.get("tags", [])}
        errors += [
            f"exercise {number} has no {part} cell"
            for part in ("hint", "expected")
            if part not in tags
        ]
        if not any(f"exercise_{number}" in c.source for c in rest if c.cell_type == "code"):
            errors.append(f"exercise {number} is not checked: call check.exercise_{number}(...)")
    usual = 3 <= len(starts) <= 5
    return errors, [] if usual else [f"{len(starts)} exercises (3 to 5 are usual)"]


def notebooks(folder: Path = HERE) -> dict[Path, str]:
    """Every notebook that the folder's sources give: its path and its content."""
    made: dict[Path, str] = {}
    for path in sorted((folder / "sources").glob("[0-9][0-9]_*.py")):
        source, name = path.read_text(encoding="utf-8"), f"{path.stem}.ipynb"
        for target, solution in ((folder / name, False), (folder / "solutions" / name, True)):
            try:
                notebook = build(source, solution=solution, origin=f"tutorials/sources/{path.name}")
            except SourceError as error:
                raise SourceError(f"{path.name}: {error}") from error
            nbformat.validate(notebook)
            made[target] = nbformat.writes(notebook).rstrip("\n") + "\n"
    return made


def drift(folder: Path = HERE) -> list[str]:
    """The notebooks that are not what the sources give: missing, different or without source."""
    made = notebooks(folder)
    there = {*folder.glob("*.ipynb"), *(folder / "solutions").glob("*.ipynb")}
    stale = [
        path
        for path in {*made, *there}
        if path not in made or path not in there or path.read_text(encoding="utf-8") != made[path]
    ]
    return sorted(str(path.relative_to(folder)) for path in stale)


def main(arguments: list[str] | None = None, folder: Path = HERE) -> int:
    """Build or check; returns the exit status."""
    parser = argparse.ArgumentParser(description="Make the notebooks out of their sources.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail on drift")
    check = parser.parse_args(arguments).check
    failed = False
    for path in sorted((folder / "sources").glob("[0-9][0-9]_*.py")):
        errors, warnings = review(path.read_text(encoding="utf-8"))
        failed = failed or bool(errors)
        for kind, found in (("error", errors), ("warning", warnings)):
            for sentence in found:
                print(f"{path.name}: {kind}: {sentence}", file=sys.stderr)
    try:
        if check:
            for name in (stale := drift(folder)):
                print(f"{name} is out of step: run `make notebooks`", file=sys.stderr)
            return int(failed or bool(stale))
        for path, content in notebooks(folder).items():
            path.parent.mkdir(exist_ok=True)
            path.write_text(content, encoding="utf-8")
    except SourceError as error:
        print(error, file=sys.stderr)
        return 1
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
