"""Every store keeps the same protocol."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest
from obstore.store import MemoryStore

from gax_batch.errors import UsageError
from gax_batch.storage import store_of
from gax_batch.storage.fsspec_store import FsspecStore
from gax_batch.storage.local import LocalStore
from gax_batch.storage.object_store import ObjectStore
from gax_batch.storage.store import WRITE_TEST, Store


@pytest.fixture(params=["local", "object", "fsspec"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Store, str]]:
    """A store and the URI of an empty folder in it."""
    if request.param == "local":
        yield LocalStore(), f"file://{tmp_path}/survey"
    elif request.param == "object":
        yield ObjectStore("s3://bucket", MemoryStore()), "s3://bucket/survey"
    else:
        yield FsspecStore(), "memory://stores"
        if fsspec.filesystem("memory").exists("/stores"):
            fsspec.filesystem("memory").rm("/stores", recursive=True)


def test_objects_are_written_listed_read_and_deleted(place: tuple[Store, str], tmp_path: Path) -> None:
    store, root = place
    one, two = f"{root}/1.bin", f"{root}/sub/2.bin"
    (tmp_path / "source").write_bytes(b"abcdef")
    assert not store.exists(root)
    store.write(one, b"123")
    store.write(two, tmp_path / "source")
    listed = sorted(store.list(root), key=lambda info: info.uri)
    assert [(info.uri, info.size) for info in listed] == [(one, 3), (two, 6)]
    assert [store.stat(info.uri) for info in listed] == listed
    assert list(store.list(two)) == listed[1:]
    assert list(store.list(root, exclude=f"{root}/sub")) == listed[:1]
    assert store.read_bytes(one) == b"123"
    assert store.read_range(two, 2, 3) == b"cde"
    with store.open_binary(two) as file:
        file.seek(-2, 2)
        assert (file.read(1), file.tell(), file.read()) == (b"e", 5, b"f")
    assert abs(store.modified(one) - datetime.now(UTC)) < timedelta(minutes=5)
    assert store.exists(one)
    assert store.exists(f"{root}/sub")
    store.delete(one)
    assert not store.exists(one)
    for read in (store.stat, store.read_bytes, store.modified):
        with pytest.raises(FileNotFoundError):
            read(one)


def test_a_check_leaves_nothing(place: tuple[Store, str]) -> None:
    store, root = place
    store.check_writable(root)
    assert list(store.list(root) if store.exists(root) else []) == []


def test_what_a_cut_off_check_leaves_is_taken_away_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(store: ObjectStore, uri: str) -> None:
        raise PermissionError(uri)

    store = ObjectStore("az://box", MemoryStore())
    monkeypatch.setattr(ObjectStore, "delete", deny)
    with pytest.raises(UsageError):
        store.check_writable("az://box/out")
    monkeypatch.undo()
    assert [info.uri for info in store.list("az://box/out")] == [f"az://box/out/{WRITE_TEST}"]
    store.check_writable("az://box/out")
    assert not store.exists("az://box/out")


def test_a_checked_probe_may_be_gone_already(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store may answer a repeated deletion that the object does not exist."""

    def gone(store: ObjectStore, uri: str) -> None:
        raise FileNotFoundError(uri)

    monkeypatch.setattr(ObjectStore, "delete", gone)
    ObjectStore("az://box", MemoryStore()).check_writable("az://box/out")


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("relative/x", LocalStore),
        ("file:/x", LocalStore),
        ("s3://bucket/x", ObjectStore),
        ("https://host/x", ObjectStore),
        ("memory://x", FsspecStore),
        ("zip://x.jpg::file:///y.zip", FsspecStore),
    ],
)
def test_a_uri_has_one_store(uri: str, kind: type[Store], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    assert type(store_of(uri)) is kind
