"""Read many small objects: decode one while the next ones are being read.

Requests are bounded in number and in bytes, so that a unit's encoded images are never all in memory. An
object that cannot be read becomes a reject. If the storage itself fails, the whole unit fails, since rejects
would stay in the catalog after the storage has recovered.
"""

import asyncio
import errno
from collections.abc import Callable, Sequence
from functools import partial

from gax_batch.errors import FatalError, TransientError
from gax_batch.rejects import Reason, RejectError, Stage
from gax_batch.storage import store_of
from gax_batch.storage.local import LocalStore
from gax_batch.storage.object_store import ObjectStore
from gax_batch.storage.store import UNKNOWN_SIZE, ObjectInfo, Store

MAX_REQUESTS = 64
MAX_BYTES_IN_FLIGHT = 128 * 1024 * 1024

_TOLERATED_FAILURES = 8
_TOLERATED_FRACTION = 0.01

_FAULTS = (RejectError, OSError, TransientError)

Handler = Callable[[int, bytes | RejectError], None]
_Request = tuple[int, ObjectInfo, Store]


def fetch_each(objects: Sequence[ObjectInfo], handle: Handler, *, max_bytes: int) -> None:
    """Read objects and hand over each one as soon as it is read, in any order.

    Args:
        objects: Objects of a listing. An object that has another version now is rejected.
        handle: Called in this thread with an object's index, and its bytes or the reject: `missing`,
            `changed`, `unreadable`, `empty_file` or `too_many_bytes`.
        max_bytes: Maximum size in bytes. Larger objects are rejected.

    Raises:
        TransientError: The storage failed for too many objects.
        FatalError: The storage refused too many objects.
    """
    guard = Guard(len(objects))
    remote: list[_Request] = []
    for index, info in enumerate(objects):
        store = store_of(info.uri)
        if not isinstance(store, LocalStore):
            remote.append((index, info, store))
            continue
        try:
            check = partial(_check, info, max_bytes)
            result: bytes | RejectError = store.read_checked(info.uri, check)
        except _FAULTS as error:
            result = guard.reject(error)
        handle(index, result)
    if remote:
        # Ignore the policy for event loops that the process may have set.
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(_fetch_remote(remote, handle, guard, max_bytes))
    guard.check_all_failed()


async def _fetch_remote(remote: Sequence[_Request], handle: Handler, guard: "Guard", max_bytes: int) -> None:
    waiting = iter(remote)

    async def worker() -> None:
        for index, info, store in waiting:  # shared: each worker takes the next object
            try:
                result: bytes | RejectError = await _read_remote(info, store, max_bytes)
            except _FAULTS as error:
                result = guard.reject(error)
            handle(index, result)

    workers = _concurrency([info for _, info, _ in remote], max_bytes)
    await asyncio.gather(*(worker() for _ in range(workers)))


async def _read_remote(info: ObjectInfo, store: Store, max_bytes: int) -> bytes:
    check = partial(_check, info, max_bytes)
    check(info.version, info.size)  # rejects by the listing, without a request
    if isinstance(store, ObjectStore):
        return await store.read_checked(info.uri, check)
    return await asyncio.to_thread(store.read_bytes, info.uri)


def _concurrency(objects: Sequence[ObjectInfo], max_bytes: int) -> int:
    largest = max(max_bytes if i.size == UNKNOWN_SIZE else min(i.size, max_bytes) for i in objects)
    return max(1, min(MAX_REQUESTS, len(objects), MAX_BYTES_IN_FLIGHT // max(largest, 1)))


class Guard:
    """Turn errors into rejects, until there are too many for the objects to be the cause."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._tolerated = max(_TOLERATED_FAILURES, int(total * _TOLERATED_FRACTION))
        self._failed = 0
        self._last: Exception | None = None

    def reject(self, error: RejectError | OSError | TransientError | FatalError) -> RejectError:
        """Return the reject of the object that an error concerns, or raise the error of the whole storage."""
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
        """Raise the error of the whole storage if no object was read."""
        if self._failed and self._failed == self._total:
            self._fail()

    def _fail(self) -> None:
        line = f"the storage failed for {self._failed} of {self._total} objects; the last error: {self._last}"
        if isinstance(self._last, TransientError):
            raise TransientError(line) from self._last
        raise FatalError(line) from self._last


def _check(info: ObjectInfo, max_bytes: int, version: str, size: int) -> None:
    if info.version != version:
        raise _reject(Reason.CHANGED, f"version {info.version} was listed, it is {version} now")
    if size == 0:
        raise _reject(Reason.EMPTY_FILE, "no bytes")
    if size > max_bytes:
        raise _reject(Reason.TOO_MANY_BYTES, f"{size} bytes, the limit is {max_bytes}")


def _reject(reason: Reason, detail: str) -> RejectError:
    return RejectError(Stage.READ, reason, detail)
