"""Objects by URI: list, read, write whole, on a local disk or any object store.

A URI is `file:///plain/path` (not percent-encoded), `s3://`, `gs://`, `az://`, `https://`, or any other
scheme fsspec knows. Credentials come from the environment or the instance, never from a URI. Local files
go through the operating system, object stores through obstore (its requests retry themselves, within
the bounds below), everything else through fsspec.
"""

import os
import re
import stat as stat_bits
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import urlsplit

import fsspec
import obstore
from fsspec.core import url_to_fs
from fsspec.utils import glob_translate
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import from_url

from gax_batch.errors import TransientError, UsageError

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

UNKNOWN_SIZE = -1

_HTTP = frozenset({"http", "https"})
_BUCKETS = frozenset({"s3", "s3a", "gs", "gcs", "az", "azure", "adl", "abfs", "abfss"})
_RETRIES: "RetryConfig" = {
    "max_retries": 6,
    "retry_timeout": timedelta(seconds=90),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=8), "base": 2},
}
_CLIENT: "ClientConfig" = {"connect_timeout": timedelta(seconds=5), "timeout": timedelta(seconds=60)}
_LIST_CHUNK = 1000
_READ_BUFFER_BYTES = 4 * 1024 * 1024
_MAGIC = re.compile(r"[*?\[]")
_STATUS = re.compile(r"\bstatus(?: code)?:? (\d{3})\b")
_PASSING = re.compile(
    r"error sending request|retries|timed? ?out|connection|reset by peer|broken pipe|decoding response|dns",
    re.I,
)


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
    if parts.password is not None or (parts.scheme in _HTTP and (parts.username or parts.query)):
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


def list_objects(uri: str, *, missing_ok: bool = False) -> list[ObjectInfo]:
    """List one object, everything below a folder or prefix, or what a glob (`*`, `?`, `[]`, `**`) matches.

    Args:
        uri: Path or URI. A local path that exists is never taken for a glob.
        missing_ok: Return an empty list where nothing is found.

    Returns:
        The objects sorted by URI; no request is made per object.

    Raises:
        UsageError: Nothing is there, the scheme is unknown, or access is refused.
        TransientError: The store kept failing.
    """
    uri = normalize_uri(uri)
    folder, matches = _split_glob(uri)
    try:
        found = [info for info in _list(folder) if matches is None or matches.match(info.uri)]
    except FileNotFoundError:
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
    bucket = bucket_of(uri)
    if bucket is not None:
        with translated(uri):
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
    bucket = bucket_of(uri)
    if bucket is None:
        fs, name = _filesystem(uri)
        return bool(fs.exists(name))
    store, key = bucket
    with translated(uri):
        try:
            return bool(key) and obstore.head(store, key) is not None
        except FileNotFoundError:
            return next(iter(obstore.list(store, key, chunk_size=1)), None) is not None


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
    bucket = bucket_of(uri)
    if bucket is not None:
        with translated(uri):
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
    bucket = bucket_of(uri)
    if bucket is not None:
        with translated(uri):
            return cast(BinaryIO, _Reader(uri, obstore.open_reader(*bucket, buffer_size=_READ_BUFFER_BYTES)))
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
    bucket = bucket_of(uri)
    if bucket is not None:
        with translated(uri):
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
    bucket = bucket_of(uri)
    try:
        if bucket is not None:
            with translated(uri):
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


def bucket_of(uri: str) -> "tuple[ObjectStore, str] | None":
    """The obstore client and key of a URI; None where obstore does not serve the scheme.

    Raises:
        UsageError: The store cannot be set up (a name or a setting in the environment is missing).
    """
    scheme, _, rest = uri.partition("://")
    if scheme not in _BUCKETS and scheme not in _HTTP:
        return None
    root, _, key = rest.partition("/")
    return _store(f"{scheme}://{root}"), key


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """Turn obstore's errors into PermissionError, OSError or TransientError, one line without secrets."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"{uri} does not exist") from None
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise PermissionError(f"{uri}: access refused: {_one_line(error)}") from None
    except BaseError as error:
        line = _one_line(error)
        status = _STATUS.search(line)
        code = int(status[1]) if status else None
        if code in (401, 403):
            raise PermissionError(f"{uri}: access refused: {line}") from None
        if (
            code in (408, 429)
            or (code is not None and code >= 500)
            or (code is None and _PASSING.search(line))
        ):
            raise TransientError(f"{uri}: the store keeps failing: {line}") from None
        raise OSError(f"{uri}: {line}") from None


def local_version(status: os.stat_result) -> str:
    """The version of a local file: its size and modification time in nanoseconds."""
    return f"{status.st_size}-{status.st_mtime_ns}"


def etag_version(etag: str | None, size: int, modified: datetime) -> str:
    """The version of a stored object: its ETag without quotes, else its size and modification time."""
    return etag.strip('"') if etag else f"{size}-{modified.astimezone(UTC).isoformat()}"


class _Reader:
    """An obstore reader that is a file to pyarrow and raises this module's errors."""

    def __init__(self, uri: str, reader: Any) -> None:
        self._uri = uri
        self._reader = reader
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        with translated(self._uri):
            return bytes(self._reader.read(None if size is None or size < 0 else size))

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._reader.seek(offset, whence))

    def tell(self) -> int:
        return int(self._reader.tell())

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> "_Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@lru_cache(maxsize=64)
def _store(root: str) -> "ObjectStore":
    try:
        return from_url(root, retry_config=_RETRIES, client_options=_CLIENT)
    except (BaseError, ValueError) as error:
        raise UsageError(
            f"{root} cannot be opened: {_one_line(error)}; check its name and environment"
        ) from None


