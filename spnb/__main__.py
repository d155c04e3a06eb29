"""Command line: ``python -m spnb tour``."""

from __future__ import annotations

import argparse
from pathlib import Path


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
    options = parser.parse_args(arguments)
    from spnb.teach.tour import run

    run(options.out, options.epochs)


if __name__ == "__main__":
    main()
