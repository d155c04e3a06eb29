"""Solves ``environment.yml`` for a bare 64-bit Linux, and installs nothing.

    python -m tests.conda_solve                          # against the channels that the file names
    python -m tests.conda_solve --channel FOLDER_OR_URL  # against another one

Exit status: 0 if there is a solution, 1 if there is none, 2 if a channel could not be read.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import rattler
import yaml
from rattler.exceptions import GatewayError, SolverError

ROOT = Path(__file__).parents[1]
PLATFORM = "linux-64"
VIRTUAL = {"__unix": "0", "__linux": "5.4", "__glibc": "2.28", "__archspec": "1"}
"""What the machine is said to have, so that the answer is the same everywhere; no GPU."""


def parse(text: str) -> tuple[list[str], list[rattler.MatchSpec], list[str]]:
    """Read the text of an environment file.

    Args:
        text: as of ``environment.yml``.

    Returns:
        Channels, conda's specs, parsed strictly, and the lines for pip.
    """
    content = yaml.safe_load(text)
    channels = [name for name in content["channels"] if name != "nodefaults"]
    specs, pip = [], []
    for entry in content["dependencies"]:
        if isinstance(entry, dict):
            pip += entry["pip"]
        else:
            specs.append(rattler.MatchSpec(entry, strict=True))
    return channels, specs, pip


def solve(
    channels: Sequence[str], specs: Sequence[rattler.MatchSpec], cache: Path
) -> dict[str, str]:
    """Choose a version of every package.

    Args:
        channels: names, addresses or folders of channels.
        specs: what is wanted.
        cache: folder for what the channels list.

    Returns:
        Versions by name.

    Raises:
        GatewayError: a channel cannot be read.
        SolverError: there is no solution.
    """
    virtual = [
        rattler.GenericVirtualPackage(
            rattler.PackageName(name), rattler.Version(version), rattler.BuildString("0")
        )
        for name, version in VIRTUAL.items()
    ]
    records = asyncio.run(
        rattler.solve(
            channels,
            specs,
            gateway=rattler.Gateway(cache_dir=cache),
            platforms=[PLATFORM, "noarch"],
            virtual_packages=virtual,
        )
    )
    return {record.name.normalized: str(record.version) for record in records}


def main(arguments: Sequence[str] | None = None) -> int:
    """Solve, and print the versions of the packages that the file names.

    Args:
        arguments: those of the command line.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description="Solve environment.yml, install nothing.")
    parser.add_argument("--file", type=Path, default=ROOT / "environment.yml")
    parser.add_argument("--channel", action="append", help="instead of those in the file")
    options = parser.parse_args(arguments)
    channels, specs, _ = parse(options.file.read_text("utf-8"))
    channels = options.channel or channels
    try:
        with tempfile.TemporaryDirectory() as cache:
            found = solve(channels, specs, Path(cache))
    except GatewayError as error:
        reason = str(error).splitlines()[-1].removeprefix("Caused by: ")
        print(f"The channel {', '.join(channels)} cannot be read: {reason}.", file=sys.stderr)
        return 2
    except SolverError as error:
        print(f"{options.file.name} has no solution on {PLATFORM}: {error}", file=sys.stderr)
        return 1
    for spec in specs:
        assert spec.name is not None
        print(f"{spec.name.normalized} {found[spec.name.normalized]}")
    print(f"{options.file.name} is solved on {PLATFORM}: {len(found)} packages.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
