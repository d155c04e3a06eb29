"""Where the files of the data sets are: found, or fetched once and checked.

A file is looked for in ``$SPNB_DATA``, then in the user's cache, and is downloaded into the cache
if it is in neither. It counts only if its checksum is right; a download that broke off goes on
where it stopped.
"""

from __future__ import annotations

import fcntl
import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pooch
import requests
from tqdm.auto import tqdm

VARIABLE = "SPNB_DATA"
"""Environment variable that names a folder with data sets."""

SECONDS = 20.0
"""How long a server may keep silent."""

BLOCK = 2**16


class DataUnavailableError(RuntimeError):
    """A data set is not there, or not what it should be; the message says what to do."""


@dataclass(frozen=True)
class File:
    """One file of a data set.

    Attributes:
        name: in ``$SPNB_DATA`` and in the cache.
        url: where it comes from; None if it cannot be had in this form.
        megabytes: its size.
        checksum: of what `url` gives, ``"sha256:..."`` or ``"md5:..."``.
        others: checksums of other files with the same content.
        instead: if there is no `url`: how to get it, one clause.
    """

    name: str
    url: str | None
    megabytes: float
    checksum: str
    others: tuple[str, ...] = ()
    instead: str = ""


def cache() -> Path:
    """The user's cache of data sets."""
    return Path(pooch.os_cache("spnb"))


def present(file: File) -> bool:
    """Whether a file is on this machine."""
    return any(path.exists() for path in _places(file))


def find(file: File) -> Path:
    """The path of a file with the right content, which is fetched if need be.

    Raises:
        DataUnavailableError: it cannot be had, or what is there has another checksum.
    """
    for path in _places(file):
        if path.exists():
            _check(file, path)
            return path
    if file.url is None:
        raise DataUnavailableError(
            f"{file.name} is not in {_folders()}, and cannot be fetched: {file.instead}."
        )
    return _fetch(file, file.url)


def _places(file: File) -> list[Path]:
    own = os.environ.get(VARIABLE)
    if own and not Path(own).is_dir():
        raise DataUnavailableError(
            f"{VARIABLE}={own} is not a folder: point it at the one that holds the data sets, or "
            "unset it."
        )
    return [*([Path(own) / file.name] if own else []), cache() / file.name]


def _folders() -> str:
    own = os.environ.get(VARIABLE)
    return f"{VARIABLE}={own} or {cache()}" if own else f"{cache()} ({VARIABLE} is not set)"


def _check(file: File, path: Path) -> None:
    state = path.stat()
    for known in (file.checksum, *file.others):
        algorithm, _, _ = known.partition(":")
        found = _digest(path, algorithm, state.st_size, state.st_mtime_ns)
        if f"{algorithm}:{found}" == known:
            return
    raise DataUnavailableError(
        f"{path} is damaged, or another file ({state.st_size:,} bytes, {algorithm} {found[:12]}… "
        f"instead of {known.partition(':')[2][:12]}…): delete it"
        + (" and it is fetched anew." if file.url else f", then {file.instead}.")
    )


@functools.lru_cache
def _digest(path: Path, algorithm: str, size: int, modified: int) -> str:
    """The checksum of a file; formed anew if size or time have changed."""
    return str(pooch.file_hash(str(path), algorithm))


def _fetch(file: File, url: str) -> Path:
    folder = cache()
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder / f"{file.name}.lock"):  # other ranks of a script want it, too
        try:
            path = pooch.retrieve(
                url,
                known_hash=file.checksum,
                fname=file.name,
                path=folder,
                downloader=_resuming(folder / f"{file.name}.part"),
            )
        except (requests.RequestException, OSError) as error:
            raise DataUnavailableError(
                f"{file.name} ({file.megabytes:g} MB) is not in {_folders()} and could not be "
                f"fetched from {url} ({_reason(error)}): try again with a network, or put the file "
                "into that folder yourself."
            ) from None
        except ValueError:  # pooch's word for a wrong checksum; it has deleted the file
            raise DataUnavailableError(
                f"What {url} sent is not the {file.name} that was expected (its checksum differs), "
                "so it was thrown away: try again, or put the right file into "
                f"{_folders()} yourself."
            ) from None
    return Path(path)


def _reason(error: Exception) -> str:
    """The end of the chain of errors behind a failed download, in a few words."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP status {response.status_code}"
    text = str(error)
    for said, meant in (
        ("resolve", "the server's name is unknown here: no network?"),
        ("refused", "connection refused"),
        ("timed out", "no answer"),
        ("No space left", "the disk is full"),
    ):
        if said in text:
            return meant
    return text.splitlines()[0][:120] if text else type(error).__name__


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process of this machine at a time into a ``with`` block."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _resuming(part: Path) -> Callable[[str, str, Any], None]:
    """A downloader for pooch that goes on where an earlier one broke off.

    Args:
        part: where the beginning is kept.
    """

    def download(url: str, output_file: str, _: Any) -> None:
        have = part.stat().st_size if part.exists() else 0
        headers = {"Accept-Encoding": "identity"}  # sizes are those of the file itself
        if have:
            headers["Range"] = f"bytes={have}-"
        with requests.get(url, stream=True, timeout=SECONDS, headers=headers) as answer:
            if answer.status_code == requests.codes.requested_range_not_satisfiable:
                part.unlink()  # it cannot be a beginning of this file
                return download(url, output_file, _)
            answer.raise_for_status()
            goes_on = answer.status_code == requests.codes.partial_content
            have = have if goes_on else 0
            total = have + int(answer.headers.get("content-length", 0))
            bar = tqdm(total=total or None, initial=have, unit="B", unit_scale=True, desc=part.stem)
            with bar, part.open("ab" if goes_on else "wb") as file:
                for block in answer.iter_content(BLOCK):
                    file.write(block)
                    bar.update(len(block))
        if part.stat().st_size < total:
            raise ConnectionError(
                f"it broke off after {part.stat().st_size:,} of {total:,} bytes, which are kept"
            )
        os.replace(part, output_file)

    return download
