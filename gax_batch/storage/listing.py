"""What lies below a folder or prefix, or matches a glob, told one object at a time."""

import errno
import heapq
import os
import re
import stat as stat_bits
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, cast

import obstore
from fsspec.utils import glob_translate

from gax_batch import storage
from gax_batch.errors import NoAnswerError, TransientError, UsageError
from gax_batch.storage import object_store
from gax_batch.storage.store import ObjectInfo

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

_LIST_CHUNK = 1000
_PAGE_ATTEMPTS = 4
_MAGIC = re.compile(r"[*?\[]")


def list_objects(uri: str, *, missing_ok: bool = False, exclude: str | None = None) -> list[ObjectInfo]:
    """What `iter_objects` gives, sorted by URI."""
    objects = iter_objects(uri, missing_ok=missing_ok, exclude=exclude)
    return sorted(objects, key=lambda info: info.uri)


def iter_objects(uri: str, *, missing_ok: bool = False, exclude: str | None = None) -> Iterator[ObjectInfo]:
    """List one object, everything below a folder or prefix, or what a glob (`*`, `?`, `[]`, `**`) matches.

    Args:
        uri: Path or URI. A local path that exists is never taken for a glob.
        missing_ok: Yield nothing where nothing is found. The URI is then the name of a folder that may not be
            there yet, and never a glob.
        exclude: A normalized URI below which nothing is listed.

    Yields:
        The objects in any order, as the store tells of them; no request is made per object. Links to local
        folders are followed.

    Raises:
        UsageError: Nothing is there, the scheme is unknown, access is refused, or no server answers.
        TransientError: The store kept failing.
    """
    uri = storage.normalize_uri(uri)
    folder, matches = (uri, None) if missing_ok else split_glob(uri)
    found = False
    try:
        for info in _list(folder, exclude):
            if matches is None or matches.match(info.uri):
                found = True
                yield info
    except (FileNotFoundError, NotADirectoryError) as error:
        if found:  # half a listing would look like half a survey
            raise TransientError(f"a folder of {uri} went away while it was listed; run again") from None
        if isinstance(error, object_store.NoBucketError):
            raise UsageError(f"{error}; check its name and the endpoint in the environment") from None
    except PermissionError:
        raise UsageError(
            f"no permission to list {uri}; check its permissions or give credentials by the environment"
        ) from None
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise UsageError(
            f"below {uri} are folders in folders whose names together are longer than the system reads "
            f"({str(error.filename)[:80]}...); move or remove them"
        ) from None
    except NoAnswerError as error:
        if found:
            raise
        raise UsageError(f"{error}; check the endpoint in the environment and the network") from None
    if not found and not missing_ok:
        raise UsageError(_nothing_found(uri, is_glob=matches is not None))


def split_glob(uri: str) -> tuple[str, re.Pattern[str] | None]:
    """The folder to list and the pattern its objects' URIs must match, if the URI is a glob."""
    magic = _MAGIC.search(uri)
    path = storage.local_path(uri)
    if magic is None or (path is not None and path.exists()):
        return uri, None
    return uri[: uri.rindex("/", 0, magic.start())], re.compile(glob_translate(uri))


def _list(uri: str, exclude: str | None) -> Iterator[ObjectInfo]:
    path = storage.local_path(uri)
    if path is not None:
        return _list_local(path, exclude)
    found = _list_remote(uri)
    return found if exclude is None else (info for info in found if not storage.is_within(info.uri, exclude))


def _list_remote(uri: str) -> Iterator[ObjectInfo]:
    scheme = uri.partition("://")[0]
    if scheme in object_store.HTTP:  # plain HTTP has no listing
        return iter([storage.stat(uri)])
    if scheme in object_store.BUCKETS:
        return _list_bucket(uri)
    fs, name = storage.filesystem(uri)
    found = fs.find(name, detail=True).items()
    return (storage.of_fsspec(uri + key.removeprefix(name.rstrip("/")), info) for key, info in found)


def _list_local(path: Path, exclude: str | None) -> Iterator[ObjectInfo]:
    if path.is_file():
        yield storage.stat(str(path))
        return
    if not path.is_dir():
        return
    seen: set[tuple[int, int]] = set()  # every folder once: links may lead in a circle
    if exclude is not None and (excluded := storage.local_path(exclude)) is not None:
        with suppress(OSError):
            seen.add(_identity(excluded.stat()))
    # Links last and by name, so that a folder with several names always gets the same one.
    folders = [(False, str(path), _identity(path.stat()))]
    while folders:
        _, folder, identity = heapq.heappop(folders)
        if identity in seen:
            continue
        seen.add(identity)
        with os.scandir(folder) as entries:
            for entry in entries:
                status = _status(entry)
                if status is None:
                    continue
                if stat_bits.S_ISDIR(status.st_mode):
                    heapq.heappush(folders, (entry.is_symlink(), entry.path, _identity(status)))
                elif stat_bits.S_ISREG(status.st_mode) or stat_bits.S_ISLNK(status.st_mode):
                    yield ObjectInfo(f"file://{entry.path}", status.st_size, storage.local_version(status))


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _status(entry: "os.DirEntry[str]") -> os.stat_result | None:
    """What an entry or its link's target is; the link itself if it leads nowhere; None if it just went."""
    try:
        return entry.stat()
    except OSError:  # listed all the same, so that it is rejected and not lost without a word
        with suppress(FileNotFoundError):
            return entry.stat(follow_symlinks=False)
    return None


def _list_bucket(uri: str) -> Iterator[ObjectInfo]:
    store, key = cast("tuple[ObjectStore, str]", object_store.bucket_of(uri))
    root = uri[: len(uri) - len(key)].rstrip("/")
    metas = _list_prefix(uri, store, key)
    first = next(metas, None)
    if first is None and key:
        with object_store.translated(uri):
            first = obstore.head(store, key)
    for meta in chain([] if first is None else [first], metas):
        info = storage.of_meta(f"{root}/{meta['path']}", meta)
        # A console's "folder" is an empty object whose key ends in a slash: obstore drops the slash.
        if info.size or info.uri != uri:
            yield info


def _list_prefix(uri: str, store: "ObjectStore", key: str) -> "Iterator[ObjectMeta]":
    """The objects below a key; a page that breaks off is asked for again, behind the last one told."""
    last, broken = None, 0
    while True:
        try:
            with object_store.translated(uri):
                pages = obstore.list(store, key or None, offset=last, chunk_size=_LIST_CHUNK)
                for meta in chain.from_iterable(pages):
                    last, broken = meta["path"], 0
                    yield meta
            return
        except NoAnswerError:  # the client itself has tried again
            raise
        except TransientError:
            broken += 1
            if broken == _PAGE_ATTEMPTS:
                raise


def _nothing_found(uri: str, *, is_glob: bool) -> str:
    if is_glob:
        return f"no object matches {uri}; check the pattern (quote it, so that the shell leaves it alone)"
    path = storage.local_path(uri)
    if path is not None and path.is_dir():
        return f"{uri} is an empty folder; name one that holds images or Parquet shards"
    return f"nothing is at {uri}; check its name"
