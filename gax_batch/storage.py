"""Objects by URI: list, read, write whole, on a local disk or any object store.

A URI is `file:///plain/path` (not percent-encoded), `s3://`, `gs://`, `az://`, `https://`, or any other
scheme fsspec knows. Credentials come from the environment or the instance, never from a URI. Local files
go through the operating system, object stores through obstore (see
`gax_batch.buckets`), everything else through fsspec.
"""

import heapq
import os
import re
import stat as stat_bits
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import urlsplit

import fsspec
import obstore
from fsspec.core import url_to_fs
from fsspec.utils import glob_translate

from gax_batch import buckets
from gax_batch.errors import UsageError

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

UNKNOWN_SIZE = -1

_LIST_CHUNK = 1000
_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object of a listing.

    Attributes:
        uri: Where it is.
        size: In bytes; `UNKNOWN_SIZE` where the server does not say.
        version: The ETag without quotes, or size and modification time where there is none.
    """

    uri: str
    size: int
    version: str


def normalize_uri(uri: str) -> str:
    """Give a local path its absolute `file://` URI; leave other URIs as they are, less a final slash.

    Raises:
        UsageError: An empty URI, or one with credentials or a query in it (URIs end in the catalog).
    """
    if not uri.strip():
        raise UsageError("an empty path was given; name a folder, a file or a URI")
    path = local_path(uri)
    if path is not None:
        return f"file://{path}"
    parts = urlsplit(uri)
    if parts.password is not None or (parts.scheme in buckets.HTTP and (parts.username or parts.query)):
        raise UsageError(
            f"a {parts.scheme}:// URI carries credentials or a query, which would end in the catalog; "
            "give credentials by the environment and a plain URI"
        )
    return uri.rstrip("/")


def local_path(uri: str) -> Path | None:
    """The absolute local path of a plain path or `file:` URI; None for every other scheme."""
    if "://" not in uri and not uri.startswith("file:"):
        return Path(os.path.abspath(Path(uri).expanduser()))  # noqa: PTH100 (`resolve` would follow links)
    if uri.startswith("file:"):
        return Path(os.path.abspath(uri.removeprefix("file:").removeprefix("//")))  # noqa: PTH100
    return None


def join(uri: str, *names: str) -> str:
    """Append names to a URI, one slash between each."""
    return "/".join([uri.rstrip("/"), *(name.strip("/") for name in names)])


def is_within(uri: str, folder: str) -> bool:
    """Whether a normalized URI is a folder's own or one below it; links on a local disk are followed."""
    path, root = local_path(uri), local_path(folder)
    if path is None or root is None:
        return f"{uri}/".startswith(f"{folder}/")
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def list_objects(uri: str, *, missing_ok: bool = False, exclude: str | None = None) -> list[ObjectInfo]:
    """List one object, everything below a folder or prefix, or what a glob (`*`, `?`, `[]`, `**`) matches.

    Args:
        uri: Path or URI. A local path that exists is never taken for a glob.
        missing_ok: Return an empty list where nothing is found.
        exclude: A normalized URI below which nothing is listed.

    Returns:
        The objects sorted by URI; no request is made per object. Links to local folders are followed.

    Raises:
        UsageError: Nothing is there, the scheme is unknown, or access is refused.
        TransientError: The store kept failing.
    """
    uri = normalize_uri(uri)
    folder, matches = _split_glob(uri)
    try:
        found = [info for info in _list(folder, exclude) if matches is None or matches.match(info.uri)]
    except (FileNotFoundError, NotADirectoryError):
        found = []
    except PermissionError:
        raise UsageError(
            f"no permission to list {uri}; check its permissions or give credentials by the environment"
        ) from None
    if not found and not missing_ok:
        raise UsageError(_nothing_found(uri, is_glob=matches is not None))
    return sorted(found, key=lambda info: info.uri)


