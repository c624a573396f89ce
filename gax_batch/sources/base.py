"""The interface of every source: a listing of members, and cutouts for the members of a unit.

A member is the place of one future cutout: its object, the object's version, and the galaxy's id. A loose
image is a member that is a whole object (`row` is null). A row of a Parquet shard is a member with a `row`. A
faulty member stays in the listing, with its fault in `stage`, `reason` and `detail`. Faults that only all
members together show, such as an id that two of them have, are found by the plan.
"""

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gax_batch.imaging.cutout import CUTOUT_BYTES
from gax_batch.imaging.limits import ListingLimits
from gax_batch.rejects import Reason, Reject, Stage

DEFAULT_LIMITS = ListingLimits()

_REJECT_FIELDS = [
    pa.field("stage", pa.string()),
    pa.field("reason", pa.string()),
    pa.field("detail", pa.string()),
]

MEMBER_SCHEMA = pa.schema(
    [
        pa.field("galaxy_id", pa.string()),
        pa.field("ra", pa.float64()),
        pa.field("dec", pa.float64()),
        pa.field("radius", pa.float64()),
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("source_version", pa.string(), nullable=False),
        pa.field("object_uri", pa.string(), nullable=False),
        pa.field("row", pa.int64()),
        pa.field("size", pa.int64()),
        # Number of failed attempts to read this version. Unknown to a listing.
        pa.field("attempts", pa.int32()),
        *_REJECT_FIELDS,
    ]
)

POSITION_SCHEMA = pa.schema(
    [
        pa.field("galaxy_id", pa.string()),
        pa.field("ra", pa.float64()),
        pa.field("dec", pa.float64()),
        pa.field("radius", pa.float64()),
        pa.field("id_column", pa.string()),
    ]
)
"""Rows of a table of positions. `id_column` is the table's column from which `galaxy_id` comes."""

CUTOUT_SCHEMA = pa.schema(
    [
        pa.field("galaxy_id", pa.string()),
        pa.field("ra", pa.float64()),
        pa.field("dec", pa.float64()),
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("source_version", pa.string(), nullable=False),
        pa.field("flags", pa.int32(), nullable=False),
        pa.field("attempts", pa.int32()),
        *_REJECT_FIELDS,
        pa.field("cutout", pa.binary(CUTOUT_BYTES)),
    ]
)

ENCODED = {b"gax_batch": b"encoded"}
"""Metadata of a field whose bytes are always an image file, even if their number is that of raw pixels."""

ORIGINAL_SCHEMA = pa.schema(
    [
        *(field for field in CUTOUT_SCHEMA if field.name not in ("flags", "cutout")),
        pa.field("image", pa.large_binary(), metadata=ENCODED),
    ]
)

Mask = npt.NDArray[np.bool_]


class Source(Protocol):
    """The cutouts of a survey."""

    @property
    def ignored(self) -> int:
        """Number of skipped objects that are neither images nor shards. Known once all objects are listed."""
        ...

    def list_members(self) -> Iterator[pa.Table]:
        """List every cutout, in batches and in any order, so that a survey may be larger than memory.

        Yields:
            Tables of `MEMBER_SCHEMA`. `source_uri` is unique in all of them together. Bad ids are marked.

        Raises:
            UsageError: The input cannot be used.
            TransientError: The store kept failing.
        """
        ...


def as_utf8(uri: str) -> str:
    """Return a URI that can be stored: bytes of a local name that are not UTF-8 are escaped."""
    return uri.encode("utf-8", "backslashreplace").decode()


def is_named(uri: str, suffixes: tuple[str, ...]) -> bool:
    """Return whether a name has one of the suffixes and is not hidden, as `._1.jpg` is."""
    return uri.lower().endswith(suffixes) and not uri.rsplit("/", 1)[-1].startswith(".")


def with_columns(columns: dict[str, pa.Array], count: int) -> pa.Table:
    """Return a `MEMBER_SCHEMA` table of these columns. The other columns are null."""
    arrays = [columns.get(field.name, pa.nulls(count, field.type)) for field in MEMBER_SCHEMA]
    return pa.table(arrays, schema=MEMBER_SCHEMA)


def changes(column: pa.ChunkedArray) -> Mask:
    """Return whether each value differs from the one before it. True for the first value."""
    found = np.ones(len(column), np.bool_)
    if len(column) > 1:
        found[1:] = pc.not_equal(column[1:], column[:-1]).to_numpy()
    return found


def check_ids(members: pa.Table, limits: ListingLimits = DEFAULT_LIMITS) -> pa.Table:
    """Mark the invalid ids of a batch. Members that are already marked stay so.

    Args:
        members: `MEMBER_SCHEMA`.
        limits: Limits of ids. A longer id is truncated, so that no table contains it in full.

    Returns:
        `MEMBER_SCHEMA`.
    """
    ids = members["galaxy_id"]
    bad = ~_usable_ids(ids, limits.id_characters) & _mask(pc.is_null(members["reason"]))
    place = members.schema.get_field_index("galaxy_id")
    cut = pc.utf8_slice_codeunits(ids, 0, limits.id_characters)
    return set_rejects(
        members.set_column(place, members.schema.field(place), cut),
        {
            index: Reject.of(Stage.PLAN, Reason.BAD_ID, f"galaxy_id is {ids[index].as_py()!r:.80}")
            for index in np.flatnonzero(bad).tolist()
        },
    )


def _usable_ids(ids: pa.ChunkedArray, most: int) -> Mask:
    not_blank = pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(ids)), 0)
    short = pc.less_equal(pc.utf8_length(ids), most)
    return _mask(not_blank) & _mask(short) & _mask(pc.utf8_is_printable(ids))


def _mask(values: pa.ChunkedArray) -> Mask:
    mask: Mask = pc.fill_null(values, False).to_numpy()
    return mask


def set_rejects(table: pa.Table, rejects: Mapping[int, Reject]) -> pa.Table:
    """Write rejects, by row, to a table's columns `stage`, `reason` and `detail`."""
    if not rejects:
        return table
    for name in ("stage", "reason", "detail"):
        values = table[name].to_pylist()
        for index, reject in rejects.items():
            values[index] = str(getattr(reject, name))
        values = pa.array(values, pa.string())
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), values)
    return table
