"""Archives: missing, intact, damaged, downloaded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from image_sets import DAMAGES, refusal, serving, truncate
from torchvision.datasets.utils import download_url

from sqakd.dataset import archive as module
from sqakd.dataset.archive import Archive

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """An archive that is not there but can be downloaded."""
    served = tmp_path / "server" / "letters.zip"
    served.parent.mkdir()
    served.write_bytes(CONTENT)
    with serving(served.parent) as address:
        yield Archive(
            dataset="Letters",
            file=tmp_path / "data" / "letters.zip",
            folder="letters",
            url=f"{address}/letters.zip",
            md5=hashlib.md5(CONTENT).hexdigest(),
            download=True,
        )


def fetch(archive: Archive) -> None:
    with archive.locked():
        archive.fetch()


def put(archive: Archive) -> None:
    archive.file.parent.mkdir()
    archive.file.write_bytes(CONTENT)


def left(archive: Archive) -> set[str]:
    """Names of the files in the archive's folder, except for the lock."""
    return {path.name for path in archive.file.parent.iterdir()} - {"letters.zip.lock"}


def test_missing_archive_is_refused_unless_it_may_be_downloaded(archive: Archive) -> None:
    archive.require(layout="a.txt")
    local = replace(archive, download=False)
    message = refusal(lambda: local.require(layout="a.txt"))
    root = archive.file.parent.resolve()
    expected = "found no folder there, expected the file letters.zip or the folder letters/ (a.txt)"
    assert message.startswith(f"Letters is not in {root}: {expected}; ")
    assert "dataset.download=true" in message
    assert not archive.file.parent.exists(), "a refused run writes nothing"
    put(archive)
    local.require()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), "nothing"),
        (("b.txt", "letters-2/x"), "b.txt, letters-2/"),
        (tuple("abcdefg"), "a, b, c, d, e and 2 more"),
    ],
)
def test_the_message_of_a_missing_archive_says_what_is_there(
    archive: Archive, names: tuple[str, ...], expected: str
) -> None:
    archive.file.parent.mkdir()
    for name in names:
        file = archive.file.parent / name
        file.parent.mkdir(exist_ok=True)
        file.touch()
    assert f": found {expected} there, expected the file" in refusal(replace(archive, download=False).require)


def test_intact_archive_is_used_as_it_is(archive: Archive) -> None:
    put(archive)
    fetch(replace(archive, url="http://127.0.0.1:9/nobody-listens-here.zip"))
    assert archive.file.read_bytes() == CONTENT


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_archive_is_refused_and_not_replaced(archive: Archive, damage: str) -> None:
    put(archive)
    DAMAGES[damage](archive.file)
    before = archive.file.read_bytes()
    for message in (refusal(archive.verify), refusal(lambda: fetch(archive))):
        assert f"{archive.file} is truncated or altered, or was packed again: {len(before):,} bytes with MD5" in message
        assert f"MD5 {hashlib.md5(before).hexdigest()}, expected MD5 {archive.md5}" in message
        assert "dataset.download=true" in message
        assert f"the folder letters/ in {archive.file.parent} is used without an archive" in message
    assert archive.file.read_bytes() == before


def test_many_jobs_download_once(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*arguments: str) -> None:
        calls.append(arguments)
        download_url(*arguments)

    monkeypatch.setattr(module, "download_url", counted)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(fetch, [archive] * 4))
    assert len(calls) == 1
    assert archive.file.read_bytes() == CONTENT
    assert left(archive) == {"letters.zip"}


def test_download_with_a_wrong_checksum_leaves_no_file(archive: Archive, tmp_path: Path) -> None:
    truncate(tmp_path / "server" / "letters.zip")
    message = refusal(lambda: fetch(archive))
    assert f"cannot download {archive.url} to {archive.file.resolve()}" in message
    assert left(archive) == set()


def test_download_without_a_network_is_refused(archive: Archive) -> None:
    offline = replace(archive, url="http://127.0.0.1:9/nobody-listens-here.zip")
    assert f"cannot download {offline.url}" in refusal(lambda: fetch(offline))
    assert left(archive) == set()


def test_folder_that_is_a_file_is_refused(archive: Archive) -> None:
    archive.file.parent.write_text("")
    message = refusal(lambda: fetch(archive))
    assert f"cannot use {archive.file.parent.resolve()} for Letters" in message
    assert "dataset.root=FOLDER" in message
