"""A unit's members to cutouts: read, decode, and reject what cannot be."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gax_batch.decoding import Decoder
from gax_batch.imaging import CUTOUT_BYTES, IMAGE_SIDE, ImageFlag
from gax_batch.rejects import Reason, Reject, RejectError, Stage
from gax_batch.sources.base import CUTOUT_SCHEMA, is_named, set_rejects
from gax_batch.sources.framing import cut_field
from gax_batch.sources.objectstore import fetch_each
from gax_batch.sources.shards import SUFFIXES as SHARD_SUFFIXES
from gax_batch.sources.shards import read_shard
from gax_batch.sources.tensors import Found, Pixels
from gax_batch.storage import UNKNOWN_SIZE, ObjectInfo


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


# Where the pixel in the middle of a cutout is.
_MIDDLE = 3 * (IMAGE_SIDE // 2 * IMAGE_SIDE + IMAGE_SIDE // 2)


class _Unit:
    """The cutouts of a unit, filled in any order."""

    def __init__(self, count: int, decoder: Decoder) -> None:
        self.decoder = decoder
        self._pixels = np.zeros((count, CUTOUT_BYTES), np.uint8)
        self._good = np.zeros(count, np.bool_)
        self._flags = np.zeros(count, np.int32)
        self._rejects: dict[int, Reject] = {}

    def take(self, place: int, found: Found) -> None:
        """Decode what was read for a member."""
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
            self.mark(place, flags)

    def take_cutouts(self, places: npt.NDArray[np.int64], pixels: Pixels) -> None:
        """Keep finished cutouts `[n, 12288]`; the few that may be blank are looked at one by one."""
        colorful = (pixels[:, :3] != pixels[:, _MIDDLE : _MIDDLE + 3]).any(axis=1)
        self._pixels[places] = pixels
        self._good[places] = colorful
        for index in np.flatnonzero(~colorful).tolist():
            self.take(int(places[index]), pixels[index].reshape(IMAGE_SIDE, IMAGE_SIDE, 3))

    def mark(self, place: int, flags: ImageFlag) -> None:
        """Tell of a cutout's particulars."""
        if flags:
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


@dataclass(frozen=True, slots=True)
class _Some:
    """Some of a unit's members, by their index among them."""

    unit: _Unit
    places: npt.NDArray[np.int64]

    def take(self, index: int, found: Found) -> None:
        self.unit.take(int(self.places[index]), found)

    def take_cutouts(self, first: int, pixels: Pixels) -> None:
        self.unit.take_cutouts(self.places[first : first + len(pixels)], pixels)


def _read_loose(members: pa.Table, places: npt.NDArray[np.int64], unit: _Unit) -> None:
    chosen = members.select(["object_uri", "size", "source_version"]).take(places)
    objects = [
        ObjectInfo(
            row["object_uri"], UNKNOWN_SIZE if row["size"] is None else row["size"], row["source_version"]
        )
        for row in chosen.to_pylist()
    ]
    fetch_each(objects, _Some(unit, places).take, max_bytes=unit.decoder.limits.bytes)


def _read_parts(members: pa.Table, places: npt.NDArray[np.int64], unit: _Unit) -> None:
    """Read members that share an object with others: rows of shards, galaxies on frames."""
    chosen = members.take(places)
    uris = np.array(chosen["object_uri"].to_pylist(), object)
    rows = chosen["row"].to_numpy()
    for uri in dict.fromkeys(uris):
        mine = np.flatnonzero(uris == uri)
        mine = mine[np.argsort(rows[mine], kind="stable")]
        if is_named(uri, SHARD_SUFFIXES):
            some = _Some(unit, places[mine])
            read_shard(chosen.take(mine), some, max_bytes=unit.decoder.limits.bytes)
        else:
            _read_field(chosen.take(mine), places[mine], unit)


def _read_field(members: pa.Table, places: npt.NDArray[np.int64], unit: _Unit) -> None:
    for index, found in enumerate(cut_field(members, unit.decoder)):
        place = int(places[index])
        if isinstance(found, RejectError):
            unit.take(place, found)
        else:
            colors, flags = found
            unit.mark(place, flags)
            unit.take(place, colors)