def _filesystem(uri: str) -> tuple[Any, str]:
    try:
        fs, name = url_to_fs(uri)
    except (ValueError, ImportError) as error:
        known = "a local path, s3://, gs://, az://, https:// or another scheme of fsspec"
        raise UsageError(f"{uri} cannot be opened: {_one_line(error)}; use {known}") from None
    return cast(fsspec.AbstractFileSystem, fs), name


def _split_glob(uri: str) -> tuple[str, re.Pattern[str] | None]:
    """The folder to list and the pattern its objects' URIs must match, if the URI is a glob."""
    magic = _MAGIC.search(uri)
    path = local_path(uri)
    if magic is None or (path is not None and path.exists()):
        return uri, None
    return uri[: uri.rindex("/", 0, magic.start())], re.compile(glob_translate(uri))


def _list(uri: str) -> list[ObjectInfo]:
    path = local_path(uri)
    if path is not None:
        return _list_local(path)
    scheme = uri.partition("://")[0]
    if scheme in _HTTP:  # plain HTTP has no listing
        return [stat(uri)]
    if scheme in _BUCKETS:
        return _list_bucket(uri)
    fs, name = _filesystem(uri)
    return [_of_fsspec(fs.unstrip_protocol(key), info) for key, info in fs.find(name, detail=True).items()]


def _list_local(path: Path) -> list[ObjectInfo]:
    if path.is_file():
        return [stat(str(path))]
    found: list[ObjectInfo] = []
    folders = [str(path)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.is_file() or entry.is_symlink():
                    _append_local(found, entry)
    return found


def _append_local(found: list[ObjectInfo], entry: "os.DirEntry[str]") -> None:
    # A dangling link is listed, so that it is rejected as missing and not lost without a word.
    try:
        status = entry.stat()
    except FileNotFoundError:
        status = entry.stat(follow_symlinks=False)
    if not stat_bits.S_ISDIR(status.st_mode):
        found.append(ObjectInfo(f"file://{entry.path}", status.st_size, local_version(status)))


def _list_bucket(uri: str) -> list[ObjectInfo]:
    store, key = cast("tuple[ObjectStore, str]", bucket_of(uri))
    root = uri[: len(uri) - len(key)].rstrip("/")
    with translated(uri):
        chunks = obstore.list(store, key or None, chunk_size=_LIST_CHUNK)
        found = [_of_meta(f"{root}/{meta['path']}", meta) for chunk in chunks for meta in chunk]
        if not found and key:
            found = [_of_meta(uri, obstore.head(store, key))]
    # A "folder" made by a console is an empty object whose key ends in a slash: obstore drops the slash.
    return [info for info in found if info.size or info.uri != uri]


def _of_meta(uri: str, meta: "ObjectMeta") -> ObjectInfo:
    return ObjectInfo(uri, meta["size"], etag_version(meta["e_tag"], meta["size"], meta["last_modified"]))


def _of_fsspec(uri: str, info: dict[str, Any]) -> ObjectInfo:
    size = info.get("size")
    size = UNKNOWN_SIZE if size is None else int(size)
    tag = info.get("ETag") or info.get("etag")
    when = next((info[k] for k in ("mtime", "LastModified", "modified", "created") if info.get(k)), "")
    return ObjectInfo(uri, size, str(tag).strip('"') if tag else f"{size}-{when}".replace(" ", "T"))


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


def _one_line(error: Exception) -> str:
    """An error's first line, less the queries of its URLs: some carry signatures."""
    first = str(error).strip().partition("\n")[0]
    return re.sub(r"(https?://[^\s?]+)\?\S+", r"\1", first)[:300]
