"""Objects of any other scheme that fsspec supports."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

from fsspec.core import url_to_fs

from gax_batch.errors import UsageError
from gax_batch.storage.client_errors import one_line
from gax_batch.storage.store import UNKNOWN_SIZE, ObjectInfo, Store, outside


class FsspecStore(Store):
    """Objects through fsspec. Writes are as atomic as the file system makes them."""

    def stat(self, uri: str) -> ObjectInfo:
        """Return the size and version of one object."""
        fs, name = _filesystem(uri)
        info = fs.info(name)
        if info.get("type") == "directory":
            raise FileNotFoundError(f"{uri} is not a file")
        return info_of(uri, info)

    def exists(self, uri: str) -> bool:
        """Return whether an object or folder exists."""
        fs, name = _filesystem(uri)
        return bool(fs.exists(name))

    def modified(self, uri: str) -> datetime:
        """Return when an object was written."""
        fs, name = _filesystem(uri)
        return _in_utc(fs.modified(name))

    def list(self, uri: str, exclude: str | None = None) -> Iterator[ObjectInfo]:
        """List one object, or all objects below a folder except those within `exclude`."""
        fs, name = _filesystem(uri)
        found = fs.find(name, detail=True).items()
        root = name.rstrip("/")
        return outside((info_of(uri + key.removeprefix(root), info) for key, info in found), exclude)

    def read_bytes(self, uri: str) -> bytes:
        """Read a whole object."""
        fs, name = _filesystem(uri)
        return cast(bytes, fs.cat_file(name))

    def read_range(self, uri: str, start: int, length: int) -> bytes:
        """Read `length` bytes of an object."""
        fs, name = _filesystem(uri)
        return cast(bytes, fs.cat_file(name, start=start, end=start + length))

    def open_binary(self, uri: str) -> BinaryIO:
        """Open an object for random access."""
        fs, name = _filesystem(uri)
        return cast(BinaryIO, fs.open(name, "rb"))

    def write(self, uri: str, data: bytes | Path) -> None:
        """Write a whole object from bytes or from a local file, and create the folders above it."""
        fs, name = _filesystem(uri)
        fs.makedirs(name.rpartition("/")[0], exist_ok=True)
        if isinstance(data, Path):
            fs.put_file(str(data), name)
        else:
            fs.pipe_file(name, data)

    def delete(self, uri: str) -> None:
        """Delete one object."""
        fs, name = _filesystem(uri)
        fs.rm_file(name)


def info_of(uri: str, info: dict[str, Any]) -> ObjectInfo:
    """Return the size and version of an object from what its file system reports."""
    size = UNKNOWN_SIZE if info.get("size") is None else int(info["size"])
    tag = info.get("ETag") or info.get("etag")
    if tag:
        return ObjectInfo(uri, size, str(tag).strip('"'))
    when = next((info[k] for k in ("mtime", "LastModified", "modified", "created") if info.get(k)), "")
    # A file system may report a number in a listing, and a date for one object.
    moment = _in_utc(when).timestamp() if isinstance(when, datetime) else when
    return ObjectInfo(uri, size, f"{size}-{moment}")


def _in_utc(when: datetime) -> datetime:
    """Return a date in UTC if it does not have a time zone, whatever the zone of this machine."""
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _filesystem(uri: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URI, and the object's path in it."""
    try:
        fs, name = url_to_fs(uri)
    except (ValueError, ImportError) as error:
        known = "a local path, s3://, gs://, az://, https:// or another scheme of fsspec"
        raise UsageError(f"{uri} cannot be opened: {one_line(error)}; use {known}") from None
    return fs, name
