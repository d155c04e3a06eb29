"""Command line: ``python -m spnb tour``, ``recipe images`` and ``page posterior``."""

from __future__ import annotations

import argparse

from spnb.teach import terminal


def main(arguments: list[str] | None = None) -> None:
    """Run a command.

    Args:
        arguments: the words after ``python -m spnb``; None: those of this process.
    """
    parser = argparse.ArgumentParser(prog="python -m spnb", description="Parallel Bayesian nets.")
    commands = parser.add_subparsers(dest="command", required=True)
    tour = commands.add_parser("tour", help="train one network in four layouts and compare")
    tour.set_defaults(run=_tour)
    tour.add_argument("--epochs", type=int, default=20, help="passes over the data")
    recipe = commands.add_parser("recipe", help="run a workload of the paper, or a benchmark")
    recipe.set_defaults(run=_recipe)
    recipe.add_argument("name", help="which: images, augmentation, load, weather or regression")
    recipe.add_argument("--scale", help="ci, laptop or node (default: $SPNB_SCALE, else laptop)")
    recipe.add_argument("--ranks", type=int, default=1, help="worker processes to start")
    for command in (tour, recipe):
        command.add_argument(
            "--out", type=terminal.folder, default="out", help="folder to write to"
        )
        command.add_argument("--sample", type=int, default=-1, help="ranks that share the samples")
        command.add_argument("--data", type=int, default=1, help="ranks that share the batch")
        command.add_argument("--shard", type=int, default=1, help="ranks that share the parameters")
    page = commands.add_parser("page", help="show one explorable in the browser, without a Lab")
    page.set_defaults(run=_page)
    page.add_argument("name", help="which: posterior or planner")
    page.add_argument("--port", type=int, default=8866, help="port to listen on, on loopback")
    page.add_argument("--no-browser", action="store_true", help="only say where it is")
    options = parser.parse_args(arguments)
    with terminal.ends_in_a_sentence(parser):
        options.run(options)


def _tour(options: argparse.Namespace) -> None:
    from spnb.parallel.collectives import world
    from spnb.parallel.layout import Layout
    from spnb.teach import tour

    layout = Layout(options.sample, options.data, options.shard)
    if world()[1] == 1:
        layout.resolve(1)  # it trains in layouts of its own
        tour.run(options.out, options.epochs)
    else:
        tour.run_launched(options.out, layout, options.epochs)


def _recipe(options: argparse.Namespace) -> None:
    from spnb.parallel.layout import Layout
    from spnb.teach.recipes import execute

    layout = Layout(options.sample, options.data, options.shard)
    execute(options.name, options.scale, ranks=options.ranks, layout=layout, folder=options.out)


def _page(options: argparse.Namespace) -> None:
    from spnb.teach.pages import serve

    serve(options.name, options.port, not options.no_browser)


if __name__ == "__main__":
    main()
