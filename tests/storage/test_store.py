import os
import time
from datetime import datetime
from pathlib import Path

import fsspec
import pytest

from gax_batch import storage
from gax_batch.errors import UsageError
from gax_batch.storage import fsspec_store
from gax_batch.storage.listing import list_objects


def test_normalize_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.normalize_uri("x/../y/") == f"file://{tmp_path}/y"
    assert storage.normalize_uri("file:///a b/") == "file:///a b"
    assert storage.normalize_uri("s3://bucket/key/") == "s3://bucket/key"
    assert storage.normalize_uri("abfss://box@account.dfs.core.windows.net/k").startswith("abfss://box@")


@pytest.mark.parametrize("uri", ["s3://key:secret@bucket/x", "https://x.org/a.png?sig=secret", "", "  "])
def test_uri_with_a_secret_or_nothing_in_it_is_refused(uri: str) -> None:
    with pytest.raises(UsageError) as caught:
        storage.normalize_uri(uri)
    assert "secret" not in str(caught.value)


def test_join() -> None:
    assert storage.join("s3://b/", "x/", "/y.parquet") == "s3://b/x/y.parquet"


@pytest.mark.parametrize(
    ("uri", "folder", "within"),
    [
        ("s3://b/x", "s3://b/x", True),
        ("s3://b/x/y", "s3://b/x", True),
        ("s3://b/x", "s3://b", True),
        ("s3://b/xy", "s3://b/x", False),
        ("s3://b", "s3://b/x", False),
        ("file:///b/x", "s3://b", False),
        ("file:///b/x/*.jpg", "file:///b", True),
    ],
)
def test_is_within(uri: str, folder: str, within: bool) -> None:
    assert storage.is_within(uri, folder) == within


def test_unknown_scheme() -> None:
    for call in (list_objects, storage.read_bytes, storage.exists):
        with pytest.raises(UsageError, match="nope"):
            call("nope://somewhere/x")


def test_write_is_whole_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "new" / "folder" / "x.bin"
    storage.write_bytes(str(target), b"first")
    assert storage.read_bytes(f"file://{target}") == b"first"

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        storage.write_bytes(str(target), b"second")
    assert target.read_bytes() == b"first"
    assert os.listdir(target.parent) == ["x.bin"]  # noqa: PTH208


@pytest.mark.parametrize("root", ["file", "memory"])
def test_a_file_is_stored_whole_and_read_in_ranges(root: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(range(100)))
    target = f"file://{tmp_path}/new/x" if root == "file" else "memory://new/x"
    storage.upload(source, target)
    assert storage.read_bytes(target) == bytes(range(100))
    assert storage.read_range(target, 10, 5) == bytes(range(10, 15))
    source.write_bytes(b"shorter")
    storage.upload(source, target)
    assert storage.read_bytes(target) == b"shorter"


def test_a_file_that_cannot_be_stored_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").write_bytes(b"new")
    (tmp_path / "target").write_bytes(b"old")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        storage.upload(tmp_path / "source", str(tmp_path / "target"))
    assert (tmp_path / "target").read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["source", "target"]  # noqa: PTH208


def test_delete_and_exists(tree: Path) -> None:
    uri = f"file://{tree}/a.jpg"
    assert storage.exists(uri)
    storage.delete(uri)
    storage.delete(uri)
    assert not storage.exists(uri)
    assert storage.exists(f"{tree}/sub")


def test_stat_of_a_folder_is_no_file(tree: Path) -> None:
    with pytest.raises(FileNotFoundError):
        storage.stat(str(tree))


def test_check_writable(tree: Path) -> None:
    storage.check_writable(str(tree / "to" / "be" / "made"))
    assert not (tree / "to").exists()
    with pytest.raises(UsageError, match=r"a\.jpg"):
        storage.check_writable(str(tree / "a.jpg" / "below"))


def test_fsspec_scheme() -> None:
    root = "memory://survey"
    try:
        storage.write_bytes(f"{root}/x/1.jpg", b"one")
        storage.write_bytes(f"{root}/2.jpg", b"two!")
        found = list_objects(root)
        assert list_objects(root, exclude=f"{root}/x") == found[:1]
        assert [info.uri.rsplit("/", 1)[1] for info in found] == ["2.jpg", "1.jpg"]
        assert found[0].size == 4
        assert [storage.read_bytes(info.uri) for info in found] == [b"two!", b"one"]
        assert storage.stat(found[0].uri) == found[0]
        assert list_objects(root) == found
        assert [i.uri for i in list_objects(f"{root}/*.jpg")] == [found[0].uri]
        assert storage.exists(root)
        with storage.open_binary(found[1].uri) as file:
            assert file.read() == b"one"
        with pytest.raises(FileNotFoundError):
            storage.read_bytes(f"{root}/3.jpg")
        storage.delete(found[0].uri)
        assert not storage.exists(found[0].uri)
        storage.check_writable(root)
        with pytest.raises(UsageError, match="memory://elsewhere"):
            list_objects("memory://elsewhere")
    finally:
        fsspec.filesystem("memory").rm("/survey", recursive=True)


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_versions_do_not_depend_on_the_time_zone(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        found = fsspec_store.info_of("x://y", {"size": 5, "modified": datetime(2026, 7, 1)})
    finally:
        monkeypatch.undo()
        time.tzset()
    assert found.version == "5-1782864000.0"
