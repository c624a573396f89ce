"""Files on a local disk, through the operating system.

obstore has a local store too, but it does not list broken links, lists a linked folder twice, fails on links
that form a loop and on names that are not UTF-8 or end in `#` and a number, and has other versions.
"""

import heapq
import io
import os
import shutil
import stat as stat_bits
import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, cast

from gax_batch.errors import UsageError
from gax_batch.storage.store import Check, ObjectInfo, Store
from gax_batch.storage.uris import local_path


class LocalStore(Store):
    """Files by local path or `file:` URI."""

    def stat(self, uri: str) -> ObjectInfo:
        """Return the size and version of a regular file."""
        path = _path(uri)
        status = path.stat()
        if not stat_bits.S_ISREG(status.st_mode):
            raise FileNotFoundError(f"{uri} is not a file")
        return _info(path, status)

    def exists(self, uri: str) -> bool:
        """Return whether a file or folder exists."""
        return _path(uri).exists()

    def modified(self, uri: str) -> datetime:
        """Return when a file was written."""
        return datetime.fromtimestamp(_path(uri).stat().st_mtime, UTC)

    def list(self, uri: str, exclude: str | None = None) -> Iterator[ObjectInfo]:
        """List one file, or all files below a folder. Follows links to folders."""
        path = _path(uri)
        if path.is_file():
            yield self.stat(uri)
        elif path.is_dir():
            yield from _walk(path, None if exclude is None else local_path(exclude))

    def read_bytes(self, uri: str) -> bytes:
        """Read a whole file."""
        return _path(uri).read_bytes()

    def read_checked(self, uri: str, check: Check) -> bytes:
        """Read a whole file if `check` accepts the version and size of the opened file."""
        with _path(uri).open("rb") as file:
            status = os.fstat(file.fileno())
            check(version_of(status), status.st_size)
            return file.read()

    def read_range(self, uri: str, start: int, length: int) -> bytes:
        """Read `length` bytes of a file."""
        with _path(uri).open("rb") as file:
            file.seek(start)
            return file.read(length)

    def open_binary(self, uri: str) -> BinaryIO:
        """Open a file for random access."""
        return _path(uri).open("rb")

    def write(self, uri: str, data: bytes | Path) -> None:
        """Write a temporary file, flush it to the disk and rename it."""
        path = _path(uri)
        with data.open("rb") if isinstance(data, Path) else io.BytesIO(data) as source:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
            try:
                with temporary.open("xb") as file:
                    shutil.copyfileobj(source, file)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)

    def delete(self, uri: str) -> None:
        """Delete a file."""
        _path(uri).unlink()

    def check_writable(self, uri: str) -> None:
        """Check that the nearest folder that exists is writable."""
        path = _path(uri)
        nearest = next(p for p in (path, *path.parents) if p.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            raise UsageError(
                f"cannot write to {uri}: {nearest} is not a writable folder; choose another place"
            )


def version_of(status: os.stat_result) -> str:
    """Return the version of a file: its size and modification time in nanoseconds."""
    return f"{status.st_size}-{status.st_mtime_ns}"


def _path(uri: str) -> Path:
    return cast(Path, local_path(uri))


def _info(path: str | Path, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(f"file://{path}", status.st_size, version_of(status))


def _walk(path: Path, exclude: Path | None) -> Iterator[ObjectInfo]:
    seen: set[tuple[int, int]] = set()  # visit every folder once: links may form a loop
    if exclude is not None:
        with suppress(OSError):
            seen.add(_identity(exclude.stat()))
    # Visit links last and in the order of their names, so that a folder is always listed by the same path.
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
                    yield _info(entry.path, status)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _status(entry: "os.DirEntry[str]") -> os.stat_result | None:
    """Return the status of an entry or its link's target, of a broken link itself, or None if it is gone."""
    try:
        return entry.stat()
    except OSError:  # A broken link is listed, so that it becomes a reject.
        with suppress(FileNotFoundError):
            return entry.stat(follow_symlinks=False)
    return None
