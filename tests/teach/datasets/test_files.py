"""Files are found, fetched once, resumed and checked: against a real server on this machine."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

import pytest

from spnb.teach.datasets import DataUnavailableError, files
from spnb.teach.datasets.files import File, find, present

from .conftest import sentence

HANG = 120.0
"""Seconds after which a test takes something for hanging."""

CONTENT = random.Random(1).randbytes(300_000)


class Source(ThreadingHTTPServer):
    """A server of one file, with the habits that a test gives it.

    Attributes:
        ranges: whether it can begin in the middle.
        gives: bytes it sends in its next answers before it hangs up; all of them if it is empty.
        status: what it answers with.
        hold: it answers when this is set.
        asked: the Range header of every request.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.content, self.ranges, self.status = CONTENT, True, 200
        self.gives: list[int] = []
        self.asked: list[str | None] = []
        self.hold = threading.Event()
        self.hold.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/folder/small.bin"

    def close(self) -> None:
        self.hold.set()
        self.shutdown()
        self.server_close()


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        source = cast(Source, self.server)
        asked = self.headers.get("Range")
        source.asked.append(asked)
        source.hold.wait(HANG)
        if source.status != 200:
            return self.send_error(source.status)
        first = int(asked.removeprefix("bytes=").rstrip("-")) if asked and source.ranges else 0
        if first >= len(source.content):
            return self.send_error(416)
        self.send_response(206 if first else 200)
        rest = source.content[first:]
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: source.gives.pop(0)] if source.gives else rest)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def source() -> Iterator[Source]:
    server = Source()
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.close()


def small(url: str | None, content: bytes = CONTENT, **others: object) -> File:
    digest = hashlib.sha256(content).hexdigest()
    return File("small.bin", url, 0.3, f"sha256:{digest}", **others)  # type: ignore[arg-type]


def failure(file: File) -> str:
    with pytest.raises(DataUnavailableError) as raised:
        find(file)
    return sentence(raised)


def test_it_is_fetched_once(source: Source, cache: Path) -> None:
    file = small(source.url)
    assert not present(file)
    path = find(file)
    assert path == cache / "small.bin" and path.read_bytes() == CONTENT and present(file)
    source.close()
    assert find(file) == path and len(source.asked) == 1
    assert not list(cache.glob("*.part")) and not list(cache.glob("tmp*"))