def stat(uri: str) -> ObjectInfo:
    """Look at one object, with the same version string as `list_objects` gives.

    Raises:
        FileNotFoundError: It does not exist, or is a folder.
        PermissionError: Access is refused.
        TransientError: The store kept failing.
    """
    path = local_path(uri)
    if path is not None:
        status = path.stat()
        if not stat_bits.S_ISREG(status.st_mode):
            raise FileNotFoundError(f"{uri} is no file")
        return ObjectInfo(f"file://{path}", status.st_size, local_version(status))
    bucket = buckets.bucket_of(uri)
    if bucket is not None:
        with buckets.translated(uri):
            return _of_meta(uri, obstore.head(*bucket))
    fs, name = _filesystem(uri)
    info = fs.info(name)
    if info.get("type") == "directory":
        raise FileNotFoundError(f"{uri} is no file")
    return _of_fsspec(uri, info)


def exists(uri: str) -> bool:
    """Whether an object, or a folder with anything in it, is there."""
    path = local_path(uri)
    if path is not None:
        return path.exists()
    bucket = buckets.bucket_of(uri)
    if bucket is not None:
        return buckets.exists(uri, *bucket)
    fs, name = _filesystem(uri)
    return bool(fs.exists(name))


def read_bytes(uri: str) -> bytes:
    """Read a whole object.

    Raises:
        FileNotFoundError: It does not exist.
        PermissionError: Access is refused.
        OSError: It cannot be read.
        TransientError: The store kept failing.
    """
    path = local_path(uri)
    if path is not None:
        return path.read_bytes()
    bucket = buckets.bucket_of(uri)
    if bucket is not None:
        with buckets.translated(uri):
            return bytes(obstore.get(*bucket).bytes())
    fs, name = _filesystem(uri)
    return cast(bytes, fs.cat_file(name))


def open_binary(uri: str) -> BinaryIO:
    """Open an object for reading at random (a file-like object for pyarrow).

    Raises:
        FileNotFoundError: It does not exist.
        PermissionError: Access is refused.
        OSError: It cannot be read.
        TransientError: The store kept failing.
    """
    path = local_path(uri)
    if path is not None:
        return path.open("rb")
    bucket = buckets.bucket_of(uri)
    if bucket is not None:
        return buckets.open_reader(uri, *bucket)
    fs, name = _filesystem(uri)
    return cast(BinaryIO, fs.open(name, "rb"))


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole object, or nothing; folders above it are made.

    Nobody sees a half-written object on a local disk (renamed into place) or in an object store; for
    other schemes this is as atomic as the fsspec file system is.

    Raises:
        PermissionError: Access is refused.
        OSError: It cannot be written.
        TransientError: The store kept failing.
    """
    path = local_path(uri)
    if path is not None:
        _write_local(path, data)
        return
    bucket = buckets.bucket_of(uri)
    if bucket is not None:
        with buckets.translated(uri):
            obstore.put(*bucket, data)
        return
    fs, name = _filesystem(uri)
    fs.makedirs(fs._parent(name), exist_ok=True)
    fs.pipe_file(name, data)


def delete(uri: str) -> None:
    """Remove one object; an object that is not there is removed already."""
    path = local_path(uri)
    if path is not None:
        path.unlink(missing_ok=True)
        return
    bucket = buckets.bucket_of(uri)
    try:
        if bucket is not None:
            with buckets.translated(uri):
                obstore.delete(*bucket)
        else:
            fs, name = _filesystem(uri)
            fs.rm_file(name)
    except FileNotFoundError:
        return


def check_writable(uri: str) -> None:
    """Make sure that objects can be written below a folder or prefix, and leave nothing there.

    Raises:
        UsageError: They cannot.
    """
    uri = normalize_uri(uri)
    path = local_path(uri)
    if path is not None:
        nearest = next(p for p in (path, *path.parents) if p.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            raise UsageError(f"cannot write to {uri}: {nearest} is no writable folder; choose another place")
        return
    probe = join(uri, f".write-test-{uuid.uuid4().hex}")
    try:
        write_bytes(probe, b"")
        delete(probe)
    except OSError as error:
        raise UsageError(
            f"cannot write to {uri}: {error}; check the name and the credentials in the environment"
        ) from None


def local_version(status: os.stat_result) -> str:
    """The version of a local file: its size and modification time in nanoseconds."""
    return f"{status.st_size}-{status.st_mtime_ns}"


def _filesystem(uri: str) -> tuple[Any, str]:
    try:
        fs, name = url_to_fs(uri)
    except (ValueError, ImportError) as error:
        known = "a local path, s3://, gs://, az://, https:// or another scheme of fsspec"
        raise UsageError(f"{uri} cannot be opened: {buckets.one_line(error)}; use {known}") from None
    return cast(fsspec.AbstractFileSystem, fs), name


def _split_glob(uri: str) -> tuple[str, re.Pattern[str] | None]:
    """The folder to list and the pattern its objects' URIs must match, if the URI is a glob."""
    magic = _MAGIC.search(uri)
    path = local_path(uri)
    if magic is None or (path is not None and path.exists()):
        return uri, None
    return uri[: uri.rindex("/", 0, magic.start())], re.compile(glob_translate(uri))


