"""Shards, objects with many cutouts each: Parquet files and WebDataset tars."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import numpy as np
import pyarrow as pa

from gax_batch import storage
from gax_batch.errors import FatalError, UsageError
from gax_batch.imaging.limits import MAX_PATH_CHARACTERS, ImageLimits, ListingLimits
from gax_batch.rejects import Reason, RejectError, Stage
from gax_batch.sources import parquet, tars
from gax_batch.sources.base import DEFAULT_LIMITS, as_utf8, check_ids, is_named
from gax_batch.sources.tensors import Receiver
from gax_batch.storage import UNKNOWN_SIZE, ObjectInfo

SUFFIXES = parquet.SUFFIXES + tars.SUFFIXES

Settled = Callable[[Iterable[ObjectInfo]], Iterable[ObjectInfo]]
"""Omits the shards of a listing whose rows are known to be unchanged."""

_LISTING_THREADS = 8


class ShardSource:
    """A folder, prefix or glob of shards."""

    def __init__(
        self,
        objects: Iterable[ObjectInfo],
        *,
        limit: int | None = None,
        settled: Settled | None = None,
        limits: ListingLimits = DEFAULT_LIMITS,
    ) -> None:
        """Use the objects of a listing.

        Args:
            objects: Shards. Other objects are skipped. Iterated once, while the members are listed.
            limit: Maximum number of cutouts, the first in the order of the listing; None for all.
            settled: Omits the shards whose rows need not be listed. Not called if there is a limit.
            limits: Limits of ids and shards.
        """
        self.ignored = 0
        self._objects = objects
        self._limit = limit
        self._limits = limits
        self._settled = settled if limit is None else None

    def list_members(self) -> Iterator[pa.Table]:
        """List every cutout without reading images, see `Source.list_members`."""
        left = self._limit
        shards = self._shards() if self._settled is None else self._settled(self._shards())
        for members in self._members(sorted(shards, key=lambda info: info.uri)):
            yield check_ids(members.slice(0, left), self._limits)
            if left is not None:
                left -= len(members)
                if left <= 0:
                    return

    def _shards(self) -> Iterator[ObjectInfo]:
        for info in self._objects:
            if not is_named(info.uri, SUFFIXES):
                self.ignored += 1
            else:
                yield info

    def _members(self, shards: Sequence[ObjectInfo]) -> Iterator[pa.Table]:
        # A limited listing opens one shard at a time, and only as many as it needs.
        at_once = 1 if self._limit else _LISTING_THREADS
        with ThreadPoolExecutor(at_once) as pool:
            for start in range(0, len(shards), at_once):
                for tables in pool.map(self._begin_listing, shards[start : start + at_once]):
                    yield from tables

    def _begin_listing(self, info: ObjectInfo) -> Iterable[pa.Table]:
        """Return a shard's first batch, already read, and the others, which are read when they are needed."""
        if info.uri != as_utf8(info.uri):
            raise UsageError(f"the name of the shard {as_utf8(info.uri)} is not UTF-8; rename it")
        if len(info.uri) > MAX_PATH_CHARACTERS:
            raise UsageError(f"the name of the shard {info.uri[:80]}... is too long; rename it")
        list_shard = tars.list_tar if is_named(info.uri, tars.SUFFIXES) else parquet.list_rows
        tables = list_shard(info, self._limits)
        first = next(tables, None)
        return () if first is None else chain([first], tables)


def read_shard(members: pa.Table, receiver: Receiver, limits: ImageLimits) -> None:
    """Read some of a shard's images, in their order in the shard.

    Args:
        members: `MEMBER_SCHEMA` with a single `object_uri`, by increasing `row`. If the shard has changed or
            is gone, all of them are rejected.
        receiver: Receives the images by their index in `members`.
        limits: Limits of encoded images. Larger ones are rejected, if possible before they are read.

    Raises:
        TransientError: The store kept failing.
        FatalError: The shard cannot be read.
    """
    info = ObjectInfo(members["object_uri"][0].as_py(), UNKNOWN_SIZE, members["source_version"][0].as_py())
    try:
        reject = _changed(info)
    except OSError as error:
        raise FatalError(f"shard {info.uri} cannot be read: {error}") from error
    if reject is not None:
        for index in range(len(members)):
            receiver.take(index, reject)
        return
    rows = members["row"].to_numpy()
    if is_named(info.uri, tars.SUFFIXES):
        sizes = members["size"].to_numpy().astype(np.int64)
        tars.read_tar(info, rows, sizes, receiver.take, max_bytes=limits.bytes)
    else:
        parquet.read_rows(info, rows, receiver, max_bytes=limits.bytes)


def _changed(info: ObjectInfo) -> RejectError | None:
    """Return the reject of all rows if the shard has changed since it was listed, else None."""
    try:
        version = storage.stat(info.uri).version
    except FileNotFoundError:
        detail = f"shard {info.uri} was listed, but is no longer there"
        return RejectError(Stage.READ, Reason.MISSING, detail)
    if version == info.version:
        return None
    detail = f"shard version {info.version} was listed, it is {version} now"
    return RejectError(Stage.READ, Reason.CHANGED, detail)
