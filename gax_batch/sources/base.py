"""What every source gives: a listing of members, and cutouts for the members of a unit.

A member is one cutout to be: where it is, in which version, and whose it is. A loose image is a member
that is its whole object (`row` is null); a row of a Parquet shard is one with `row` set. Whatever is
wrong with a member is written beside it (`stage`, `reason`, `detail`), and it stays in the listing.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gax_batch.imaging import CUTOUT_BYTES
from gax_batch.rejects import Reason, Reject, Stage

MAX_ID_CHARACTERS = 256

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
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("source_version", pa.string(), nullable=False),
        pa.field("object_uri", pa.string(), nullable=False),
        pa.field("row", pa.int64()),
        pa.field("size", pa.int64()),
        *_REJECT_FIELDS,
    ]
)

CUTOUT_SCHEMA = pa.schema(
    [
        pa.field("galaxy_id", pa.string()),
        pa.field("ra", pa.float64()),
        pa.field("dec", pa.float64()),
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("source_version", pa.string(), nullable=False),
        pa.field("flags", pa.int32(), nullable=False),
        *_REJECT_FIELDS,
        pa.field("cutout", pa.binary(CUTOUT_BYTES)),
    ]
)

Mask = npt.NDArray[np.bool_]


class Source(Protocol):
    """A survey's cutouts, wherever they are."""

    @property
    def ignored(self) -> int:
        """How many objects were passed over, being neither images nor shards."""
        ...

    def list_members(self) -> pa.Table:
        """List every cutout.

        Returns:
            `MEMBER_SCHEMA`, sorted by `source_uri`; bad and duplicate ids and bad positions are marked.

        Raises:
            UsageError: The input is not what it should be.
            TransientError: The store kept failing.
        """
        ...


def as_utf8(uri: str) -> str:
    """A URI as it can be stored: bytes of a local name that are not UTF-8 are escaped."""
    return uri.encode("utf-8", "backslashreplace").decode()


def with_columns(columns: dict[str, pa.Array], count: int) -> pa.Table:
    """A `MEMBER_SCHEMA` table of these columns; the others are null."""
    arrays = [columns.get(field.name, pa.nulls(count, field.type)) for field in MEMBER_SCHEMA]
    return pa.table(arrays, schema=MEMBER_SCHEMA)


def check_members(members: pa.Table) -> pa.Table:
    """Sort a listing by `source_uri` and mark its bad ids, duplicate ids and bad positions.

    Of the members with one id, the first stays. A position that is not a number is no position.

    Args:
        members: `MEMBER_SCHEMA`; what is marked already stays so.

    Returns:
        `MEMBER_SCHEMA`.
    """
    members = members.sort_by("source_uri").combine_chunks()
    for name in ("ra", "dec"):
        known = pc.if_else(pc.is_nan(members[name]), None, members[name])
        members = members.set_column(members.schema.get_field_index(name), members.schema.field(name), known)
    marked = _mask(pc.is_valid(members["reason"]))
    bad_id = ~_usable_ids(members["galaxy_id"]) & ~marked
    bad_position = ~_usable_positions(members["ra"], members["dec"]) & ~bad_id & ~marked
    # A member that is rejected anyway holds no id.
    rejected = marked | bad_id | bad_position
    first = _first_of_each_id(members["galaxy_id"], rejected)
    duplicate = ~rejected & (first != np.arange(len(members)))
    rejects: dict[int, Reject] = {}
    for reason, mask in (
        (Reason.BAD_ID, bad_id),
        (Reason.DUPLICATE_ID, duplicate),
        (Reason.BAD_POSITION, bad_position),
    ):
        for index in np.flatnonzero(mask).tolist():
            rejects[index] = Reject.of(Stage.PLAN, reason, _detail(members, reason, index, int(first[index])))
    return set_rejects(members, rejects) if rejects else members


def _usable_ids(ids: pa.ChunkedArray) -> Mask:
    not_blank = pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(ids)), 0)
    short = pc.less_equal(pc.utf8_length(ids), MAX_ID_CHARACTERS)
    return _mask(not_blank) & _mask(short) & _mask(pc.utf8_is_printable(ids))


def _first_of_each_id(ids: pa.ChunkedArray, excluded: Mask) -> npt.NDArray[np.int64]:
    """For each row the first row with its id; excluded rows are their own."""
    own = np.arange(len(ids))
    if not len(ids):
        return own
    codes = pc.fill_null(pc.dictionary_encode(ids).combine_chunks().indices, -1).to_numpy(
        zero_copy_only=False
    )
    codes = np.where(excluded, codes.max() + 1 + own, codes)
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    return first[inverse]


def _usable_positions(ra: pa.ChunkedArray, dec: pa.ChunkedArray) -> Mask:
    neither = pc.and_(pc.is_null(ra), pc.is_null(dec))
    inside = pc.and_(
        pc.and_(pc.greater_equal(ra, 0.0), pc.less_equal(ra, 360.0)),
        pc.and_(pc.greater_equal(dec, -90.0), pc.less_equal(dec, 90.0)),
    )
    return _mask(neither) | _mask(inside)


def _mask(values: pa.ChunkedArray) -> Mask:
    mask: Mask = pc.fill_null(values, False).to_numpy()
    return mask


def _detail(members: pa.Table, reason: Reason, index: int, first: int) -> str:
    if reason is Reason.BAD_ID:
        return f"galaxy_id is {members['galaxy_id'][index].as_py()!r:.80}"
    if reason is Reason.DUPLICATE_ID:
        return f"first listed as {members['source_uri'][first].as_py()}"
    return f"ra is {members['ra'][index].as_py()}, dec is {members['dec'][index].as_py()}"


def set_rejects(table: pa.Table, rejects: Mapping[int, Reject]) -> pa.Table:
    """Write rejects, by row, into a table's `stage`, `reason` and `detail`."""
    for name in ("stage", "reason", "detail"):
        values = table[name].to_pylist()
        for index, reject in rejects.items():
            values[index] = str(getattr(reject, name))
        values = pa.array(values, pa.string())
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), values)
    return table
