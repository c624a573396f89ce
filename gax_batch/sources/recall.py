"""Members found again from what the catalog's rows say of their source."""

import tarfile

import pyarrow as pa
import pyarrow.compute as pc

from gax_batch import storage
from gax_batch.sources.base import MEMBER_SCHEMA, is_named
from gax_batch.sources.tars import SUFFIXES as TAR_SUFFIXES

_IN_SHARD = r"^(?P<object>.+)#(?:row|offset)=(?P<row>\d+)$"
_ON_FRAMES = r"#galaxy=.+$"


def on_frames(source_uris: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether each is a galaxy on frames: only the plan of its run knows which ones."""
    return pc.match_substring_regex(source_uris, _ON_FRAMES)


def shards_of(source_uris: pa.ChunkedArray) -> pa.Array:
    """The URI of the shard of each of a shard's rows; null for what is not a row of a shard."""
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
    """An image's size from the header before it; 0 where there is none, which reading will find out."""
    try:
        with storage.open_binary(uri) as file:
            file.seek(offset - tarfile.BLOCKSIZE)
            header = file.read(tarfile.BLOCKSIZE)
        return tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").size
    except (OSError, tarfile.TarError):
        return 0
