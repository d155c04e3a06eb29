"""The records behind the pages: copies them into ``docs``, and writes what the pages say of them.

    python -m benchmarks.pages --take out  # after `make bench` and `make tour`: their records too
    python -m benchmarks.pages             # tables, sentences and figures from the records in docs

In the README and in ``docs`` what was measured stands between two marks, ``<!-- name -->`` and
``<!-- /name -->``: a table, a sentence or a few numbers. The functions of `benchmarks.spans` write
it, from the records ``docs/NAME.json``. A figure bears the digest of the record that it was drawn
from. `tests/test_records.py` writes all of it anew, and compares.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image, PngImagePlugin

from benchmarks import figures, record
from benchmarks.spans import SPANS, Record
from spnb.teach.figures import footnote, png
from spnb.teach.recipes import NAMES, recipe

ROOT = record.ROOT
PAGES = ("README.md", "docs/paper.md", "docs/methods.md", "docs/scale.md")
PARTS = ("one_process", "memory", "scaling", "update", "planner", "prediction", "sharding")
"""Of the benchmark, those that a page speaks of."""
DIGEST = "record"
"""Name of a record's digest among the texts of a PNG file."""


def main(arguments: list[str] | None = None) -> int:
    """Take records, if asked to, and write the pages.

    Returns:
        0.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages", description=__doc__)
    parser.add_argument("--take", type=Path, metavar="OUT", help="folder with bench/ and tour/")
    chosen = parser.parse_args(arguments)
    if chosen.take:
        try:
            take(chosen.take)
        except (ValueError, OSError) as error:
            parser.error(str(error))
    for path in write():
        print(f"Wrote {path}.")
    return 0


# -- records ---------------------------------------------------------------------------------------


def take(out: Path, root: Path = ROOT, quick: bool = False) -> None:
    """Copy the records of ``make bench`` and ``make tour`` into ``docs``, and the tour's figure.

    Args:
        out: where they were written: ``bench/bench.json``, ``tour/tour.json``, ``tour/tour.png``.
        root: the repository.
        quick: whether quick runs are taken as well, which nobody should publish.

    Raises:
        FileNotFoundError: a record is not there; says how to make it.
        ValueError: a part is missing, or was run quickly.
    """
    bench, tour = out / "bench" / "bench.json", out / "tour" / "tour.json"
    for path, command in ((bench, "make bench"), (tour, "make tour")):
        if not path.exists():
            raise FileNotFoundError(f"There is no {path}: '{command}' makes it.")
    parts = record.read(bench)
    missing = [name for name in PARTS if name not in parts]
    hasty = [name for name, part in parts.items() if part["quick"]]
    if missing or (hasty and not quick):
        raise ValueError(
            f"{bench} is no record of a whole run (missing: {', '.join(missing) or 'nothing'}; "
            f"quick: {', '.join(hasty) or 'nothing'}): 'make bench' makes one."
        )
    made = datetime.fromtimestamp(tour.stat().st_mtime, UTC).isoformat(timespec="seconds")
    toured = {"date": made, "machine": record.provenance()["machine"]} | json.loads(
        tour.read_text("utf-8")
    )
    save(root / "docs" / "benchmark.json", {"parts": parts})
    save(root / "docs" / "tour.json", toured)
    picture = stamped((out / "tour" / "tour.png").read_bytes(), toured)
    (root / "docs" / "tour.png").write_bytes(picture)


def save(path: Path, found: Record) -> None:
    """Write a record, a list of numbers on one line."""
    text = json.dumps(found, indent=1, ensure_ascii=False)
    flat = re.sub(r"\[[^][{}\"]*\]", lambda match: " ".join(match.group().split()), text)
    path.write_text(flat + "\n", "utf-8")


def records(root: Path = ROOT) -> dict[str, Record]:
    """All records of a repository, by name."""
    paths = [root / "docs" / f"{name}.json" for name in ("benchmark", "tour", "gpu", *NAMES)]
    return {path.stem: json.loads(path.read_text("utf-8")) for path in paths if path.exists()}


# -- pages -----------------------------------------------------------------------------------------


def write(root: Path = ROOT) -> list[Path]:
    """Write pages and figures from the records.

    Returns:
        The files that have changed.
    """
    found, changed = records(root), []
    for name in PAGES:
        path = root / name
        before = path.read_text("utf-8")
        after = written(before, found)
        if after != before:
            path.write_text(after, "utf-8")
            changed.append(path)
    for name, draw in FIGURES.items():
        path = root / "docs" / f"{name}.png"
        if name in found and not (path.exists() and digest_of(path) == digest(found[name])):
            path.write_bytes(stamped(draw(found[name]), found[name]))
            changed.append(path)
    return changed


def written(page: str, found: dict[str, Record]) -> str:
    """A page with all that stands between marks written anew, where there is a record of it.

    Args:
        page: its text.
        found: the records, by name.

    Raises:
        ValueError: a mark that is none of `SPANS`, or that is not closed.
    """
    parts = re.split(r"<!-- (/?)([a-z0-9-]+) -->", page)
    opened = [name for closing, name in zip(parts[1::3], parts[2::3], strict=True) if not closing]
    if wrong := [name for name in opened if name not in SPANS]:
        raise ValueError(f"There is no text for the mark '{wrong[0]}'; there are {list(SPANS)}.")

    def anew(match: re.Match[str]) -> str:
        name, old = match.groups()
        sources, text = SPANS[name]
        if any(source not in found for source in sources):
            return match.group()
        edge = "\n" if old.startswith("\n") else ""
        told = text(*(found[source] for source in sources))
        return f"<!-- {name} -->{edge}{told}{edge}<!-- /{name} -->"

    after, count = re.subn(r"<!-- ([a-z0-9-]+) -->(.*?)<!-- /\1 -->", anew, page, flags=re.DOTALL)
    if count != len(opened) or 2 * count != len(parts) // 3:
        raise ValueError(f"A mark is not closed; there are {opened}.")
    return after


# -- figures ---------------------------------------------------------------------------------------


def digest(found: Record) -> str:
    """What names a record."""
    text = json.dumps(found, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def stamped(picture: bytes, found: Record) -> bytes:
    """A PNG file, as small as it can be, that names the record it was drawn from."""
    texts, file = PngImagePlugin.PngInfo(), BytesIO()
    texts.add_text(DIGEST, digest(found))
    with Image.open(BytesIO(picture)) as image:
        image.convert("RGB").save(file, format="PNG", pnginfo=texts, optimize=True)
    return file.getvalue()


def digest_of(path: Path) -> str | None:
    """The digest of the record that a figure was drawn from, if it bears one."""
    with Image.open(path) as image:
        return image.info.get(DIGEST)


def benchmark_figure(found: Record) -> bytes:
    """Step times, and peak memory below."""
    parts = found["parts"]
    drawn = (figures.one_process(parts["one_process"]), figures.memory(parts["memory"]))
    above, below = (Image.open(BytesIO(png(figure))).convert("RGB") for figure in drawn)
    size = max(above.width, below.width), above.height + below.height
    whole, file = Image.new("RGB", size, "white"), BytesIO()
    whole.paste(above, (0, 0))
    whole.paste(below, (0, above.height))
    whole.save(file, format="PNG")
    return file.getvalue()


def recipe_figure(name: str) -> Callable[[Record], bytes]:
    """What draws the record of a recipe."""

    def draw(found: Record) -> bytes:
        figure: Figure = recipe(name).draw(found)
        footnote(figure, found["provenance"])
        return png(figure)

    return draw


FIGURES: dict[str, Callable[[Record], bytes]] = {
    "benchmark": benchmark_figure,
    **{name: recipe_figure(name) for name in NAMES},
}
"""What draws a record's figure. (The tour's holds more than its record: it is taken along.)"""


if __name__ == "__main__":
    sys.exit(main())
