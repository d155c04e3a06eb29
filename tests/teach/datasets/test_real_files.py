"""The real files, damaged; and what the loaders say where a file cannot be had."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spnb.teach import datasets
from spnb.teach.datasets import DataUnavailableError, air, cifar, entsoe, ett, files, unseen

from .conftest import sentence

Loader = Callable[[], Any]
LOADERS: dict[files.File, Loader] = {
    cifar.SUBSET: lambda: datasets.cifar10(subset=True),
    unseen.HANDS: datasets.hands,
    **{file: datasets.load for file in entsoe.FILES.values()},
    ett.FILE: datasets.etth1,
    air.FILE: datasets.air_temperature,
}
FETCHED: dict[files.File, Loader] = {
    cifar.FULL: lambda: datasets.cifar10(subset=False),
    entsoe.FILES[2021]: datasets.load,
    ett.FILE: datasets.etth1,
    air.FILE: datasets.air_temperature,
}
MANIFEST = (Path(__file__).parents[3] / "data" / "README.md").read_text()


def said(loader: Loader) -> str:
    with pytest.raises(DataUnavailableError) as raised:
        loader()
    return sentence(raised)


@pytest.mark.parametrize("file", LOADERS, ids=lambda file: file.name)
def test_a_truncated_or_tampered_copy_is_refused(
    file: files.File, real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for other in LOADERS:
        (own / other.name).symlink_to(real / other.name)
    monkeypatch.setenv(files.VARIABLE, str(own))
    path = own / file.name
    path.unlink()
    shutil.copyfile(real / file.name, path)
    size = path.stat().st_size
    with path.open("r+b") as content:
        content.seek(size // 2)
        byte = content.read(1)[0]
        content.seek(size // 2)
        content.write(bytes([byte ^ 1]))
    for length in (size, size // 2, 0):
        with path.open("r+b") as content:
            content.truncate(length)
        text = said(LOADERS[file])
        assert f"{path} is damaged, or another file ({length:,} bytes, " in text
        assert "delete it" in text
    if file.url is None:
        assert file.instead in text


@pytest.mark.parametrize("file", FETCHED, ids=lambda file: file.name)
def test_without_a_network_one_learns_where_to_get_it_and_where_to_put_it(
    file: files.File, cache: Path, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{closed_port}")
    text = said(FETCHED[file])
    assert f"{file.name} ({file.megabytes:g} MB) is not in {cache} (SPNB_DATA is not set)" in text
    assert f"fetched from {file.url} (the proxy does not let it through): try again, or" in text
    assert text.endswith(f"save it yourself as {cache / file.name}.")


def test_where_neither_archive_of_cifar_is_all_of_it_is_fetched(
    cache: Path, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{closed_port}")
    assert said(datasets.cifar10).startswith("cifar-10-binary.tar.gz (163 MB)")
    assert "cifar10(subset=False)" in said(lambda: datasets.cifar10(subset=True))


@pytest.mark.parametrize("file", {**LOADERS, **FETCHED}, ids=lambda file: file.name)
def test_the_manifest_has_every_file(file: files.File) -> None:
    assert f"`{file.name}`" in MANIFEST
    for checksum in (file.checksum, *file.others):
        assert checksum.partition(":")[2] in MANIFEST
    if file.url:
        assert file.url in MANIFEST


@pytest.mark.parametrize("file", LOADERS, ids=lambda file: file.name)
def test_the_size_is_right(file: files.File, real: Path) -> None:
    size = (real / file.name).stat().st_size / 1e6
    assert file.megabytes == pytest.approx(size, rel=0.1)
