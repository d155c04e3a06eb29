"""What the commands of a terminal have in common: how they end, and where they write.

A command that is used wrongly says so in a sentence before it begins its work (status 2), one that
fails says why (1), and one that is interrupted (130) leaves neither a process nor a file behind.
This module loads nothing that takes time, in which an interrupt would end in a traceback.
"""

from __future__ import annotations

import contextlib
import tempfile
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator, Mapping
from pathlib import Path


@contextlib.contextmanager
def ends_in_a_sentence(parser: ArgumentParser) -> Iterator[None]:
    """End the program in a sentence where it is used wrongly, fails, or is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        parser.exit(130, "Interrupted: all ranks have stopped, nothing was written.\n")
    except (ValueError, ModuleNotFoundError) as error:
        parser.exit(2, f"{error}\n")
    except OSError as error:
        parser.exit(1, f"{error}\n")
    except RuntimeError as error:
        from spnb.parallel.pool import WorkerDied
        from spnb.teach.datasets import DataUnavailableError

        if not isinstance(error, WorkerDied | DataUnavailableError):
            raise
        parser.exit(1 if isinstance(error, WorkerDied) else 2, f"{error}\n")


def folder(word: str) -> Path:
    """The folder that a word of the command line names."""
    if not word.strip():
        raise ArgumentTypeError("it is empty: name a folder, such as out")
    return Path(word)


def check_writable(folder: Path, *names: str) -> None:
    """See whether files can be written to a folder, which need not be there; leave no trace.

    Args:
        folder: where to write.
        names: of the files; those that are there will be written over.

    Raises:
        ValueError: it cannot be.
    """
    place = folder.absolute()
    try:
        while not _is_there(place):
            place = place.parent
        tempfile.TemporaryFile(dir=place).close()
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                (folder / name).open("r+b").close()
    except OSError as error:
        raise ValueError(
            f"Results cannot be written to {folder}: {error.strerror}; name another folder."
        ) from error


def write(folder: Path, files: Mapping[str, bytes]) -> str:
    """Write files into a folder, which is made if it is not there.

    Returns:
        A sentence that says where they are.

    Raises:
        OSError: one cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise OSError(f"Results cannot be written to {folder}: {error.strerror}.") from error
    return f"Wrote {' and '.join(str(folder / name) for name in files)}."


def _is_there(place: Path) -> bool:
    try:
        place.lstat()  # a link is there, too, wherever it leads
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
