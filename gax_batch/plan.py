"""What a run must process: the difference between a listing and a catalog, in units of work.

A member of the listing is new, or known to the catalog by its `source_uri`. A known member that changed
(version, id, position, or whether the listing rejects it) makes its whole unit be redone under its old
name; new members form new units. Members that vanished stay in the catalog until their unit is redone.
One `galaxy_id` belongs to one galaxy of the whole catalog: the galaxy that has it keeps it while it is
listed; once it vanished, a listed one that claims the id gets it, and the vanished one's unit is redone.
"""

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gax_batch import storage
from gax_batch.difference import NEW, Counts, Difference, Ints, bools, ints, one_array
from gax_batch.errors import FatalError, UsageError
from gax_batch.sources.base import MEMBER_SCHEMA

# Members that are gathered at once: bounds memory, and keeps Arrow's 32-bit string offsets from overflow.
BLOCK_MEMBERS = 131_072

_DIGEST_CHARACTERS = 16
_FINGERPRINTED = ("source_uri", "source_version", "galaxy_id", "ra", "dec", "reason")
_SEPARATOR = "\x1f"


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit to process.

    Attributes:
        unit_id: Its name: a digest of its members' URIs when it was new. Never changes.
        fingerprint: Digest of its members now, their versions, ids and positions.
        reason: Why: `new`, `changed`, `model changed` or `forced`.
        members: How many there are.
        bytes: Size of all members together; None if it is not known.
    """

    unit_id: str
    fingerprint: str
    reason: str
    members: int
    bytes: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """The units of a run and, kept together, their members."""

    units: list[Unit]
    counts: Counts
    _listing: pa.Table
    _rows: Ints
    _offsets: Ints

    @property
    def members(self) -> int:
        """Cutouts of all units."""
        return len(self._rows)

    def write(self, uri: str) -> None:
        """Store the members as Parquet with one row group per unit, in the order of `units`.

        Raises:
            OSError: It cannot be written.
            TransientError: The store kept failing.
        """
        buffer = io.BytesIO()
        # Without statistics: nobody looks for values here, and each reader has to parse the footer.
        with pq.ParquetWriter(buffer, MEMBER_SCHEMA, compression="zstd", write_statistics=False) as writer:
            for block, bounds in _blocks(self._listing, self._rows, self._offsets):
                for start, stop in pairwise(bounds.tolist()):
                    writer.write_table(block.slice(start, stop - start), row_group_size=stop - start)
        storage.write_bytes(uri, buffer.getvalue())


def read_unit_members(plan_uri: str, row_group: int) -> pa.Table:
    """Read the members of one unit of a stored plan.

    Returns:
        `MEMBER_SCHEMA`.

    Raises:
        FatalError: The plan is missing or damaged.
        TransientError: The store kept failing.
    """
    try:
        with storage.open_binary(plan_uri) as file:
            return pq.ParquetFile(file).read_row_group(row_group, use_threads=False).cast(MEMBER_SCHEMA)
    except (OSError, pa.ArrowException) as error:
        raise FatalError(f"the plan {plan_uri} cannot be read: {error}") from error


def make_plan(
    listing: pa.Table,
    known: pa.Table,
    units: Mapping[str, tuple[str, str]],
    *,
    settings_fingerprint: str,
    unit_size: int,
    full: bool = False,
) -> Plan:
    """Compare a listing with a catalog.

    Args:
        listing: `MEMBER_SCHEMA`, in any order, `source_uri` unique.
        known: `Catalog.members()`.
        units: `Catalog.units()`.
        settings_fingerprint: Digest of bundle and settings; units of another one are redone.
        unit_size: Members of a new unit, at most. Rows of different shards never share a unit.
        full: Redo every unit that has a member in the listing.

    Returns:
        The plan. In a unit, members are sorted by `source_uri`, or by row within a shard.

    Raises:
        UsageError: `unit_size` is not positive, or galaxies of a unit that vanished as a whole are now
            listed under other URIs.
    """
    if unit_size < 1:
        raise UsageError(f"the unit size must be at least 1, not {unit_size}")
    listing = _ordered(listing)
    diff = Difference(listing, known, units, settings_fingerprint, full)
    listing = diff.listing
    new_rows, new_starts = _new_units(listing, np.flatnonzero(~diff.is_known), unit_size)
    old_rows, old_starts, codes = diff.redone_rows()
    rows = np.concatenate([old_rows, new_rows])
    offsets = np.concatenate([old_starts, len(old_rows) + new_starts, [len(rows)]]).astype(np.int64)
    ids = [diff.names[code] for code in codes]
    ids += _digests(listing, ["source_uri"], new_rows, np.append(new_starts, len(new_rows)))
    reasons = [diff.reason(code) for code in codes] + [NEW] * len(new_starts)
    prints = _digests(listing, _FINGERPRINTED, rows, offsets)
    sizes = _unit_bytes(listing, rows, offsets)
    members = np.diff(offsets).tolist()
    return Plan(
        [Unit(*values) for values in zip(ids, prints, reasons, members, sizes, strict=True)],
        diff.counts(),
        listing,
        rows,
        offsets,
    )


def _ordered(listing: pa.Table) -> pa.Table:
    """A listing sorted by `source_uri`, and by row within each shard; positions that are NaN are null."""
    uris = listing["source_uri"]
    if len(uris) > 1 and not pc.all(pc.less_equal(uris[:-1], uris[1:])).as_py():
        listing = listing.take(pc.sort_indices(uris))
    for name in ("ra", "dec"):
        if pc.any(pc.is_nan(listing[name])).as_py():
            clean = pc.if_else(pc.is_nan(listing[name]), pa.scalar(None, pa.float64()), listing[name])
            listing = listing.set_column(
                listing.schema.get_field_index(name), listing.schema.field(name), clean
            )
    if listing["row"].null_count == len(listing):
        return listing
    row = ints(pc.fill_null(listing["row"], -1))
    order = np.lexsort((row, _object_codes(listing)))
    return listing if np.array_equal(order, np.arange(len(order))) else listing.take(pa.array(order))


def _object_codes(listing: pa.Table) -> Ints:
    return ints(pc.dictionary_encode(listing["object_uri"]).combine_chunks().indices)


def _new_units(listing: pa.Table, rows: Ints, unit_size: int) -> tuple[Ints, Ints]:
    """Cut new members, in order, into units; loose images share units, rows of different shards do not."""
    is_row = bools(pc.is_valid(listing["row"]))[rows]
    group = np.where(is_row, _object_codes(listing)[rows], -1) if is_row.any() else np.full(len(rows), -1)
    is_first = np.diff(group, prepend=-2) != 0
    begin = np.flatnonzero(is_first)
    within = np.arange(len(rows)) - (begin[np.cumsum(is_first) - 1] if len(rows) else 0)
    return rows, np.flatnonzero(within % unit_size == 0)


def _blocks(listing: pa.Table, rows: Ints, offsets: Ints) -> Iterator[tuple[pa.Table, Ints]]:
    """Whole units gathered, about `BLOCK_MEMBERS` rows at a time, each with its units' bounds in it."""
    start = 0
    while start < len(offsets) - 1:
        stop = int(np.searchsorted(offsets, offsets[start] + BLOCK_MEMBERS, side="right")) - 1
        stop = max(stop, start + 1)
        bounds = offsets[start : stop + 1]
        yield listing.take(pa.array(rows[bounds[0] : bounds[-1]])), bounds - bounds[0]
        start = stop


