"""What all recipes have in common: where they run, and what is left of a run.

A recipe is a module with three functions and a table of settings. Its `run` is called on every rank
and knows nothing of where it is: in this process, in a worker pool, or under
``python -m torch.distributed.run``.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from matplotlib.figure import Figure

from spnb.parallel.collectives import world
from spnb.parallel.layout import Layout
from spnb.parallel.pool import WorkerPool
from spnb.teach import figures, passport, scale, terminal

RECORDS = Path(__file__).parents[3] / "docs"
"""Where results of large runs lie, in a checkout of the repository."""

NAMES = ("images", "augmentation", "load", "weather", "regression")

Result = dict[str, Any]


class Recipe(Protocol):
    """What the module of a recipe offers.

    Attributes:
        SETTINGS: all that a run depends on, by scale; frozen dataclasses of plain values with a
            ``seed``.
    """

    SETTINGS: dict[str, Any]

    def run(self, settings: Any, layout: Layout | None = None) -> Result:
        """Train and score; called on every rank, and the same on each.

        Returns:
            ``scores`` by contender and name, and what else the figure needs: plain values, lists
            and dicts of them, ready for JSON.
        """
        ...

    def draw(self, result: Result) -> Figure:
        """The figure of a result."""
        ...

    def describe(self, result: Result) -> str:
        """The result in a few lines of text."""
        ...


def recipe(name: str) -> Recipe:
    """The recipe of a name.

    Raises:
        ValueError: there is none.
    """
    if name not in NAMES:
        raise ValueError(f"There is no recipe '{name}'; there are {', '.join(NAMES)}.")
    module: Any = import_module(f"{__package__}.{name}")
    return module


def recorded(name: str) -> Result:
    """The result of a large run that comes with the repository, as `execute` wrote it.

    Args:
        name: the recipe.

    Raises:
        FileNotFoundError: there is no such record; says how to make one.
        ValueError: it is damaged.
    """
    path = RECORDS / f"{name}.json"
    if not path.exists():
        raise FileNotFoundError(
            f"There is no record {path}: it comes with a checkout of the repository, or make it by "
            f"'python -m spnb recipe {name} --out {RECORDS}'."
        )
    try:
        result: Result = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}): fetch it anew, or make it by "
            f"'python -m spnb recipe {name} --out {RECORDS}'."
        ) from None
    return result


def execute(
    name: str,
    size: str | None = None,
    *,
    ranks: int = 1,
    layout: Layout | None = None,
    folder: Path = Path("out"),
) -> Result:
    """Run a recipe, write ``<name>.json`` and ``<name>.png``, and print the result.

    Args:
        name: the recipe.
        size: the scale; None: that of the environment.
        ranks: number of workers to start, unless a launcher has started the ranks.
        layout: how they share the work; None: by samples.
        folder: where to write; made if it is not there.

    Raises:
        ValueError: no such recipe or scale, a layout that does not fit, or a folder that cannot be
            written to.
        OSError: the folder can no longer be written to when the work is done; the result has been
            printed by then.
    """
    chosen = recipe(name)
    size = scale.name() if size is None else size
    if size not in chosen.SETTINGS:
        raise ValueError(f"'{size}' is no scale; there are {', '.join(chosen.SETTINGS)}.")
    if ranks < 1:
        raise ValueError(f"ranks={ranks} must be at least 1.")
    settings = chosen.SETTINGS[size]
    rank, started = world()
    names = [f"{name}.{ending}" for ending in ("json", "png")]
    if rank == 0:  # before any work, which might be hours
        terminal.check_writable(folder, *names)
    size_of_world = started if started > 1 else ranks
    layout = (layout or Layout(sample=-1)).resolve(size_of_world)
    if started > 1 or ranks == 1:
        result = chosen.run(settings, layout if started > 1 else None)
    else:
        with WorkerPool(ranks) as pool:
            result = pool.run(chosen.run, settings, layout)[0]
    record = {
        "recipe": name,
        "scale": size,
        "layout": str(layout),
        "settings": asdict(settings),
        "provenance": passport.provenance(settings.seed),
        **result,
    }
    if rank == 0:
        print(f"{chosen.describe(record)}\n")
        figure = chosen.draw(record)
        figures.footnote(figure, record["provenance"])
        text = json.dumps(record, indent=2) + "\n"
        files = dict(zip(names, (text.encode(), figures.png(figure)), strict=True))
        print(terminal.write(folder, files))
    return record
