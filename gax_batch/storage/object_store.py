"""Objects in buckets (S3, Google, Azure) and on HTTP servers, through obstore.

The environment (`AWS_*`, `GOOGLE_*`, `AZURE_*`) or the role of the instance configures each client. A client
retries a request within the bounds below. A request that still fails raises TransientError.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from gax_batch.errors import NoAnswerError, TransientError, UsageError
from gax_batch.storage.client_errors import one_line, translated
from gax_batch.storage.store import Check, ObjectInfo, Store, outside
from gax_batch.storage.uris import HTTP

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ClientConfig, RetryConfig
    from obstore.store import ObjectStore as Client

BUCKETS = frozenset({"s3", "s3a", "gs", "gcs", "az", "azure", "adl", "abfs", "abfss"})
RETRIES: "RetryConfig" = {
    # Most faults pass immediately. The last retries come seconds later, for longer faults.
    "max_retries": 8,
    "retry_timeout": timedelta(seconds=90),
    "backoff": {"init_backoff": timedelta(milliseconds=50), "max_backoff": timedelta(seconds=8), "base": 2},
}
PUT_ATTEMPTS = 5
DELETE_ATTEMPTS = 3
BODY_ATTEMPTS = 3
PAGE_ATTEMPTS = 4
_PAGE_OBJECTS = 1000
_READ_BUFFER_BYTES = 4 * 1024 * 1024


def object_store_of(uri: str) -> "ObjectStore | None":
    """Return the store of a bucket or HTTP server, or None if obstore does not support the scheme.

    Raises:
        UsageError: A name, or a setting in the environment, is missing.
    """
    scheme, _, rest = uri.partition("://")
    if scheme not in BUCKETS and scheme not in HTTP:
        return None
    return _connect(f"{scheme}://{rest.partition('/')[0]}")


def forget_clients() -> None:
    """Make the next use of each store read the environment again."""
    _connect.cache_clear()


@dataclass(frozen=True)
class ObjectStore(Store):
    """The objects of one bucket or HTTP server.

    Attributes:
        root: URI of the bucket or server, without a final slash.
        client: Client of obstore.
    """

    root: str
    client: "Client"

    def stat(self, uri: str) -> ObjectInfo:
        """Return the size and version of one object."""
        return _info(uri, self._head(uri))

    def exists(self, uri: str) -> bool:
        """Return whether an object, or a prefix of objects, exists."""
        key = self._key(uri)
        with translated(uri):
            try:
                return bool(key) and obstore.head(self.client, key) is not None
            except FileNotFoundError:
                return next(iter(obstore.list(self.client, key, chunk_size=1)), None) is not None

    def modified(self, uri: str) -> datetime:
        """Return when an object was written, by the clock of the store."""
        return self._head(uri)["last_modified"]

    def list(self, uri: str, exclude: str | None = None) -> Iterator[ObjectInfo]:
        """List one object, or all objects below a prefix except those within `exclude`."""
        if self.root.partition("://")[0] in HTTP:  # plain HTTP does not have listings
            return outside([self.stat(uri)], exclude)
        return outside(self._list(uri), exclude)

    def read_bytes(self, uri: str) -> bytes:
        """Read a whole object."""
        with translated(uri):
            return bytes(obstore.get(self.client, self._key(uri)).bytes())

    async def read_checked(self, uri: str, check: Check) -> bytes:
        """Read a whole object if `check` accepts the version and size that the answer begins with."""
        broken: Exception | None = None
        for _ in range(BODY_ATTEMPTS):
            with translated(uri):
                answer = await obstore.get_async(self.client, self._key(uri))
            info = _info(uri, answer.meta)
            check(info.version, info.size)
            try:
                with translated(uri):
                    return bytes(await answer.bytes_async())
            except (OSError, TransientError) as error:
                # The client resumes an answer that breaks off only if the server supports ranges.
                broken = error
        raise TransientError(f"{uri}: the answer keeps breaking off: {broken}") from broken

    def read_range(self, uri: str, start: int, length: int) -> bytes:
        """Read `length` bytes of an object."""
        with translated(uri):
            return bytes(obstore.get_range(self.client, self._key(uri), start=start, length=length))

    def open_binary(self, uri: str) -> BinaryIO:
        """Open an object for random access, as a file that pyarrow accepts."""
        with translated(uri):
            reader = obstore.open_reader(self.client, self._key(uri), buffer_size=_READ_BUFFER_BYTES)
        return cast(BinaryIO, _Reader(uri, reader))

    def write(self, uri: str, data: bytes | Path) -> None:
        """Write a whole object, and check that the store has it: some stores lose an accepted object."""
        key = self._key(uri)
        size = data.stat().st_size if isinstance(data, Path) else len(data)
        with translated(uri):
            for _ in range(PUT_ATTEMPTS):
                obstore.put(self.client, key, data)
                try:
                    if obstore.head(self.client, key)["size"] == size:
                        return
                except FileNotFoundError:
                    continue
        raise TransientError(f"{uri}: the store accepted the object, but does not have it")

    def delete(self, uri: str) -> None:
        """Delete an object. The client does not retry deletions that are POST requests."""
        for attempt in range(1, DELETE_ATTEMPTS + 1):
            try:
                with translated(uri):
                    obstore.delete(self.client, self._key(uri))
                return
            except TransientError:
                if attempt == DELETE_ATTEMPTS:
                    raise

    def _key(self, uri: str) -> str:
        return uri.removeprefix(self.root).removeprefix("/")

    def _head(self, uri: str) -> "ObjectMeta":
        with translated(uri):
            return obstore.head(self.client, self._key(uri))

    def _list(self, uri: str) -> Iterator[ObjectInfo]:
        metas = self._metas(uri)
        first = next(metas, None)
        if first is None and self._key(uri):
            first = self._head(uri)
        for meta in chain([] if first is None else [first], metas):
            info = _info(f"{self.root}/{meta['path']}", meta)
            # The "folder" of a web console is an empty object whose key ends in a slash, which obstore drops.
            if info.size or info.uri != uri:
                yield info

    def _metas(self, uri: str) -> "Iterator[ObjectMeta]":
        """Yield the objects below a prefix. A page that breaks off is requested again after the last one."""
        key, last, broken = self._key(uri) or None, None, 0
        while True:
            try:
                with translated(uri):
                    pages = obstore.list(self.client, key, offset=last, chunk_size=_PAGE_OBJECTS)
                    for meta in chain.from_iterable(pages):
                        last, broken = meta["path"], 0
                        yield meta
                return
            except NoAnswerError:  # the client has retried
                raise
            except TransientError:
                broken += 1
                if broken == PAGE_ATTEMPTS:
                    raise


def _info(uri: str, meta: "ObjectMeta") -> ObjectInfo:
    etag, size, modified = meta["e_tag"], meta["size"], meta["last_modified"]
    version = etag.strip('"') if etag else f"{size}-{modified.astimezone(UTC).isoformat()}"
    return ObjectInfo(uri, size, version)


class _Reader(io.IOBase):
    """A reader of obstore as a file that pyarrow accepts, with translated errors."""

    def __init__(self, uri: str, reader: Any) -> None:
        self._uri = uri
        self._reader = reader

    def read(self, size: int | None = -1) -> bytes:
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


@lru_cache(maxsize=64)
def _connect(root: str) -> ObjectStore:
    # Options given here would displace those in the environment (AWS_ALLOW_HTTP, AWS_TIMEOUT, ...).
    options: ClientConfig | None = {"allow_http": True} if root.startswith("http://") else None
    try:
        return ObjectStore(root, from_url(root, retry_config=RETRIES, client_options=options))
    except (BaseError, ValueError) as error:
        raise UsageError(
            f"{root} cannot be opened: {one_line(error)}; check its name and environment"
        ) from None
