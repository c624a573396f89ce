"""Members found again from what the catalog's rows say of their source."""

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
    """A survey whose files are elsewhere than when they were cataloged, or were touched since.

    Attributes:
        root: The URI that all of them were below.
        now: The URI that they are below now; it may be the same.
        bands: The bands of files that are named by one, in the order of their versions.
    """

    root: str
    now: str
    bands: Sequence[str]

    def relocate(self, uris: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return the URIs as they are now; those that were not below the root stay."""
        below = pc.or_(pc.equal(uris, self.root), pc.starts_with(uris, f"{self.root}/"))
        inner = pc.utf8_slice_codeunits(uris, len(self.root))
        return pc.if_else(below, pc.binary_join_element_wise(self.now, inner, ""), uris)

    def accept(self, members: pa.Table) -> pa.Table:
        """Take the versions that are there now for those that were cataloged, where sizes do not differ.

        Args:
            members: `MEMBER_SCHEMA`, with the URIs as they are now.

        Returns:
            `MEMBER_SCHEMA`; an object of another size, or that is not there, keeps the version that was
            cataloged, so that reading it fails.
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
    """Return whether each is a galaxy on frames: only the plan of its run knows which ones."""
    return pc.match_substring_regex(source_uris, _ON_FRAMES)


def shards_of(source_uris: pa.ChunkedArray) -> pa.Array:
    """Return the URI of the shard of each of a shard's rows; null for what is not a row of a shard."""
    return pc.struct_field(pc.extract_regex(source_uris, _IN_SHARD).combine_chunks(), "object")


def recall_members(galaxies: pa.Table) -> pa.Table:
    """Where the images of loose objects and of shards' rows are.

    Args:
        galaxies: `galaxy_id`, `ra`, `dec`, `source_uri` and `source_version` of the catalog.

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
    """Return an image's size from the header before it; 0 where there is none, which reading will find out."""
    try:
        with storage.open_binary(uri) as file:
            file.seek(offset - tarfile.BLOCKSIZE)
            header = file.read(tarfile.BLOCKSIZE)
        return tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").size
    except (OSError, tarfile.TarError):
        return 0
