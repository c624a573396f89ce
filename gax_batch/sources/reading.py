"""Read members from their objects and hand over each one as soon as it is read."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gax_batch.errors import FatalError, TransientError
from gax_batch.imaging.cutout import ImageFlag
from gax_batch.imaging.decoding import Decoder
from gax_batch.imaging.rgb import PRESETS
from gax_batch.rejects import RejectError
from gax_batch.sources.bands import BAND, band_objects
from gax_batch.sources.base import changes, is_named
from gax_batch.sources.framing import Cutouts, cut_field
from gax_batch.sources.shards import SUFFIXES as SHARD_SUFFIXES
from gax_batch.sources.shards import read_shard
from gax_batch.sources.tensors import Found, Pixels
from gax_batch.storage import UNKNOWN_SIZE, ObjectInfo
from gax_batch.storage.bulk_reads import Guard, fetch_each
from gax_batch.system.concurrency import map_threads
from gax_batch.system.machine import MIB, memory_bound

Places = npt.NDArray[np.int64]

_FIELDS_AT_ONCE = 2


class Visitor(Protocol):
    """Receives what is read for members, by their index in a unit and in any order."""

    def take(self, place: int, found: Found) -> None:
        """Receive what was read for one member: bytes, pixels, or the reject."""

    def take_cutouts(self, places: Places, pixels: Pixels) -> None:
        """Receive finished cutouts, uint8 `[n, 12288]`."""

    def mark(self, place: int, flags: ImageFlag) -> None:
        """Receive a cutout's flags that its pixels alone do not show, before the cutout."""


def visit_members(members: pa.Table, visitor: Visitor, decoder: Decoder) -> None:
    """Read members, while the next ones are being fetched.

    Args:
        members: `MEMBER_SCHEMA`. Members that are already rejected are skipped.
        visitor: Receives what is read.
        decoder: Has the limits, that of memory for this process as a whole, and cuts frames.

    Raises:
        TransientError: The storage kept failing for the members as a whole.
        FatalError: The only shard cannot be read, or the storage refuses nearly all objects.
    """
    open_rows = pc.is_null(members["stage"]).to_numpy()
    loose = pc.is_null(members["row"]).to_numpy() & open_rows
    with memory_bound(decoder.limits.memory_mib * MIB):
        _read_loose(members, np.flatnonzero(loose), visitor, decoder)
        _read_objects(members, np.flatnonzero(open_rows & ~loose), visitor, decoder)


def _read_objects(members: pa.Table, places: Places, visitor: Visitor, decoder: Decoder) -> None:
    """Read members on fields or in shards, each of which is fetched once.

    If some of several objects fail, only their members are rejected.
    """
    objects = list(_by_object(members, places))
    guard = Guard(len(objects))
    # One field is decoded while the next one is fetched.
    fields = map_threads(partial(_cut, decoder=decoder), _fields(objects), _FIELDS_AT_ONCE)
    for group, mine in objects:
        some = _ObjectMembers(visitor, mine)
        try:
            if _is_shard(group):
                read_shard(group, some, decoder.limits)
            else:
                some.take_field(next(fields))
        except (TransientError, FatalError) as error:
            if len(objects) == 1:
                raise
            some.reject_others(guard.reject(error))
    guard.check_all_failed()


def _is_shard(members: pa.Table) -> bool:
    return is_named(members["object_uri"][0].as_py(), SHARD_SUFFIXES)


def _fields(objects: Sequence[tuple[pa.Table, Places]]) -> Iterator[pa.Table]:
    return (group for group, _ in objects if not _is_shard(group))


def _cut(members: pa.Table, decoder: Decoder) -> Cutouts | TransientError | FatalError:
    """Cut galaxies out of a field. Return a storage error instead of raising it: other fields go on."""
    try:
        return cut_field(members, decoder)
    except (TransientError, FatalError) as error:
        return error


class _ObjectMembers:
    """The members of one object, by their index among them."""

    def __init__(self, visitor: Visitor, places: Places) -> None:
        self._visitor = visitor
        self._places = places
        self._taken = np.zeros(len(places), bool)

    def take(self, index: int, found: Found) -> None:
        self._taken[index] = True
        self._visitor.take(int(self._places[index]), found)

    def take_cutouts(self, first: int, pixels: Pixels) -> None:
        chosen = slice(first, first + len(pixels))
        self._taken[chosen] = True
        self._visitor.take_cutouts(self._places[chosen], pixels)

    def take_field(self, cutouts: Cutouts | TransientError | FatalError) -> None:
        """Hand over the cutouts of a field, or raise the error of the field."""
        if not isinstance(cutouts, list):
            raise cutouts
        for index, found in enumerate(cutouts):
            if isinstance(found, RejectError):
                self.take(index, found)
            else:
                colors, flags = found
                self._visitor.mark(int(self._places[index]), flags)
                self.take(index, colors)

    def reject_others(self, error: RejectError) -> None:
        """Reject the members that had not been read when their object failed."""
        for index in np.flatnonzero(~self._taken).tolist():
            self.take(index, error)


def _read_loose(members: pa.Table, places: Places, visitor: Visitor, decoder: Decoder) -> None:
    """Read members that are objects of their own: one object, or one for each band."""
    objects: list[ObjectInfo] = []
    owners: list[range] = []
    for row in members.select(["object_uri", "size", "source_version"]).take(places).to_pylist():
        mine = _objects_of(row, decoder)
        owners += [range(len(objects), len(objects) + len(mine))] * len(mine)
        objects += mine
    indices = {numbers: index for index, numbers in enumerate(dict.fromkeys(owners))}
    arrived: dict[int, bytes | RejectError] = {}

    def handle(number: int, found: bytes | RejectError) -> None:
        arrived[number] = found
        numbers = owners[number]
        if all(n in arrived for n in numbers):
            found_all = _combine_files({objects[n].uri: arrived.pop(n) for n in numbers})
            visitor.take(int(places[indices[numbers]]), found_all)

    fetch_each(objects, handle, max_bytes=decoder.limits.bytes)


def _objects_of(row: Mapping[str, Any], decoder: Decoder) -> list[ObjectInfo]:
    size = UNKNOWN_SIZE if row["size"] is None else row["size"]
    if BAND not in row["object_uri"]:
        return [ObjectInfo(row["object_uri"], size, row["source_version"])]
    return band_objects(row["object_uri"], row["source_version"], PRESETS[decoder.preset].bands, size)


def _combine_files(files: Mapping[str, bytes | RejectError]) -> Found:
    """Return what one member's files are together. The first missing band decides."""
    parts: list[bytes] = []
    for uri, found in files.items():
        if isinstance(found, RejectError):
            name = f"{uri.rsplit('/', 1)[-1]}: " if len(files) > 1 else ""
            return RejectError(found.reject.stage, found.reject.reason, f"{name}{found.reject.detail}")
        parts.append(found)
    return parts[0] if len(parts) == 1 else tuple(parts)


def _by_object(members: pa.Table, places: Places) -> Iterator[tuple[pa.Table, Places]]:
    """Yield the members of each object, by increasing row, and their indices in the unit."""
    chosen = members.take(places).append_column("place", pa.array(places))
    chosen = chosen.sort_by([("object_uri", "ascending"), ("row", "ascending")])
    begins = np.flatnonzero(changes(chosen["object_uri"]))
    for start, stop in pairwise([*begins.tolist(), len(chosen)]):
        group = chosen.slice(start, stop - start)
        yield group.drop_columns("place"), group["place"].to_numpy()