def _digests(listing: pa.Table, names: Sequence[str], rows: Ints, offsets: Ints) -> list[str]:
    """The first 16 hex digits of SHA-256 over some columns of each unit's members."""
    digests: list[str] = []
    for block, bounds in _blocks(listing.select(list(names)), rows, offsets):
        texts = [_as_text(column) for column in block.columns]
        # The empty last field ends each member with a separator.
        joined = pc.binary_join_element_wise(
            *texts, "", _SEPARATOR, null_handling="replace", null_replacement="\0"
        )
        array = one_array(joined)
        ends = np.frombuffer(array.buffers()[1], np.int32)[array.offset :]
        data = memoryview(array.buffers()[2])
        for start, stop in pairwise(bounds.tolist()):
            digest = hashlib.sha256(data[ends[start] : ends[stop]]).hexdigest()
            digests.append(digest[:_DIGEST_CHARACTERS])
    return digests


def _as_text(column: pa.ChunkedArray) -> pa.Array:
    array = one_array(column)
    if pa.types.is_floating(array.type):
        # Exact, and the same wherever and however floats are printed.
        array = array.view(pa.int64())
    return pc.cast(array, pa.string())


def _unit_bytes(listing: pa.Table, rows: Ints, offsets: Ints) -> list[int | None]:
    if len(offsets) < 2:
        return []
    sizes = ints(pc.fill_null(listing["size"], -1))[rows]
    totals = np.add.reduceat(np.maximum(sizes, 0), offsets[:-1])
    unknown = np.add.reduceat((sizes < 0).astype(np.int64), offsets[:-1])
    return [None if missing else int(total) for total, missing in zip(totals, unknown, strict=True)]
