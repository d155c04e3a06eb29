"""All measurements, one part after the other: ``python -m benchmarks`` or ``make bench``.

Each part writes its results into ``bench.json`` as soon as it has them; then come the figures and
the report. The sizes below take less than 20 minutes on two cores; ``--quick`` takes about three,
to see that everything works.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import (
    exactness,
    figures,
    memory,
    one_process,
    planner,
    pool,
    prediction,
    record,
    report,
    scaling,
    sharding,
    update,
)

Part = tuple[Callable[..., dict[str, Any]], dict[str, Any], dict[str, Any]]

#: name -> function, its size, its size in a quick run
PARTS: dict[str, Part] = {
    "one_process": (
        one_process.run,
        {
            # rounds, by workload and number of samples S
            "rounds": {"mlp": {1: 31, 4: 31, 16: 21, 64: 9}, "vit": {1: 9, 4: 5, 8: 5}},
        },
        {
            "rounds": {"mlp": {1: 3, 16: 3}, "vit": {2: 3}},
        },
    ),
    "memory": (
        memory.run,
        {"cases": {"mlp": (1, 16, 64), "vit": (1, 8)}, "tries": 3},
        {"cases": {"mlp": (1, 16)}, "tries": 1},
    ),
    "scaling": (
        scaling.run,
        {
            "strong": [("vit", 8), ("mlp", 64), ("mlp", 16)],
            "weak": [("mlp", 64), ("vit", 4), ("vit", 8)],
            "four": [("mlp", 64)],
            "rounds": 15,
        },
        {
            "strong": [("vit", 2), ("mlp", 16)],
            "weak": [("mlp", 16), ("vit", 1)],
            "four": [("mlp", 16)],
            "rounds": 3,
        },
    ),
    "exactness": (
        exactness.run,
        {"cases": [("mlp", 16), ("mlp", 64), ("vit", 8)], "rounds": 11},
        {"cases": [("mlp", 16), ("vit", 2)], "rounds": 3},
    ),
    "update": (
        update.run,
        {"rounds": {"mlp": 301, "vit": 101}},
        {"rounds": {"mlp": 21, "vit": 21}},
    ),
    "planner": (
        planner.run,
        {"cases": [("mlp", 16), ("mlp", 64), ("vit", 4), ("cnn", 8)], "rounds": 15},
        {"cases": [("mlp", 16), ("cnn", 4)], "rounds": 3},
    ),
    "prediction": (
        prediction.run,
        {"cases": [("vit", 64)], "inputs": (64,), "rounds": 7},
        {"cases": [("vit", 4)], "inputs": (16,), "rounds": 3},
    ),
    "sharding": (
        sharding.run,
        {"cases": [("vit", 8), ("vit", 2), ("mlp", 16)], "rounds": 15},
        {"cases": [("mlp", 4)], "rounds": 3},
    ),
    "pool": (
        pool.run,
        {"starts": 5, "calls": 21, "megabytes": 200},
        {"starts": 1, "calls": 21, "megabytes": 200},
    ),
}


def main(arguments: list[str] | None = None) -> int:
    """Measure, write, draw, report.

    Returns:
        0, or 1 if a part failed.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--out", type=Path, help="folder (out/bench, or out/bench-quick)")
    parser.add_argument("--parts", default=",".join(PARTS), help="which, separated by commas")
    parser.add_argument("--quick", action="store_true", help="a few rounds of small sizes")
    parser.add_argument(
        "--show", action="store_true", help="measure nothing: draw and report what is there"
    )
    chosen = parser.parse_args(arguments)
    folder = chosen.out or Path("out") / ("bench-quick" if chosen.quick else "bench")
    names = [] if chosen.show else chosen.parts.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    failed = [name for name in names if not measured(name, folder / "bench.json", chosen.quick)]
    parts = record.read(folder / "bench.json")
    figures.draw_all(parts, folder)
    print(f"\n{report.text(parts)}\n\nWrote {folder / 'bench.json'} and the figures beside it.")
    if failed:
        print(f"Failed: {', '.join(failed)}")
    return 1 if failed else 0


def measured(name: str, path: Path, quick: bool) -> bool:
    """Measure a part and write it.

    Args:
        name: the part.
        path: the file.
        quick: whether to take the small size.

    Returns:
        Whether it worked; if not, the error is printed.
    """
    function, size, small = PARTS[name]
    print(f"{name}:", flush=True)
    origin, before = record.provenance(), record.clocks()
    start = time.perf_counter()
    try:
        found = function(**(small if quick else size))
    except Exception:
        traceback.print_exc()
        return False
    about = {
        "provenance": origin,
        "size": small if quick else size,
        "quick": quick,
        "seconds_taken": time.perf_counter() - start,
        "others_busy": record.others(before, record.clocks()),
    }
    record.write(path, name, about | found)
    return True


if __name__ == "__main__":
    sys.exit(main())
