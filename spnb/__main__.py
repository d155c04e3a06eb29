"""Command line: ``python -m spnb tour``, ``recipe images`` and ``page posterior``."""

from __future__ import annotations

import argparse
from pathlib import Path

from spnb.parallel.layout import Layout


def main(arguments: list[str] | None = None) -> None:
    """Run a command.

    Args:
        arguments: the words after ``python -m spnb``; None: those of this process.
    """
    parser = argparse.ArgumentParser(prog="python -m spnb", description="Parallel Bayesian nets.")
    commands = parser.add_subparsers(dest="command", required=True)
    tour = commands.add_parser("tour", help="train one network in four layouts and compare")
    tour.add_argument("--out", type=Path, default=Path("out"), help="folder to write to")
    tour.add_argument("--epochs", type=int, default=20, help="passes over the data")
    recipe = commands.add_parser("recipe", help="run a workload of the paper, or a benchmark")
    recipe.add_argument("name", help="which: images, augmentation, load, weather or regression")
    recipe.add_argument("--scale", help="ci, laptop or node (default: $SPNB_SCALE, else laptop)")
    recipe.add_argument("--ranks", type=int, default=1, help="worker processes to start")
    recipe.add_argument("--out", type=Path, default=Path("out"), help="folder to write to")
    for command in (tour, recipe):
        command.add_argument("--sample", type=int, default=-1, help="ranks that share the samples")
        command.add_argument("--data", type=int, default=1, help="ranks that share the batch")
        command.add_argument("--shard", type=int, default=1, help="ranks that share the parameters")
    page = commands.add_parser("page", help="show one explorable in the browser, without a Lab")
    page.add_argument("name", help="which: posterior or planner")
    page.add_argument("--port", type=int, default=8866, help="port to listen on, on loopback")
    page.add_argument("--no-browser", action="store_true", help="only say where it is")
    options = parser.parse_args(arguments)
    if options.command == "tour":
        from spnb.parallel.collectives import world
        from spnb.teach import tour as the_tour

        if world()[1] == 1:
            the_tour.run(options.out, options.epochs)
        else:
            layout = Layout(options.sample, options.data, options.shard)
            the_tour.run_launched(options.out, layout, options.epochs)
        return
    if options.command == "page":
        from spnb.teach.pages import serve

        try:
            serve(options.name, options.port, not options.no_browser)
        except (ValueError, ModuleNotFoundError) as error:
            parser.exit(2, f"{error}\n")
        return
    from spnb.parallel.pool import WorkerDied
    from spnb.teach.datasets import DataUnavailableError
    from spnb.teach.recipes import execute

    try:
        execute(
            options.name,
            options.scale,
            ranks=options.ranks,
            layout=Layout(options.sample, options.data, options.shard),
            folder=options.out,
        )
    except (ValueError, DataUnavailableError) as error:
        parser.exit(2, f"{error}\n")
    except WorkerDied as error:
        parser.exit(1, f"{error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "Interrupted: all ranks have stopped, nothing was written.\n")


if __name__ == "__main__":
    main()
