"""An empty cache for every test; the real files, where they are; what an error has to look like."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest

from spnb.teach.datasets import files

REAL = os.environ.get(files.VARIABLE)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache: empty, and the only place to look in."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(files, "cache", lambda: folder)
    monkeypatch.delenv(files.VARIABLE, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return folder


@pytest.fixture
def real(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the real files, as the user's own."""
    if not REAL:
        pytest.skip(f"{files.VARIABLE} is not set: the real files are not here")
    monkeypatch.setenv(files.VARIABLE, REAL)
    return Path(REAL)


@pytest.fixture
def closed_port() -> int:
    """A port of this machine at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def sentence(raised: pytest.ExceptionInfo[BaseException]) -> str:
    """The message of an error, after a look at its form: one sentence, and no second error."""
    text = str(raised.value)
    assert text[0].isalnum() or text[0] == "/"
    assert text.endswith(".") and "\n" not in text
    assert not re.search(r"\. [A-Z]", text), text
    assert raised.value.__suppress_context__ or raised.value.__context__ is None
    return text
