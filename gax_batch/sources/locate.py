"""Locate the members of cataloged galaxies again, from the catalog's columns about their source."""

import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from gax_batch import storage
from gax_batch.errors import TransientError
from gax_batch.sources.bands import BAND, SEPARATOR
from gax_batch.sources.base import MEMBER_SCHEMA, is_named
from gax_batch.sources.tars import SUFFIXES as TAR_SUFFIXES

_IN_SHARD = r"^(?P<object>.+)#(?:row|offset)=(?P<row>\d+)$"
_SIZE_AND_TIME = re.compile(r"(\d{1,18})-[\d.]+")
_ON_FRAMES = r"#galaxy=.+$"


@dataclass(frozen=True, slots=True)
class MovedSources:
    """A survey whose files were moved or rewritten with other modification times since they were cataloged.

    Attributes:
        root: URI below which all files were.
        now: URI below which they are now; it may be the same.
        bands: Bands of files that are named by one, in the order of their versions.
    """

    root: str
    now: str
    bands: Sequence[str]

    def relocate(self, uris: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return the URIs as they are now. Those that were not below the root stay the same."""
        below = pc.or_(pc.equal(uris, self.root), pc.starts_with(uris, f"{self.root}/"))
        inner = pc.utf8_slice_codeunits(uris, len(self.root))
        return pc.if_else(below, pc.binary_join_element_wise(self.now, inner, ""), uris)

    def accept(self, members: pa.Table) -> pa.Table:
        """Replace the cataloged versions by the present ones of objects whose size is the same.

        Args:
            members: `MEMBER_SCHEMA` with the present URIs.

        Returns:
            `MEMBER_SCHEMA`. An object that is missing or has another size keeps its cataloged version, so
            that reading it fails.
        """
        objects = list(
            zip(members["object_uri"].to_pylist(), members["source_version"].to_pylist(), strict=True)
        )
        accepted = {found: self._accepted(*found) for found in set(objects)}
        versions = pa.array([accepted[found] for found in objects], pa.string())
        place = members.schema.get_field_index("source_version")
        return members.set_column(place, members.schema.field(place), versions)

    def _accepted(self, uri: str, version: str) -> str:
        if BAND not in uri:
            return _version_now(uri, version)
        versions = version.split(SEPARATOR)
        for index, band in enumerate(self.bands[: len(versions)]):
            versions[index] = _version_now(uri.replace(BAND, band), versions[index])
        return SEPARATOR.join(versions)


def _version_now(uri: str, version: str) -> str:
    try:
        found = storage.stat(uri)
    except (OSError, TransientError):
        return version
    known = _SIZE_AND_TIME.fullmatch(version)
    return version if known is not None and int(known[1]) != found.size else found.version


def on_frames(source_uris: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return whether each URI is a galaxy on frames. Only the plan of its run has the frames' URIs."""
    return pc.match_substring_regex(source_uris, _ON_FRAMES)


def shards_of(source_uris: pa.ChunkedArray) -> pa.Array:
    """Return the URI of the shard of each row of a shard; null for members that are not rows of shards."""
    return pc.struct_field(pc.extract_regex(source_uris, _IN_SHARD).combine_chunks(), "object")


def locate_members(galaxies: pa.Table) -> pa.Table:
    """Locate the images of loose objects and of rows of shards.

    Args:
        galaxies: Columns `galaxy_id`, `ra`, `dec`, `source_uri` and `source_version` of the catalog.

    Returns:
        `MEMBER_SCHEMA`, in the same order.
    """
    places = pc.extract_regex(galaxies["source_uri"], _IN_SHARD).combine_chunks()
    columns = {name: galaxies[name] for name in ("galaxy_id", "ra", "dec", "source_uri", "source_version")}
    columns["object_uri"] = pc.coalesce(pc.struct_field(places, "object"), galaxies["source_uri"])
    columns["row"] = pc.cast(pc.struct_field(places, "row"), pa.int64())
    sizes = [
        _size_in_tar(uri, row) if row is not None and is_named(uri, TAR_SUFFIXES) else None
        for uri, row in zip(columns["object_uri"].to_pylist(), columns["row"].to_pylist(), strict=True)
    ]
    columns["size"] = pa.array(sizes, pa.int64())
    arrays = [columns.get(f.name, pa.nulls(len(galaxies), f.type)) for f in MEMBER_SCHEMA]
    return pa.table(arrays, schema=MEMBER_SCHEMA)


def _size_in_tar(uri: str, offset: int) -> int:
    """Return an image's size from the header before it, or 0 without one, which makes the read fail."""
    try:
        with storage.open_binary(uri) as file:
            file.seek(offset - tarfile.BLOCKSIZE)
            header = file.read(tarfile.BLOCKSIZE)
        return tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").size
    except (OSError, tarfile.TarError):
        return 0
