"""Object stores through obstore: clients by URI, bounded retries, and errors without secrets.

`gax_batch.storage` and the bulk reader are its only users. Every client is set up from the environment
(`AWS_*`, `GOOGLE_*`, `AZURE_*`) or the instance's role, and retries a request itself, within the bounds
below; what then still fails is a TransientError.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import obstore
from obstore.exceptions import BaseError, GenericError, PermissionDeniedError, UnauthenticatedError
from obstore.store import from_url

from gax_batch.errors import NoAnswerError, TransientError, UsageError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

HTTP = frozenset({"http", "https"})
BUCKETS = frozenset({"s3", "s3a", "gs", "gcs", "az", "azure", "adl", "abfs", "abfss"})
RETRIES: "RetryConfig" = {
    # Most faults pass at once; the last tries come seconds later, for those that do not.
    "max_retries": 8,
    "retry_timeout": timedelta(seconds=90),
    "backoff": {"init_backoff": timedelta(milliseconds=50), "max_backoff": timedelta(seconds=8), "base": 2},
}
PUT_ATTEMPTS = 5
DELETE_ATTEMPTS = 3
_READ_BUFFER_BYTES = 4 * 1024 * 1024
# obstore tells neither an answer's status (of a listing, of any error without a class) nor whether there was
# an answer but in words; tests provoke each with the library itself (tests/s3/test_words.py).
_STATUS = re.compile(r"\bstatus(?: code)?:? (\d{3})\b")
_UNREACHED = re.compile(r"error sending request|dns", re.I)


class NoBucketError(FileNotFoundError):
    """Not even the bucket is there."""


def bucket_of(uri: str) -> "tuple[ObjectStore, str] | None":
    """The obstore client and key of a URI; None where obstore does not serve the scheme.

    Raises:
        UsageError: The store cannot be set up (a name or a setting in the environment is missing).
    """
    scheme, _, rest = uri.partition("://")
    if scheme not in BUCKETS and scheme not in HTTP:
        return None
    root, _, key = rest.partition("/")
    return _store(f"{scheme}://{root}"), key


def forget_clients() -> None:
    """Set clients up anew at their next use (the environment has changed)."""
    _store.cache_clear()


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """Turn obstore's errors into PermissionError, OSError or TransientError, one line without secrets."""
    try:
        yield
    except FileNotFoundError as error:
        raise _absence(uri, str(error)) from None
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise PermissionError(f"{uri}: access refused: {one_line(error)}") from None
    except GenericError as error:
        raise fault(uri, str(error)) from None
    except BaseError as error:
        raise OSError(f"{uri}: {one_line(error)}") from None


def fault(uri: str, text: str) -> OSError | TransientError:
    """What a client's error is that has words alone: obstore's `GenericError`, delta-rs' `OSError`.

    Both are those of Rust's object_store. What has neither a status nor a class is taken to pass.
    """
    line, code = one_line(text), _status(text)
    if code == 404:
        return _absence(uri, text)
    if code in (401, 403):
        return PermissionError(f"{uri}: access refused: {line}")
    if code is None and _UNREACHED.search(_first(text)):
        return NoAnswerError(f"{uri}: the store does not answer: {_cause(line)}")
    if code is None or code in (408, 429) or code >= 500:
        return TransientError(f"{uri}: the store keeps failing: {line}")
    return OSError(f"{uri}: {line}")


def broke_off(text: str) -> bool:
    """Whether an error with words alone is of an answer that began and did not end."""
    return _status(text) is None and not _UNREACHED.search(_first(text))


def _status(text: str) -> int | None:
    found = _STATUS.search(_first(text))
    return int(found[1]) if found else None


def _absence(uri: str, text: str) -> FileNotFoundError:
    if "NoSuchBucket" in text:
        return NoBucketError(f"{uri} is in no bucket of this store")
    return FileNotFoundError(f"{uri} does not exist")


def _cause(line: str) -> str:
    """The end of an error's chain of causes, which names the address and what went wrong."""
    return line.rpartition("Error performing ")[2] or line


def etag_version(etag: str | None, size: int, modified: datetime) -> str:
    """The version of a stored object: its ETag without quotes, else its size and modification time."""
    return etag.strip('"') if etag else f"{size}-{modified.astimezone(UTC).isoformat()}"


def exists(uri: str, store: "ObjectStore", key: str) -> bool:
    """Whether an object, or a prefix with anything below it, is there."""
    with translated(uri):
        try:
            return bool(key) and obstore.head(store, key) is not None
        except FileNotFoundError:
            return next(iter(obstore.list(store, key, chunk_size=1)), None) is not None


def put(uri: str, store: "ObjectStore", key: str, data: bytes | Path) -> None:
    """Store an object, and make sure that the store has it: some take one and lose it.

    Raises:
        TransientError: It keeps losing it, or as `translated`.
    """
    size = data.stat().st_size if isinstance(data, Path) else len(data)
    with translated(uri):
        for _ in range(PUT_ATTEMPTS):
            obstore.put(store, key, data)
            try:
                if obstore.head(store, key)["size"] == size:
                    return
            except FileNotFoundError:
                continue
    raise TransientError(f"{uri}: the store took it, but does not have it")


def delete(uri: str, store: "ObjectStore", key: str) -> None:
    """Remove an object; the client tries some deletions only once, since they are posted.

    Raises:
        TransientError: The store keeps failing, or as `translated`.
    """
    for _ in range(DELETE_ATTEMPTS - 1):
        try:
            with translated(uri):
                obstore.delete(store, key)
            return
        except TransientError:
            continue
    with translated(uri):
        obstore.delete(store, key)


def open_reader(uri: str, store: "ObjectStore", key: str) -> BinaryIO:
    """Open a stored object for reading at random, as a file that pyarrow takes."""
    with translated(uri):
        return cast(BinaryIO, _Reader(uri, obstore.open_reader(store, key, buffer_size=_READ_BUFFER_BYTES)))


def one_line(error: Exception | str) -> str:
    """An error's first line, less the queries of its URLs: some carry signatures."""
    return re.sub(r"(https?://[^\s?]+)\?\S+", r"\1", _first(str(error)))[:300]


def _first(text: str) -> str:
    return text.strip().partition("\n")[0]


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
    # Options given here would displace those in the environment (AWS_ALLOW_HTTP, AWS_TIMEOUT, ...).
    options: ClientConfig | None = {"allow_http": True} if root.startswith("http://") else None
    try:
        return from_url(root, retry_config=RETRIES, client_options=options)
    except (BaseError, ValueError) as error:
        raise UsageError(
            f"{root} cannot be opened: {one_line(error)}; check its name and environment"
        ) from None
