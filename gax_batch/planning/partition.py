"""Partition of a plan's members into units, so that each field or shard is fetched once.

Units end between objects: as many whole fields or shards share a unit as fit into it. Only an object with
more members than a unit may have is cut, and its pieces are units of their own. Loose images are objects of
one member each.

Only the objects near the end of a unit decide where it ends: it ends before the object whose URI has the
smallest hash, among the possible ends in the upper half of the unit. So objects that are added to a survey
change the units around them, but not all later units, which an interrupted run may have finished. Units that
are already cataloged always keep their members.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gax_batch.sources.base import Mask, changes

MAX_UNIT_BYTES = 32 * 1024**3
"""Maximum total size in bytes of the objects of a unit, unless it has a single object.

4,096 galaxies, 5 on each SDSS field of three uncompressed frames, have 30 GB.
"""

Ints = npt.NDArray[np.int64]


def partition(batches: Iterable[pa.Table], unit_size: int) -> Iterator[tuple[pa.Table, list[int]]]:
    """Cut members into units.

    Args:
            batches: Members in the order of `Difference.members`: units that are redone, each with its
                `unit_id`, then new members without one, sorted by `object_uri` and `row`.
            unit_size: Maximum number of members of a new unit.

    Yields:
            Some whole units: a table of their members, and the bounds of the units in it, from 0 to its
            length.
    """
    block: pa.Table | None = None
    before: str | None = None
    for batch in chain(batches, [None]):
        if batch is not None:
            block = batch if block is None else pa.concat_tables([block, batch])
        if block is None or not len(block):
            continue
        bounds = _bounds(block, unit_size, before, is_last=batch is None)
        if len(bounds) > 1:
            yield block.slice(0, bounds[-1]), bounds
            last = block.slice(bounds[-1] - 1, 1)
            before = None if last["unit_id"][0].is_valid else last["object_uri"][0].as_py()
            block = block.slice(bounds[-1])


def are_whole(block: pa.Table, bounds: list[int]) -> list[bool]:
    """Return whether each unit consists of one or several whole shards.

    Args:
        block: Members with `object_rows`, the number of listed rows of the member's shard or field.
        bounds: Bounds of the units in the block, from 0 to its length.
    """
    is_begin = changes(block["object_uri"])
    is_begin[bounds[:-1]] = True
    begins = np.flatnonzero(is_begin)
    lengths = np.diff(begins, append=len(block))
    complete = pc.fill_null(block["object_rows"].take(pa.array(begins)), -1).to_numpy() == lengths
    complete = np.logical_and.reduceat(complete, np.searchsorted(begins, bounds[:-1]))
    first = block.select(["object_uri", "source_uri"]).take(pa.array(bounds[:-1])).to_pylist()
    # The URI of a galaxy on a field is that of its row of the table of positions.
    of_shard = [row["source_uri"].startswith(f"{row['object_uri']}#") for row in first]
    return [bool(each) for each in complete & np.array(of_shard)]


def _bounds(block: pa.Table, unit_size: int, before: str | None, *, is_last: bool) -> list[int]:
    """Return the bounds of the units at the beginning of a block that later batches cannot change."""
    redone = len(block) - block["unit_id"].null_count
    bounds = [int(place) for place in np.flatnonzero(changes(block["unit_id"].slice(0, redone)))] or [0]
    if redone and (is_last or redone < len(block)):
        bounds.append(redone)
    if redone == len(block):
        return bounds
    new = _NewMembers.of_table(block.slice(redone), unit_size, None if redone else before)
    start, count = 0, len(block) - redone
    # The end of a unit depends on one member more than fits into it.
    while start < count and (is_last or count - start > unit_size):
        start = new.end(start)
        bounds.append(redone + start)
    return bounds


@dataclass(frozen=True, slots=True)
class _NewMembers:
    """New members, and the ends of the units that begin among them.

    Attributes:
        objects: URI of each member's object.
        ends: Places before which an object ends, and the number of members.
        is_begin: Whether each member is the first of its object.
        is_loose: Whether each member is a loose image.
        bytes: Total bytes of the members before each place, and of all members.
        unit_size: Maximum number of members of a unit.
    """

    objects: pa.ChunkedArray
    ends: Ints
    is_begin: Mask
    is_loose: Mask
    bytes: Ints
    unit_size: int

    @classmethod
    def of_table(cls, members: pa.Table, unit_size: int, before: str | None) -> "_NewMembers":
        """Use a table of members. `before` is the object of the member before the first one."""
        is_begin = changes(members["object_uri"])
        is_begin[0] = members["object_uri"][0].as_py() != before
        sizes = pc.fill_null(members["size"], 0).to_numpy()
        return cls(
            members["object_uri"],
            np.append(np.flatnonzero(is_begin), len(members)),
            is_begin,
            pc.is_null(members["row"]).to_numpy(),
            np.append(0, np.cumsum(sizes)),
            unit_size,
        )

    def end(self, start: int) -> int:
        """Return the end of the unit that begins at a place."""
        count = len(self.is_begin)
        most = min(start + self.unit_size, count)
        fitting = int(np.searchsorted(self.bytes, self.bytes[start] + MAX_UNIT_BYTES, "right")) - 1
        first, stop = np.searchsorted(self.ends, [start, min(most, fitting)], "right")
        if first == stop or not self.is_begin[start]:
            return min(int(self.ends[first]), most)
        last = int(self.ends[stop - 1])
        if last == count or (self.is_loose[last - 1] and self.is_loose[last]):
            return last
        candidates = self.ends[first:stop]
        candidates = candidates[2 * (candidates - start) > last - start]
        uris = self.objects.take(pa.array(candidates)).to_pylist()
        _, end = min((hashlib.sha256(u.encode()).digest(), e) for u, e in zip(uris, candidates, strict=True))
        return int(end)