def test_the_users_own_folder_comes_first(
    source: Source, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find(small(source.url))
    own = tmp_path / "own"
    own.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(files.VARIABLE, "~/own")
    assert find(small(source.url)) == cache / "small.bin"
    (own / "small.bin").write_bytes(CONTENT)
    assert find(small(source.url)) == own / "small.bin" and len(source.asked) == 1


def test_another_file_with_the_same_content_counts(cache: Path) -> None:
    cache.mkdir()
    (cache / "small.bin").write_bytes(b"other header")
    md5 = hashlib.md5(b"other header").hexdigest()
    assert find(small(None, others=(f"md5:{md5}",))) == cache / "small.bin"


@pytest.mark.parametrize("ranges", [True, False])
def test_what_broke_off_is_kept_and_no_data_set(source: Source, cache: Path, ranges: bool) -> None:
    source.gives, source.ranges = [200_000], ranges
    file, part = small(source.url), cache / "small.bin.part"
    text = failure(file)
    kept = part.read_bytes()
    assert 100_000 < len(kept) <= 200_000 and kept == CONTENT[: len(kept)]
    assert f"broke off after {len(kept):,} bytes, which are kept" in text
    assert not present(file) and not (cache / "small.bin").exists()
    assert find(file).read_bytes() == CONTENT
    assert source.asked == [None, f"bytes={len(kept)}-"]
    assert not part.exists()


def test_a_line_that_breaks_again_and_again_gets_there(source: Source) -> None:
    source.gives = [70_000, 70_000, 70_000, 70_000]
    file = small(source.url)
    for _ in range(4):
        assert "broke off" in failure(file)
    assert find(file).read_bytes() == CONTENT
    begins = [int(asked.removeprefix("bytes=")[:-1]) for asked in source.asked if asked]
    assert len(begins) == 4 and begins == sorted(set(begins))


def test_a_beginning_that_is_too_long_is_dropped(source: Source, cache: Path) -> None:
    cache.mkdir()
    (cache / "small.bin.part").write_bytes(bytes(400_000))
    assert find(small(source.url)).read_bytes() == CONTENT
    assert source.asked == ["bytes=400000-", None]


def test_a_beginning_of_something_else_is_dropped_in_the_end(source: Source, cache: Path) -> None:
    cache.mkdir()
    (cache / "small.bin.part").write_bytes(bytes(1_000))
    assert "checksum differs" in failure(small(source.url))
    assert find(small(source.url)).read_bytes() == CONTENT


def test_a_tampered_download_is_thrown_away(source: Source, cache: Path) -> None:
    source.content = CONTENT[:-1] + b"!"
    text = failure(small(source.url))
    assert source.url in text and "thrown away" in text and str(cache / "small.bin") in text
    assert [path.name for path in cache.iterdir() if path.suffix != ".lock"] == []


def test_a_tampered_file_is_named(source: Source, cache: Path) -> None:
    path = find(small(source.url))
    path.write_bytes(CONTENT[:-1] + b"!")
    text = failure(small(source.url))
    assert str(path) in text and "300,000 bytes" in text and "delete it" in text
    path.unlink()
    assert find(small(source.url)).read_bytes() == CONTENT


def test_a_file_that_cannot_be_read_is_named(cache: Path) -> None:
    cache.mkdir()
    (cache / "small.bin").symlink_to("/proc/self/mem")
    text = failure(small(None))
    assert f"{cache / 'small.bin'} cannot be read (Input/output error): make it readable" in text


def test_a_file_without_an_address(cache: Path) -> None:
    text = failure(small(None, instead="take the large one"))
    assert str(cache) in text and "SPNB_DATA is not set" in text and "take the large one" in text


def test_a_folder_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for wrong in (tmp_path / "file", tmp_path / "nowhere"):
        monkeypatch.setenv(files.VARIABLE, str(wrong))
        assert f"SPNB_DATA={wrong} is not a folder: point it at" in failure(small(None))
        with pytest.raises(DataUnavailableError, match="is not a folder"):
            present(small(None))


def test_http_errors_are_told_by_their_status(source: Source, cache: Path) -> None:
    for status in (404, 403, 503):
        source.status = status
        text = failure(small(source.url))
        assert f"small.bin (0.3 MB) is not in {cache}" in text
        assert f"{source.url} (HTTP status {status})" in text
        assert text.endswith(f"save it yourself as {cache / 'small.bin'}.")


def test_where_to_save_it_is_the_users_own_folder_if_there_is_one(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(files.VARIABLE, str(tmp_path))
    source.status = 404
    assert failure(small(source.url)).endswith(f"save it yourself as {tmp_path / 'small.bin'}.")


def test_nobody_listens(closed_port: int) -> None:
    text = failure(small(f"http://127.0.0.1:{closed_port}/small.bin"))
    assert "(Connection refused)" in text


def test_a_name_that_nobody_knows() -> None:
    text = failure(small("http://nowhere.invalid/small.bin"))
    assert "(the server's name is unknown here: no network?)" in text


def test_a_silent_server(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SECONDS", 0.2)
    source.hold.clear()
    assert "(no answer)" in failure(small(source.url))


def test_no_secure_connection(source: Source) -> None:
    text = failure(small(source.url.replace("http:", "https:")))
    assert "(no secure connection)" in text


def test_a_proxy_in_the_way(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{source.server_port}")
    text = failure(small("https://example.org/small.bin"))
    assert "(the proxy does not let it through)" in text


def test_a_full_disk(source: Source, cache: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    cache.mkdir()
    (cache / "small.bin.part").symlink_to("/dev/full")
    assert "No space left on device" in failure(small(source.url))


def test_a_cache_that_cannot_be_made(source: Source, cache: Path) -> None:
    cache.touch()
    text = failure(small(source.url))
    assert "File exists" in text and source.asked == []


CHILD = """
import sys
from pathlib import Path
from filelock import Timeout
from spnb.teach.datasets import files

class Lock(files.FileLock):
    def acquire(self, *args, **kwargs):
        try:
            return super().acquire(timeout=0)
        except Timeout:
            Path(sys.argv[4]).touch()
            return super().acquire(*args, **kwargs)

files.FileLock = Lock
files.cache = lambda: Path(sys.argv[3])
file = files.File("small.bin", sys.argv[1], 0.3, sys.argv[2])
print(files.find(file), flush=True)
"""


def test_two_processes_that_ask_at_once_fetch_once(
    source: Source, cache: Path, tmp_path: Path
) -> None:
    """The server answers when one of them has asked it and the other one waits for the lock."""
    source.hold.clear()
    waits = tmp_path / "waits"
    arguments = [source.url, small(None).checksum, str(cache), str(waits)]
    command = [sys.executable, "-c", CHILD, *arguments]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    limit = time.monotonic() + HANG
    while not (source.asked and waits.exists()):
        assert time.monotonic() < limit and not any(child.poll() for child in children)
        time.sleep(0.01)
    source.hold.set()
    for child in children:
        assert child.communicate(timeout=HANG)[0] == f"{cache / 'small.bin'}\n"
        assert child.returncode == 0
    assert source.asked == [None] and (cache / "small.bin").read_bytes() == CONTENT