def _list(uri: str, exclude: str | None) -> list[ObjectInfo]:
    path = local_path(uri)
    if path is not None:
        return _list_local(path, exclude)
    found = _list_remote(uri)
    return found if exclude is None else [info for info in found if not is_within(info.uri, exclude)]


def _list_remote(uri: str) -> list[ObjectInfo]:
    scheme = uri.partition("://")[0]
    if scheme in buckets.HTTP:  # plain HTTP has no listing
        return [stat(uri)]
    if scheme in buckets.BUCKETS:
        return _list_bucket(uri)
    fs, name = _filesystem(uri)
    found = fs.find(name, detail=True).items()
    return [_of_fsspec(uri + key.removeprefix(name.rstrip("/")), info) for key, info in found]


def _list_local(path: Path, exclude: str | None) -> list[ObjectInfo]:
    if path.is_file():
        return [stat(str(path))]
    if not path.is_dir():
        return []
    seen: set[tuple[int, int]] = set()  # every folder once: links may lead in a circle
    if exclude is not None and (excluded := local_path(exclude)) is not None:
        with suppress(OSError):
            seen.add(_identity(excluded.stat()))
    found: list[ObjectInfo] = []
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
                    found.append(ObjectInfo(f"file://{entry.path}", status.st_size, local_version(status)))
    return found


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


def _list_bucket(uri: str) -> list[ObjectInfo]:
    store, key = cast("tuple[ObjectStore, str]", buckets.bucket_of(uri))
    root = uri[: len(uri) - len(key)].rstrip("/")
    with buckets.translated(uri):
        chunks = obstore.list(store, key or None, chunk_size=_LIST_CHUNK)
        found = [_of_meta(f"{root}/{meta['path']}", meta) for chunk in chunks for meta in chunk]
        if not found and key:
            found = [_of_meta(uri, obstore.head(store, key))]
    # A "folder" made by a console is an empty object whose key ends in a slash: obstore drops the slash.
    return [info for info in found if info.size or info.uri != uri]


def _of_meta(uri: str, meta: "ObjectMeta") -> ObjectInfo:
    return ObjectInfo(
        uri, meta["size"], buckets.etag_version(meta["e_tag"], meta["size"], meta["last_modified"])
    )


def _of_fsspec(uri: str, info: dict[str, Any]) -> ObjectInfo:
    size = UNKNOWN_SIZE if info.get("size") is None else int(info["size"])
    tag = info.get("ETag") or info.get("etag")
    if tag:
        return ObjectInfo(uri, size, str(tag).strip('"'))
    when = next((info[k] for k in ("mtime", "LastModified", "modified", "created") if info.get(k)), "")
    # The same file system may give a number in a listing and a date for one object.
    return ObjectInfo(uri, size, f"{size}-{when.timestamp() if isinstance(when, datetime) else when}")


def _write_local(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _nothing_found(uri: str, *, is_glob: bool) -> str:
    if is_glob:
        return f"no object matches {uri}; check the pattern (quote it, so that the shell leaves it alone)"
    path = local_path(uri)
    if path is not None and path.is_dir():
        return f"{uri} is an empty folder; name one that holds images or Parquet shards"
    return f"nothing is at {uri}; check its name"
