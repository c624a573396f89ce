"""The protocol of a store: how objects are listed, read and written, wherever they are."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from gax_batch.errors import UsageError
from gax_batch.storage.uris import is_within, join

UNKNOWN_SIZE = -1

WRITE_TEST = ".gax-write-test"
"""The object that `Store.check_writable` writes and deletes.

A store that fails between the two leaves it behind. Its name is fixed, so that the next check deletes it and
a check for an empty folder can ignore it.
"""

Check = Callable[[str, int], None]
"""Checks a version and a size, and raises if an object that has them must not be read."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object of a listing.

    Attributes:
        uri: URI of the object.
        size: Size in bytes; `UNKNOWN_SIZE` if the server does not report it.
        version: ETag without quotes; size and modification time if the store does not have ETags.
    """

    uri: str
    size: int
    version: str


class Store(Protocol):
    """Objects of one kind of storage.

    Methods take whole URIs, since listings and errors contain them and some file systems cannot rebuild one
    from a path. `gax_batch.storage` documents each method and its errors in the function of the same name.
    """

    def stat(self, uri: str) -> ObjectInfo:
        """Return the size and version of one object."""

    def exists(self, uri: str) -> bool:
        """Return whether an object or folder exists."""

    def modified(self, uri: str) -> datetime:
        """Return when an object was written."""

    def list(self, uri: str, exclude: str | None = None) -> Iterator[ObjectInfo]:
        """List one object, or all objects below a folder except those within `exclude`."""

    def read_bytes(self, uri: str) -> bytes:
        """Read a whole object."""

    def read_range(self, uri: str, start: int, length: int) -> bytes:
        """Read `length` bytes of an object."""

    def open_binary(self, uri: str) -> BinaryIO:
        """Open an object for random access."""

    def write(self, uri: str, data: bytes | Path) -> None:
        """Write a whole object from bytes or from a local file."""

    def delete(self, uri: str) -> None:
        """Delete one object. May raise FileNotFoundError if it does not exist."""

    def check_writable(self, uri: str) -> None:
        """Check that objects can be written below a folder: write one and delete it."""
        probe = join(uri, WRITE_TEST)
        try:
            self.write(probe, b"")
            with suppress(FileNotFoundError):
                self.delete(probe)
        except OSError as error:
            raise UsageError(
                f"cannot write to {uri}: {error}; check the name and the credentials in the environment"
            ) from None


def outside(objects: Iterable[ObjectInfo], folder: str | None) -> Iterator[ObjectInfo]:
    """Yield the objects that are not within a folder."""
    return (info for info in objects if folder is None or not is_within(info.uri, folder))
