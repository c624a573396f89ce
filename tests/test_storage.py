import os
from pathlib import Path

import fsspec
import pytest

from gax_batch import storage
from gax_batch.errors import UsageError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b b#%20.jpg", "sub/c.png", "sub/deep/d.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


def names(found: list[storage.ObjectInfo], root: object) -> list[str]:
    return [info.uri.removeprefix(f"file://{root}/") for info in found]


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


def test_list_is_recursive_and_sorted(tree: Path) -> None:
    found = storage.list_objects(str(tree))
    assert names(found, tree) == ["a.jpg", "b b#%20.jpg", "sub/c.png", "sub/deep/d.jpg"]
    assert found[0].size == 5
    status = (tree / "a.jpg").stat()
    assert found[0].version == f"5-{status.st_mtime_ns}"
    assert found == storage.list_objects(f"file://{tree}/")
    assert [storage.stat(info.uri) for info in found] == found


def test_list_one_file_and_globs(tree: Path) -> None:
    assert names(storage.list_objects(str(tree / "a.jpg")), tree) == ["a.jpg"]
    assert names(storage.list_objects(f"{tree}/*.jpg"), tree) == ["a.jpg", "b b#%20.jpg"]
    assert names(storage.list_objects(f"{tree}/**/*.jpg"), tree) == ["a.jpg", "b b#%20.jpg", "sub/deep/d.jpg"]
    assert names(storage.list_objects(f"{tree}/s?b/[a-c].png"), tree) == ["sub/c.png"]


def test_a_path_that_exists_is_no_glob(tmp_path: Path) -> None:
    folder = tmp_path / "survey [1]"
    folder.mkdir()
    (folder / "x.jpg").write_bytes(b"x")
    assert len(storage.list_objects(str(folder))) == 1


def test_links_and_pipes(tree: Path) -> None:
    (tree / "link.jpg").symlink_to(tree / "a.jpg")
    (tree / "dangling.jpg").symlink_to(tree / "nowhere.jpg")
    os.mkfifo(tree / "pipe.jpg")
    found = names(storage.list_objects(str(tree)), tree)
    assert {"link.jpg", "dangling.jpg"} <= set(found)
    assert "pipe.jpg" not in found
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(str(tree / "dangling.jpg"))


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    root = tmp_path / "survey"
    for path in (
        root / "z" / "1.jpg",
        tmp_path / "outside" / "sub" / "2.jpg",
        tmp_path / "outside" / "3.jpg",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (root / "a").symlink_to(root / "z")  # the folder itself stands above a link to it
    (root / "z" / "up").symlink_to(root)
    (root / "out").symlink_to(tmp_path / "outside")
    (root / "also").symlink_to(tmp_path / "outside")
    (tmp_path / "outside" / "back").symlink_to(root / "z")
    found = storage.list_objects(str(root))
    assert names(found, root) == ["also/3.jpg", "also/sub/2.jpg", "z/1.jpg"]
    assert [storage.stat(info.uri) for info in found] == found
    assert names(storage.list_objects(f"{root}/out/*.jpg"), root) == ["out/3.jpg"]


def test_a_link_that_leads_nowhere_is_listed_as_itself(tree: Path) -> None:
    (tree / "loop.jpg").symlink_to(tree / "loop.jpg")
    (tree / "gone.jpg").symlink_to(tree / "nowhere.jpg")
    found = {info.uri.rsplit("/", 1)[1]: info for info in storage.list_objects(str(tree))}
    for name in ("loop.jpg", "gone.jpg"):
        assert found[name].version == storage.local_version((tree / name).lstat())
    with pytest.raises(UsageError, match="nothing is at"):
        storage.list_objects(str(tree / "loop.jpg"))


def test_a_file_that_goes_during_the_listing_is_not_listed(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = os.scandir

    class Scan:
        def __init__(self, folder: str) -> None:
            with scan(folder) as entries:
                self.entries = list(entries)
            (tree / "a.jpg").unlink(missing_ok=True)

        def __enter__(self) -> "list[os.DirEntry[str]]":
            return self.entries

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Scan)
    assert names(storage.list_objects(str(tree)), tree) == ["b b#%20.jpg", "sub/c.png", "sub/deep/d.jpg"]


def test_nothing_below_an_excluded_folder_is_listed(tree: Path) -> None:
    (tree / "subway").mkdir()
    (tree / "subway" / "e.jpg").write_bytes(b"e")
    (tree / "link").symlink_to(tree / "sub")
    found = storage.list_objects(str(tree), exclude=f"file://{tree}/sub")
    assert names(found, tree) == ["a.jpg", "b b#%20.jpg", "subway/e.jpg"]
    assert storage.list_objects(str(tree), exclude="s3://bucket/sub") == storage.list_objects(str(tree))


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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", r"nothing is at .*check its name"),
        ("a.jpg/below", "nothing is at"),
        ("*.gif", "no object matches"),
        ("nowhere/*.jpg", "no object matches"),
        ("empty", "empty folder"),
    ],
)
def test_nothing_found(tree: Path, name: str, message: str) -> None:
    (tree / "empty").mkdir()
    with pytest.raises(UsageError, match=message) as caught:
        storage.list_objects(f"{tree}/{name}")
    assert "\n" not in str(caught.value)
    assert storage.list_objects(f"{tree}/{name}", missing_ok=True) == []


def test_unknown_scheme() -> None:
    for call in (storage.list_objects, storage.read_bytes, storage.exists):
        with pytest.raises(UsageError, match=r"nope.*use a local path"):
            call("nope://somewhere/x")


def test_no_permission(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UsageError, match="no permission to list"):
        storage.list_objects(str(tree))


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
    with pytest.raises(UsageError, match="cannot write"):
        storage.check_writable(str(tree / "a.jpg" / "below"))


def test_fsspec_scheme() -> None:
    root = "memory://survey"
    try:
        storage.write_bytes(f"{root}/x/1.jpg", b"one")
        storage.write_bytes(f"{root}/2.jpg", b"two!")
        found = storage.list_objects(root)
        assert storage.list_objects(root, exclude=f"{root}/x") == found[:1]
        assert [info.uri.rsplit("/", 1)[1] for info in found] == ["2.jpg", "1.jpg"]
        assert found[0].size == 4
        assert [storage.read_bytes(info.uri) for info in found] == [b"two!", b"one"]
        assert storage.stat(found[0].uri) == found[0]
        assert storage.list_objects(root) == found
        assert [i.uri for i in storage.list_objects(f"{root}/*.jpg")] == [found[0].uri]
        assert storage.exists(root)
        with storage.open_binary(found[1].uri) as file:
            assert file.read() == b"one"
        with pytest.raises(FileNotFoundError):
            storage.read_bytes(f"{root}/3.jpg")
        storage.delete(found[0].uri)
        assert not storage.exists(found[0].uri)
        storage.check_writable(root)
        with pytest.raises(UsageError, match="nothing is at"):
            storage.list_objects("memory://elsewhere")
    finally:
        fsspec.filesystem("memory").rm("/survey", recursive=True)
