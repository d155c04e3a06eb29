"""Where the files of the data sets are: found, or fetched once and checked.

A file is looked for in ``$SPNB_DATA``, then in the user's cache, and is downloaded into the cache
if it is in neither. It counts only if its checksum is right; a download that broke off goes on
where it stopped.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pooch
import requests
from filelock import FileLock
from tqdm.auto import tqdm

VARIABLE = "SPNB_DATA"
"""Environment variable that names a folder with data sets."""

SECONDS = 20.0
"""How long a server may keep silent."""

BLOCK = 2**16
"""Bytes that are written at a time."""

MEANINGS = (
    ("ProxyError", "the proxy does not let it through"),
    ("Failed to resolve", "the server's name is unknown here: no network?"),
    ("timed out", "no answer"),
    ("Connection aborted", "the server hung up"),
    ("SSLError", "no secure connection"),
)
"""Words in the messages of `requests`, and what they mean."""


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
        instead: if there is no `url`: what to do without the file, one clause.
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
    """Whether a file of that name is on this machine, right or wrong.

    Raises:
        DataUnavailableError: ``$SPNB_DATA`` is not a folder.
    """
    return any((folder / file.name).is_file() for folder in _folders())


def find(file: File) -> Path:
    """The path of a file with the right content, which is fetched if need be.

    Raises:
        DataUnavailableError: it cannot be had, or what is there has another checksum.
    """
    for folder in _folders():
        path = folder / file.name
        if path.is_file():
            _check(file, path)
            return path
    if file.url is None:
        raise DataUnavailableError(
            f"{file.name} is not in {_places()}, and has no public address: {file.instead}."
        )
    return _fetch(file, file.url)


def _folders() -> list[Path]:
    """Where files are looked for, in this order."""
    own = os.environ.get(VARIABLE)
    if not own:
        return [cache()]
    if not Path(own).expanduser().is_dir():
        raise DataUnavailableError(
            f"{VARIABLE}={own} is not a folder: point it at the one that holds the data sets, or "
            "unset it."
        )
    return [Path(own).expanduser(), cache()]


def _places() -> str:
    own = os.environ.get(VARIABLE)
    return f"{VARIABLE}={own} or {cache()}" if own else f"{cache()} ({VARIABLE} is not set)"


def _check(file: File, path: Path) -> None:
    state = path.stat()
    for known in (file.checksum, *file.others):
        algorithm, _, wanted = known.partition(":")
        found = _digest(path, algorithm, state.st_size, state.st_mtime_ns)
        if found == wanted:
            return
    raise DataUnavailableError(
        f"{path} is damaged, or another file ({state.st_size:,} bytes, {algorithm} {found[:12]}… "
        f"instead of {wanted[:12]}…): delete it"
        + (" and it is fetched anew." if file.url else f", then {file.instead}.")
    )


@functools.lru_cache
def _digest(path: Path, algorithm: str, size: int, modified: int) -> str:
    """The checksum of a file; formed anew if size or time have changed."""
    try:
        return str(pooch.file_hash(str(path), algorithm))
    except OSError as error:
        raise DataUnavailableError(
            f"{path} cannot be read ({error.strerror}): make it readable, or delete it."
        ) from None


def _fetch(file: File, url: str) -> Path:
    folder = cache()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{file.name}.lock"):  # other ranks of a script want it, too
            path = pooch.retrieve(
                url,
                known_hash=file.checksum,
                fname=file.name,
                path=folder,
                downloader=_resuming(folder / f"{file.name}.part"),
            )
    except OSError as error:  # those of requests are among them
        raise DataUnavailableError(
            f"{file.name} ({file.megabytes:g} MB) is not in {_places()} and could not be fetched "
            f"from {url} ({_reason(error)}): try again, or save it yourself as "
            f"{_folders()[0] / file.name}."
        ) from None
    except ValueError:  # pooch's word for a wrong checksum; it has deleted what came
        raise DataUnavailableError(
            f"What {url} sent is not the {file.name} that was expected (its checksum differs), "
            "so it was thrown away: try again, or save the right file yourself as "
            f"{_folders()[0] / file.name}."
        ) from None
    return Path(path)


def _reason(error: OSError) -> str:
    """Why a download failed, in a few words."""
    text = str(error)
    if not isinstance(error, requests.RequestException):
        return text
    if error.response is not None:
        return f"HTTP status {error.response.status_code}"
    for said, meant in MEANINGS:
        if said in text:
            return meant
    of_the_system = re.search(r"\[Errno \d+\] ([\w ]+)", text)
    return of_the_system[1] if of_the_system else text


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
                whole = False
                with suppress(requests.RequestException):
                    for block in answer.iter_content(BLOCK):
                        file.write(block)
                        bar.update(len(block))
                    whole = file.tell() >= total  # old versions of urllib3 end early in silence
                if not whole:
                    raise ConnectionError(
                        f"it broke off after {file.tell():,} bytes, which are kept"
                    )
        os.replace(part, output_file)

    return download
