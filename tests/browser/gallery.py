"""The gallery: pictures of the explorables in ``docs/``, from the last run of the browser tests.

    make gallery

The tests leave a picture of each explorable and its words in ``out/browser``; here they become
small PNGs and a page.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "out" / "browser"
DOCS = ROOT / "docs"
COLOURS = 160
WIDEST = 820

#: notebook, name -> title, and what one does with it
SHOWN = {
    ("00", "digits"): (
        "Digit explorer",
        "Turn a digit, and watch the draws of the network part",
    ),
    ("00", "failures"): (
        "Failure lab",
        "Let a rank fail, and see how the notebook notices",
    ),
    ("01", "posterior"): (
        "Posterior explorer",
        "Prior, noise, method, S; two kinds of doubt",
    ),
    ("01", "playground"): ("Playground", "Add and drag points; the exact posterior follows"),
    ("02", "budget"): ("Sample budget", "What S samples buy, and how uncertain it still is"),
    ("03", "tiles"): ("Tile board", "Cut samples × rows into tiles, one for each rank"),
    ("03", "lamp"): ("Equivalence lamp", "Build in a mistake; live ranks show what it does"),
    ("04", "race"): ("Predict, then measure", "Say how fast two ranks will be, then let them run"),
    ("04", "timeline"): ("Timeline of a step", "What each rank does in a real step"),
    ("05", "planner"): ("Layout planner", "Time, traffic and memory of every layout"),
    ("06", "bias"): ("Bias explorer", "What plain averaging gets wrong, and by how much"),
    ("07", "images"): (
        "Image explorer",
        "Blur and turn photographs until the samples part",
    ),
    ("08", "fan"): ("Fan chart", "A day of electricity load, and what the forecast knows of it"),
    ("09", "weather"): (
        "Weather map",
        "A forecast, its spread, and what came",
    ),
    ("09", "memory"): ("Memory budget", "What a network of 200 million weights needs on each GPU"),
    ("10", "board"): ("Comparison board", "Which method is best, by which score, at what price"),
    ("11", "accidents"): ("Failure lab of a run", "Let a rank die in the middle; see what is lost"),
    ("12", "troubles"): ("Trouble explorer", "Five runs that went wrong, and the same runs mended"),
}


def main() -> int:
    """Write the pictures and the page.

    Returns:
        0, or 1 where a picture is missing.
    """
    wanted = {f"{notebook}-{name}" for notebook, name in SHOWN}
    found = {path.stem for path in SHOTS.glob("[0-9]*.txt")}
    if wanted != found:
        print(
            f"{SHOTS} lacks {sorted(wanted - found)}, and has {sorted(found - wanted)} that is not "
            "in this script: run the tests in tests/browser first."
        )
        return 1
    folder = DOCS / "gallery"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    (DOCS / "gallery.md").write_text(page())
    for key in wanted:
        picture = Image.open(SHOTS / f"{key}-light.png").convert("RGB")
        picture.thumbnail((WIDEST, 4 * WIDEST), Image.Resampling.LANCZOS)
        picture = picture.quantize(COLOURS, dither=Image.Dither.NONE)
        picture.save(folder / f"{key}.png", optimize=True)
    print(f"Wrote {DOCS / 'gallery.md'} and {len(wanted)} pictures.")
    return 0


def page() -> str:
    """The page: each explorable with its notebook, its picture and the picture's alt text."""
    lines = [
        "# Explorables",
        "",
        "Each is a figure that follows a few controls, computed from the posteriors and runs of",
        "its notebook. The pictures are screenshots of JupyterLab at the `ci` scale, by `make",
        "gallery`. Under each figure a sentence says what there is to see; it is the figure's alt",
        "text, too.",
    ]
    for (notebook, name), (title, what) in SHOWN.items():
        words = (SHOTS / f"{notebook}-{name}.txt").read_text().replace("]", ")")
        source = next((ROOT / "tutorials").glob(f"{notebook}_*.ipynb")).name
        lines += [
            "",
            f"## {title}",
            "",
            f"{what}. In [notebook {notebook}](../tutorials/{source}).",
            "",
            f"![{title}. {words}](gallery/{notebook}-{name}.png)",
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
