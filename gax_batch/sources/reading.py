"""A unit's members to cutouts: read, decode, and reject what cannot be."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gax_batch.decoding import Decoder
from gax_batch.imaging import CUTOUT_BYTES, ImageFlag
from gax_batch.rejects import Reason, Reject, RejectError, Stage
from gax_batch.sources.bands import BAND, band_objects
from gax_batch.sources.base import CUTOUT_SCHEMA, is_named, set_rejects
from gax_batch.sources.framing import cut_field
from gax_batch.sources.objectstore import fetch_each
from gax_batch.sources.shards import SUFFIXES as SHARD_SUFFIXES
from gax_batch.sources.shards import read_shard
from gax_batch.sources.tensors import Found
from gax_batch.storage import UNKNOWN_SIZE, ObjectInfo
from gax_batch.stretches import PRESETS


def read_unit(members: pa.Table, decoder: Decoder) -> pa.Table:
    """Read and decode a unit's cutouts; the next ones are fetched meanwhile.

    Args:
        members: `MEMBER_SCHEMA`; those that are rejected already pass through.
        decoder: Makes cutouts of what is read.

    Returns:
        `CUTOUT_SCHEMA`, the same rows in the same order; a cutout that fails is a rejected row.

    Raises:
        TransientError: The storage kept failing for the unit as a whole.
        FatalError: A shard cannot be read, or the storage refuses nearly everything.
    """
    unit = _Unit(len(members), decoder)
    open_rows = pc.is_null(members["stage"]).to_numpy()
    loose = pc.is_null(members["row"]).to_numpy() & open_rows
    _read_loose(members, np.flatnonzero(loose), unit)
    _read_parts(members, np.flatnonzero(open_rows & ~loose), unit)
    return unit.table(members)


class _Unit:
    """The cutouts of a unit, filled in any order."""

    def __init__(self, count: int, decoder: Decoder) -> None:
        self.decoder = decoder
        self._pixels = np.zeros((count, CUTOUT_BYTES), np.uint8)
        self._good = np.zeros(count, np.bool_)
        self._flags = np.zeros(count, np.int32)
        self._rejects: dict[int, Reject] = {}

    def take(self, places: npt.NDArray[np.int64], index: int, found: Found) -> None:
        """Decode what was read for the member at `places[index]`."""
        place = int(places[index])
        try:
            if isinstance(found, RejectError):
                raise found
            cutout, flags = self.decoder.decode(found)
        except RejectError as error:
            self._rejects[place] = error.reject
        except Exception as error:  # noqa: BLE001  (a decoder's surprise is one galaxy's fault)
            detail = f"{type(error).__name__}: {error}"
            self._rejects[place] = Reject.of(Stage.DECODE, Reason.CORRUPT, detail)
        else:
            self._pixels[place] = cutout.reshape(-1)
            self._good[place] = True
            self._flags[place] |= flags

    def mark(self, place: int, flags: ImageFlag) -> None:
        """Tell of a cutout's particulars what its pixels alone do not."""
        self._flags[place] |= flags

    def table(self, members: pa.Table) -> pa.Table:
        """The unit as `CUTOUT_SCHEMA`."""
        members = set_rejects(members, self._rejects)
        own = {
            "flags": pa.array(self._flags),
            "cutout": self._cutouts(),
        }
        columns = [own[name] if name in own else members[name] for name in CUTOUT_SCHEMA.names]
        return pa.table(columns, schema=CUTOUT_SCHEMA)

    def _cutouts(self) -> pa.Array:
        kind = CUTOUT_SCHEMA.field("cutout").type
        validity = pa.array(self._good).buffers()[1]
        return pa.Array.from_buffers(kind, len(self._good), [validity, pa.py_buffer(self._pixels)])


def _read_loose(members: pa.Table, places: npt.NDArray[np.int64], unit: _Unit) -> None:
    """Read members that are objects of their own: one, or one for each band."""
    objects: list[ObjectInfo] = []
    owners: list[range] = []
    for row in members.select(["object_uri", "size", "source_version"]).take(places).to_pylist():
        mine = _objects_of(row, unit.decoder)
        owners += [range(len(objects), len(objects) + len(mine))] * len(mine)
        objects += mine
    indices = {numbers: index for index, numbers in enumerate(dict.fromkeys(owners))}
    arrived: dict[int, bytes | RejectError] = {}

    def handle(number: int, found: bytes | RejectError) -> None:
        arrived[number] = found
        numbers = owners[number]
        if all(n in arrived for n in numbers):
            unit.take(places, indices[numbers], _together({objects[n].uri: arrived.pop(n) for n in numbers}))

    fetch_each(objects, handle, max_bytes=unit.decoder.limits.bytes)


def _objects_of(row: Mapping[str, Any], decoder: Decoder) -> list[ObjectInfo]:
    size = UNKNOWN_SIZE if row["size"] is None else row["size"]
    if BAND not in row["object_uri"]:
        return [ObjectInfo(row["object_uri"], size, row["source_version"])]
    return band_objects(row["object_uri"], row["source_version"], PRESETS[decoder.preset].bands, size)


def _together(files: Mapping[str, bytes | RejectError]) -> Found:
    """What one member's files are together: the first band that there is not decides."""
    parts: list[bytes] = []
    for uri, found in files.items():
        if isinstance(found, RejectError):
            name = f"{uri.rsplit('/', 1)[-1]}: " if len(files) > 1 else ""
            return RejectError(found.reject.stage, found.reject.reason, f"{name}{found.reject.detail}")
        parts.append(found)
    return parts[0] if len(parts) == 1 else tuple(parts)


def _read_parts(members: pa.Table, places: npt.NDArray[np.int64], unit: _Unit) -> None:
    """Read members that share an object with others: rows of shards, galaxies on frames."""
    chosen = members.take(places)
    uris = np.array(chosen["object_uri"].to_pylist(), object)
    rows = chosen["row"].to_numpy()
    for uri in dict.fromkeys(uris):
        mine = np.flatnonzero(uris == uri)
        mine = mine[np.argsort(rows[mine], kind="stable")]
        if is_named(uri, SHARD_SUFFIXES):
            handle = partial(unit.take, places[mine])
            read_shard(chosen.take(mine), handle, max_bytes=unit.decoder.limits.bytes)
        else:
            _read_field(chosen.take(mine), places[mine], unit)


def _read_field(members: pa.Table, places: npt.NDArray[np.int64], unit: _Unit) -> None:
    for index, found in enumerate(cut_field(members, unit.decoder)):
        if isinstance(found, RejectError):
            unit.take(places, index, found)
        else:
            colors, flags = found
            unit.mark(int(places[index]), flags)
            unit.take(places, index, colors)
