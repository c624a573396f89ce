"""Bulk reading of many small objects: decode one while the next ones are on their way.

Requests are bounded in number and in bytes, so that a unit's encoded images are never all in memory.
An object's own fault becomes its reject; when the storage itself fails, the whole unit does, since a
reject would stay in the catalog after the storage has recovered.
"""

import asyncio
import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import obstore

from gax_batch import storage
from gax_batch.errors import FatalError, TransientError
from gax_batch.rejects import Reason, RejectError, Stage
from gax_batch.storage import object_store
from gax_batch.storage.store import ObjectInfo

MAX_REQUESTS = 64
MAX_BYTES_IN_FLIGHT = 128 * 1024 * 1024

_BODY_ATTEMPTS = 3
_TOLERATED_FAILURES = 8
_TOLERATED_FRACTION = 0.01

_FAULTS = (RejectError, OSError, TransientError)

Handler = Callable[[int, bytes | RejectError], None]


def fetch_each(objects: Sequence[ObjectInfo], handle: Handler, *, max_bytes: int) -> None:
    """Read objects and hand each over as it arrives, in any order.

    Args:
        objects: As they were listed; an object that has another version by now is rejected.
        handle: Called in this thread with the object's index, and its bytes or why there are none
            (`missing`, `changed`, `unreadable`, `empty_file` or `too_many_bytes`).
        max_bytes: Larger objects are rejected.

    Raises:
        TransientError: The storage failed for so many objects that it is not their fault.
        FatalError: The same, and it refused them.
    """
    guard = Guard(len(objects))
    remote: list[tuple[int, ObjectInfo]] = []
    for index, info in enumerate(objects):
        path = storage.local_path(info.uri)
        if path is None:
            remote.append((index, info))
            continue
        try:
            result: bytes | RejectError = _read_local(path, info, max_bytes)
        except _FAULTS as error:
            result = guard.reject(error)
        handle(index, result)
    if remote:
        # A loop of our own making, whatever policy the process has set.
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(_fetch_remote(remote, handle, guard, max_bytes))
    guard.check_all_failed()


async def _fetch_remote(
    remote: Sequence[tuple[int, ObjectInfo]], handle: Handler, guard: "Guard", max_bytes: int
) -> None:
    waiting = iter(remote)

    async def worker() -> None:
        for index, info in waiting:  # shared: each worker takes the next object that nobody has
            try:
                result: bytes | RejectError = await _read_remote(info, max_bytes)
            except _FAULTS as error:
                result = guard.reject(error)
            handle(index, result)

    await asyncio.gather(*(worker() for _ in range(_concurrency([i for _, i in remote], max_bytes))))


def _concurrency(objects: Sequence[ObjectInfo], max_bytes: int) -> int:
    largest = max(max_bytes if i.size == storage.UNKNOWN_SIZE else min(i.size, max_bytes) for i in objects)
    return max(1, min(MAX_REQUESTS, len(objects), MAX_BYTES_IN_FLIGHT // max(largest, 1)))


class Guard:
    """Turns errors into rejects, until there are too many to be the objects' own."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._tolerated = max(_TOLERATED_FAILURES, int(total * _TOLERATED_FRACTION))
        self._failed = 0
        self._last: Exception | None = None

    def reject(self, error: RejectError | OSError | TransientError | FatalError) -> RejectError:
        """Return why the object of an error is rejected, or raise what the storage as a whole does."""
        if isinstance(error, RejectError):
            return error
        if isinstance(error, FileNotFoundError) or getattr(error, "errno", None) == errno.ELOOP:
            return _reject(Reason.MISSING, "listed, but no longer there")
        self._failed += 1
        self._last = error
        if self._failed > self._tolerated:
            self._fail()
        return _reject(Reason.UNREADABLE, str(error))

    def check_all_failed(self) -> None:
        """Raise if no object was read."""
        if self._failed and self._failed == self._total:
            self._fail()

    def _fail(self) -> None:
        line = f"the storage failed for {self._failed} of {self._total} objects, at last: {self._last}"
        if isinstance(self._last, TransientError):
            raise TransientError(line) from self._last
        raise FatalError(line) from self._last


def _read_local(path: Path, info: ObjectInfo, max_bytes: int) -> bytes:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        _check(info, storage.local_version(status), status.st_size, max_bytes)
        return file.read()


async def _read_remote(info: ObjectInfo, max_bytes: int) -> bytes:
    _check(info, info.version, info.size, max_bytes)  # what the listing tells needs no request
    bucket = object_store.bucket_of(info.uri)
    if bucket is None:
        return await asyncio.to_thread(storage.read_bytes, info.uri)
    broken: Exception | None = None
    for _ in range(_BODY_ATTEMPTS):
        with object_store.translated(info.uri):
            result = await obstore.get_async(*bucket)
        meta = result.meta
        version = object_store.etag_version(meta["e_tag"], meta["size"], meta["last_modified"])
        _check(info, version, meta["size"], max_bytes)
        try:
            with object_store.translated(info.uri):
                return bytes(await result.bytes_async())
        except (OSError, TransientError) as error:
            # The client resumes an answer that breaks off, but only where the server serves ranges.
            broken = error
    raise TransientError(f"{info.uri}: the answer keeps breaking off: {broken}") from broken


def _check(info: ObjectInfo, version: str, size: int, max_bytes: int) -> None:
    if info.version != version:
        raise _reject(Reason.CHANGED, f"version {info.version} was listed, {version} is there")
    if size == 0:
        raise _reject(Reason.EMPTY_FILE, "no bytes")
    if size > max_bytes:
        raise _reject(Reason.TOO_MANY_BYTES, f"{size} bytes, the limit is {max_bytes}")


def _reject(reason: Reason, detail: str) -> RejectError:
    return RejectError(Stage.READ, reason, detail)
