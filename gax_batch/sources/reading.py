"""A unit's members to cutouts: read, decode, and reject what cannot be."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gax_batch.decoding import Decoder
from gax_batch.errors import UsageError
from gax_batch.imaging import CUTOUT_BYTES, IMAGE_SIDE, ImageFlag
from gax_batch.rejects import Reason, Reject, RejectError, Stage
from gax_batch.sources.base import CUTOUT_SCHEMA, ORIGINAL_SCHEMA, is_named, set_rejects
from gax_batch.sources.framing import cut_field
from gax_batch.sources.objectstore import fetch_each
from gax_batch.sources.shards import SUFFIXES as SHARD_SUFFIXES
from gax_batch.sources.shards import read_shard
from gax_batch.sources.tensors import Found, Pixels
from gax_batch.storage import UNKNOWN_SIZE, ObjectInfo

Places = npt.NDArray[np.int64]


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
    loose, parts = _split(members)
    _read_loose(members, loose, unit, decoder.limits.bytes)
    for group, places in _by_object(members, parts):
        if is_named(group["object_uri"][0].as_py(), SHARD_SUFFIXES):
            read_shard(group, _Some(unit, places), max_bytes=decoder.limits.bytes)
        else:
            _read_field(group, places, unit)
    return unit.table(members)


def read_originals(members: pa.Table, *, max_bytes: int) -> pa.Table:
    """Read a unit's images as they are, undecoded.

    Args:
        members: `MEMBER_SCHEMA` of loose images and rows of shards; as for `read_unit`.
        max_bytes: Larger images are rejected.

    Returns:
        `ORIGINAL_SCHEMA`, the same rows in the same order; what cannot be read is a rejected row.

    Raises:
        UsageError: There are raw tensors or galaxies on frames among them.
        TransientError, FatalError: As for `read_unit`.
    """
    unit = _Originals(len(members))
    loose, parts = _split(members)
    _read_loose(members, loose, unit, max_bytes)
    for group, places in _by_object(members, parts):
        if not is_named(group["object_uri"][0].as_py(), SHARD_SUFFIXES):
            raise UsageError("galaxies on frames have no image files of their own; pack them as cutouts")
        read_shard(group, _Some(unit, places), max_bytes=max_bytes)
    return unit.table(members)


class _Collector(Protocol):
    """Takes what is read of members by their place in a unit, in any order."""

    def take(self, place: int, found: Found) -> None: ...

    def take_cutouts(self, places: Places, pixels: Pixels) -> None: ...


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

    def take_cutouts(self, places: Places, pixels: Pixels) -> None:
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


class _Originals:
    """The encoded images of a unit."""

    def __init__(self, count: int) -> None:
        self._images: list[bytes | None] = [None] * count
        self._raw = False
        self._rejects: dict[int, Reject] = {}

    def take(self, place: int, found: Found) -> None:
        if isinstance(found, RejectError):
            self._rejects[place] = found.reject
        elif isinstance(found, bytes):
            self._images[place] = found
        else:
            self._raw = True

    def take_cutouts(self, places: Places, pixels: Pixels) -> None:
        self._raw = True

    def table(self, members: pa.Table) -> pa.Table:
        if self._raw:
            raise UsageError("raw tensors have no image files that could be kept; pack them as cutouts")
        members = set_rejects(members, self._rejects)
        images = pa.array(self._images, pa.large_binary())
        columns = [images if name == "image" else members[name] for name in ORIGINAL_SCHEMA.names]
        return pa.table(columns, schema=ORIGINAL_SCHEMA)


@dataclass(frozen=True, slots=True)
class _Some:
    """Some of a unit's members, by their index among them."""

    unit: _Collector
    places: Places

    def take(self, index: int, found: Found) -> None:
        self.unit.take(int(self.places[index]), found)

    def take_cutouts(self, first: int, pixels: Pixels) -> None:
        self.unit.take_cutouts(self.places[first : first + len(pixels)], pixels)


def _split(members: pa.Table) -> tuple[Places, Places]:
    """Where loose images are and where members are that share an object; rejected ones are neither."""
    open_rows = pc.is_null(members["stage"]).to_numpy()
    loose = pc.is_null(members["row"]).to_numpy() & open_rows
    return np.flatnonzero(loose), np.flatnonzero(open_rows & ~loose)


def _read_loose(members: pa.Table, places: Places, unit: _Collector, max_bytes: int) -> None:
    chosen = members.select(["object_uri", "size", "source_version"]).take(places)
    objects = [
        ObjectInfo(
            row["object_uri"], UNKNOWN_SIZE if row["size"] is None else row["size"], row["source_version"]
        )
        for row in chosen.to_pylist()
    ]
    fetch_each(objects, _Some(unit, places).take, max_bytes=max_bytes)


def _by_object(members: pa.Table, places: Places) -> Iterator[tuple[pa.Table, Places]]:
    """Members that share an object, by increasing row, and where they are in the unit."""
    chosen = members.take(places)
    uris = np.array(chosen["object_uri"].to_pylist(), object)
    rows = chosen["row"].to_numpy()
    for uri in dict.fromkeys(uris):
        mine = np.flatnonzero(uris == uri)
        mine = mine[np.argsort(rows[mine], kind="stable")]
        yield chosen.take(mine), places[mine]


def _read_field(members: pa.Table, places: Places, unit: _Unit) -> None:
    for index, found in enumerate(cut_field(members, unit.decoder)):
        place = int(places[index])
        if isinstance(found, RejectError):
            unit.take(place, found)
        else:
            colors, flags = found
            unit.mark(place, flags)
            unit.take(place, colors)
