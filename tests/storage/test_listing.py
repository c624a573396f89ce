import os
import re
import shutil
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import GenericError

from gax_batch import storage
from gax_batch.errors import TransientError, UsageError
from gax_batch.storage.listing import iter_objects, list_objects
from gax_batch.storage.local import version_of
from gax_batch.storage.object_store import ObjectStore


def names(found: list[storage.ObjectInfo], root: object) -> list[str]:
    return [info.uri.removeprefix(f"file://{root}/") for info in found]


def test_list_is_recursive_and_sorted(tree: Path) -> None:
    found = list_objects(str(tree))
    assert names(found, tree) == ["a.jpg", "b b#%20.jpg", "sub/c.png", "sub/deep/d.jpg"]
    assert found[0].size == 5
    status = (tree / "a.jpg").stat()
    assert found[0].version == f"5-{status.st_mtime_ns}"
    assert found == list_objects(f"file://{tree}/")
    assert [storage.stat(info.uri) for info in found] == found


def test_list_one_file_and_globs(tree: Path) -> None:
    assert names(list_objects(str(tree / "a.jpg")), tree) == ["a.jpg"]
    assert names(list_objects(f"{tree}/*.jpg"), tree) == ["a.jpg", "b b#%20.jpg"]
    assert names(list_objects(f"{tree}/**/*.jpg"), tree) == ["a.jpg", "b b#%20.jpg", "sub/deep/d.jpg"]
    assert names(list_objects(f"{tree}/s?b/[a-c].png"), tree) == ["sub/c.png"]


def test_a_path_that_exists_is_no_glob(tmp_path: Path) -> None:
    folder = tmp_path / "survey [1]"
    folder.mkdir()
    (folder / "x.jpg").write_bytes(b"x")
    assert len(list_objects(str(folder))) == 1


def test_links_and_pipes(tree: Path) -> None:
    (tree / "link.jpg").symlink_to(tree / "a.jpg")
    (tree / "dangling.jpg").symlink_to(tree / "nowhere.jpg")
    os.mkfifo(tree / "pipe.jpg")
    found = names(list_objects(str(tree)), tree)
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
    found = list_objects(str(root))
    assert names(found, root) == ["also/3.jpg", "also/sub/2.jpg", "z/1.jpg"]
    assert [storage.stat(info.uri) for info in found] == found
    assert names(list_objects(f"{root}/out/*.jpg"), root) == ["out/3.jpg"]


def test_a_link_that_leads_nowhere_is_listed_as_itself(tree: Path) -> None:
    (tree / "loop.jpg").symlink_to(tree / "loop.jpg")
    (tree / "gone.jpg").symlink_to(tree / "nowhere.jpg")
    found = {info.uri.rsplit("/", 1)[1]: info for info in list_objects(str(tree))}
    for name in ("loop.jpg", "gone.jpg"):
        assert found[name].version == version_of((tree / name).lstat())
    with pytest.raises(UsageError, match=r"loop\.jpg"):
        list_objects(str(tree / "loop.jpg"))


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
    assert names(list_objects(str(tree)), tree) == ["b b#%20.jpg", "sub/c.png", "sub/deep/d.jpg"]


def test_a_folder_that_goes_during_the_listing_ends_it(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(b"x")
    objects = iter_objects(str(tmp_path))
    assert next(objects).uri == f"file://{tmp_path}/a/1.jpg"
    shutil.rmtree(tmp_path / "b")
    with pytest.raises(TransientError, match=tmp_path.name):
        list(objects)


def test_nothing_below_an_excluded_folder_is_listed(tree: Path) -> None:
    (tree / "subway").mkdir()
    (tree / "subway" / "e.jpg").write_bytes(b"e")
    (tree / "link").symlink_to(tree / "sub")
    found = list_objects(str(tree), exclude=f"file://{tree}/sub")
    assert names(found, tree) == ["a.jpg", "b b#%20.jpg", "subway/e.jpg"]
    assert list_objects(str(tree), exclude="s3://bucket/sub") == list_objects(str(tree))


def test_nothing_found_is_told_by_its_kind(tree: Path) -> None:
    (tree / "empty").mkdir()
    kinds = [("nowhere", "a.jpg/below"), ("*.gif", "nowhere/*.jpg"), ("empty",)]
    told: list[set[str]] = []
    for names_of_a_kind in kinds:
        told.append(set())
        for name in names_of_a_kind:
            with pytest.raises(UsageError, match=re.escape(f"{tree}/{name}")) as caught:
                list_objects(f"{tree}/{name}")
            assert "\n" not in str(caught.value)
            assert list_objects(f"{tree}/{name}", missing_ok=True) == []
            told[-1].add(str(caught.value).replace(f"{tree}/{name}", ""))
    # The same for what is of a kind, and another for each kind.
    assert [len(messages) for messages in told] == [1, 1, 1]
    assert len(set.union(*told)) == 3


def test_no_permission(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UsageError, match=re.escape(str(tree))):
        list_objects(str(tree))


def test_a_page_that_breaks_off_is_asked_for_again_behind_the_last_object(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys, asked = [f"x/{i}" for i in range(5)], []

    def broken_list(_store: object, _key: object, *, offset: str | None, chunk_size: int) -> object:
        asked.append(offset)
        rest = [{"path": key} for key in keys if offset is None or key > offset]
        yield rest[:2]
        if len(rest) > 2:
            raise GenericError("Generic S3 error: HTTP error: request or response body error")

    monkeypatch.setattr(obstore, "list", broken_list)
    found = ObjectStore("s3://bucket", None)._metas("s3://bucket/x")  # type: ignore[arg-type]
    assert [meta["path"] for meta in found] == keys
    assert asked == [None, "x/1", "x/3"]


@pytest.mark.parametrize("name", ["catalog [1]", "catalog*", "{root}/deep/x?"])
def test_a_folder_that_is_not_there_yet_is_no_glob(
    tree: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "scandir", lambda path: pytest.fail(f"{path} was listed"))
    assert list_objects(f"{tree}/{name}", missing_ok=True) == []
