"""Write the rows of a unit as an immutable Parquet part with companions, and find and read finished parts.

The bytes of a part depend only on its rows (fixed compression, encodings and row groups, no times), and its
key contains a digest of them. Writing a unit again is therefore harmless, and a part is never overwritten
with other bytes. The galaxies part is written last, even without rows: its existence means that the unit is
finished.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gax_batch import storage
from gax_batch.catalog import layout
from gax_batch.catalog.companions import encode as encode_companion
from gax_batch.catalog.companions import read_threads
from gax_batch.catalog.delta import one_line
from gax_batch.catalog.layout import PartName
from gax_batch.catalog.schema import ADDED_COLUMNS, GALAXIES, REJECTS
from gax_batch.errors import FatalError
from gax_batch.rejects import PASSING, Reason
from gax_batch.storage.listing import list_objects
from gax_batch.system.concurrency import map_threads

# A unit of the usual size is one row group. At 0.8 kB a row, more of them would only add overhead.
ROW_GROUP_ROWS = 65_536
STATISTICS_COLUMNS = ("galaxy_id", "ra", "dec")

# Rejects that may become galaxies although their own object stays as it is.
_UNSETTLED = PASSING | {Reason.DUPLICATE_ID}

_METADATA_KEY = b"gax.part"


@dataclass(frozen=True, slots=True)
class Part:
    """The stored output of a unit. Every value is plain JSON.

    Attributes:
        unit_id: The unit.
        fingerprint: Digest of the members of the unit when they were read.
        key: Key of the galaxies part below the root of the table; its companions have the same key.
        size: Size of the galaxies part in bytes.
        rows: Number of galaxies.
        rejects: Number of rejected cutouts.
        planned: Number of cutouts of the unit: `rows + rejects`.
        stats: Statistics of the galaxies part, JSON as in the `add` action of Delta.
        reject_size: Size of its rejects companion in bytes; None if there are no rejects.
        rejects_by_reason: Number of rejects by reason code.
        images: How the images compare with the reference of the bundle, as JSON of counts that
            add up (`gax_batch.models.domain.Counts`); None for a bundle without a reference.
    """

    unit_id: str
    fingerprint: str
    key: str
    size: int
    rows: int
    rejects: int
    planned: int
    stats: str
    reject_size: int | None
    rejects_by_reason: dict[str, int]
    images: str | None = None

    @property
    def unread(self) -> int:
        """The number of cutouts that the storage failed to give. Another run may succeed in reading them."""
        return sum(self.rejects_by_reason.get(reason, 0) for reason in PASSING)


def write_unit(
    catalog: str,
    settings_fingerprint: str,
    galaxies: pa.Table,
    rejects: pa.Table,
    *,
    unit_id: str,
    fingerprint: str,
    planned: int,
    origins: Sequence[str] = (),
    companions: Mapping[str, pa.Table] | None = None,
    images: str | None = None,
) -> Part:
    """Store the rows of a unit.

    Args:
        catalog: URI of the catalog.
        settings_fingerprint: Digest of everything besides the cutouts that determines the rows.
        galaxies: Rows of `GALAXIES`.
        rejects: Rows of `REJECTS`.
        unit_id: The unit.
        fingerprint: Digest of the members of the unit.
        planned: Number of planned cutouts.
        origins: Digests of the objects that the unit is all of (`layout.origin_of`); empty if it is not.
        companions: The other companions by kind (see `gax_batch.catalog.companions`).
        images: See `Part`.

    Returns:
        The stored part, for the commit.

    Raises:
        FatalError: Planned cutouts are missing, or occur twice.
        OSError: The part cannot be written.
        TransientError: The store kept failing.
    """
    _check_conservation(galaxies, rejects, unit_id, planned)
    encoded = {kind: encode_companion(table) for kind, table in sorted((companions or {}).items())}
    content = _digest(galaxies) + _digest(rejects)
    content += b"".join(hashlib.sha256(data).digest() for data in encoded.values())
    if images is not None:
        # They are in the footer of the part, and the bytes under a key never change.
        content += images.encode()
    digest = hashlib.sha256(content).hexdigest()
    by_reason = {
        str(item["values"]): int(item["counts"]) for item in pc.value_counts(rejects["reason"]).to_pylist()
    }
    origins = sorted(origins) if _UNSETTLED.isdisjoint(by_reason) else []
    name = PartName(settings_fingerprint, unit_id, fingerprint, _origin(origins), digest[:16], len(rejects))
    facts = {
        "unit_id": unit_id,
        "fingerprint": fingerprint,
        "planned": planned,
        "rows": len(galaxies),
        "rejects": len(rejects),
        "rejects_by_reason": dict(sorted(by_reason.items())),
        "sha256": digest,
    }
    facts |= {} if images is None else {"images": images}
    facts |= {"origins": origins} if len(origins) > 1 else {}
    for kind, data in encoded.items():
        storage.write_bytes(layout.companion(catalog, kind, name.key), data)
    reject_size = None
    if len(rejects):
        data = _encode(rejects, REJECTS, facts)
        storage.write_bytes(layout.companion(catalog, layout.REJECTS, name.key), data)
        reject_size = len(data)
    facts |= {"stats": json.dumps(_statistics(galaxies)), "reject_size": reject_size}
    data = _encode(galaxies, GALAXIES, facts)
    storage.write_bytes(storage.join(layout.table(catalog, layout.GALAXIES_TABLE), name.key), data)
    return _part(name, len(data), facts)


def find_finished(
    catalog: str, settings_fingerprint: str, units: Iterable[tuple[str, str]]
) -> dict[str, Part]:
    """Find the parts that an earlier, interrupted run has stored.

    Lists one folder once and reads the footers of the requested units. An incomplete part is not finished.
    Of a part with `unread` cutouts, a run has to try only these again.

    Args:
        catalog: URI of the catalog.
        settings_fingerprint: Settings fingerprint of this run.
        units: Pairs of unit id and unit fingerprint.

    Returns:
        Finished parts by unit id. Of several parts of a unit, the one with the fewest unread cutouts.

    Raises:
        TransientError: The store kept failing.
    """
    wanted = set(units)
    folder = layout.parts_folder(catalog, settings_fingerprint)
    candidates: list[tuple[PartName, storage.ObjectInfo]] = []
    for info in list_objects(folder, missing_ok=True):
        name = PartName.parse(info.uri)
        if name is not None and (name.unit_id, name.fingerprint) in wanted:
            candidates.append((name, info))
    described = map_threads(lambda candidate: _described(*candidate), candidates)
    found = [part for part in described if part is not None]
    # Two interrupted runs may both have finished a unit. The order makes the choice deterministic.
    found.sort(key=lambda part: (part.unread, part.key), reverse=True)
    return {part.unit_id: part for part in found}


def read_part(catalog: str, name: PartName) -> Part | None:
    """Read the description of a stored part from its footer. Return None if it is missing or incomplete.

    Raises:
        TransientError: The store kept failing.
    """
    uri = storage.join(layout.table(catalog, layout.GALAXIES_TABLE), name.key)
    try:
        return _described(name, storage.stat(uri))
    except FileNotFoundError:
        return None


def read_origins(catalog: str, names: Sequence[PartName]) -> Iterator[list[str]]:
    """Read which objects the units of some parts are all of.

    A key has room for the digest of one object. The footer of a part lists several.

    Yields:
        For each part, the digests of its objects (`layout.origin_of`); none if it is not all of its objects,
            missing or incomplete.

    Raises:
        TransientError: The store kept failing.
    """

    def read(name: PartName) -> list[str]:
        if name.origin != layout.SEVERAL_ORIGINS:
            return [] if name.origin == layout.MANY_ORIGINS else [name.origin]
        uri = storage.join(layout.table(catalog, layout.GALAXIES_TABLE), name.key)
        facts = _facts(uri)
        return [] if facts is None else list(facts["origins"])

    yield from map_threads(read, names)


def read_columns(root: str, keys: Sequence[str], schema: pa.Schema) -> pa.Table:
    """Read some columns of parts, in the order of the keys, into memory.

    Args:
        root: URI of the table of the parts.
        keys: Keys of the parts.
        schema: The columns to read.

    Raises:
        FatalError: A part is missing or unreadable: the catalog is damaged.
        TransientError: The store kept failing.
    """
    return pa.concat_tables([schema.empty_table(), *read_in_turn(root, keys, schema)])


def read_in_turn(root: str, keys: Sequence[str], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield what `read_columns` returns part by part, with few parts in memory. Raises as it does."""

    def read(key: str) -> pa.Table:
        uri = storage.join(root, key)
        try:
            with storage.open_for_arrow(uri) as file:
                part = pq.ParquetFile(file, pre_buffer=True, page_checksum_verification=True)
                table = part.read(schema.names, use_threads=False)
            return _with_added(table, schema).cast(schema)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise FatalError(
                f"the catalog is damaged: its part {uri} cannot be read ({one_line(error)}); "
                "restore the object, or start a new catalog"
            ) from error

    yield from map_threads(read, keys, read_threads(root))


def _with_added(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Add the columns that a part of an earlier release lacks, as nulls."""
    missing = ADDED_COLUMNS.intersection(schema.names).difference(table.column_names)
    for name in missing:
        table = table.append_column(name, pa.nulls(len(table), schema.field(name).type))
    # The cast fails if other columns are missing.
    return table.select([name for name in schema.names if name in table.column_names])


def _check_conservation(galaxies: pa.Table, rejects: pa.Table, unit_id: str, planned: int) -> None:
    if len(galaxies) + len(rejects) != planned:
        raise FatalError(
            f"unit {unit_id}: {planned} cutouts were planned, but {len(galaxies)} rows and "
            f"{len(rejects)} rejects came out"
        )
    if pc.count_distinct(galaxies["galaxy_id"]).as_py() != len(galaxies):
        raise FatalError(f"unit {unit_id}: two rows have the same galaxy_id")
    sources = pa.chunked_array([*galaxies["source_uri"].chunks, *rejects["source_uri"].chunks], pa.string())
    if pc.count_distinct(sources).as_py() != planned:
        raise FatalError(f"unit {unit_id}: two rows come from the same cutout")


def _digest(table: pa.Table) -> bytes:
    """Return the SHA-256 of the values of a table. Chunks, and the bytes below nulls, do not change it."""
    digest = hashlib.sha256()
    for name, column in zip(table.column_names, table.columns, strict=True):
        nulls = column.is_null().to_numpy()
        digest.update(name.encode() + b"\0" + np.packbits(nulls).tobytes())
        if pa.types.is_string(column.type):
            lengths = pc.fill_null(pc.binary_length(column), 0).to_numpy()
            digest.update(lengths.tobytes())
            text = "".join(value for value in column.to_pylist() if value is not None)
            digest.update(text.encode())
        else:
            digest.update(np.ascontiguousarray(pc.fill_null(column, 0).to_numpy()).tobytes())
    return digest.digest()


def _encode(table: pa.Table, schema: pa.Schema, facts: Mapping[str, Any]) -> bytes:
    # The log of the table has comments, units and UCDs. A copy would be a tenth of each part.
    plain = pa.schema([field.remove_metadata() for field in schema])
    buffer = io.BytesIO()
    with pq.ParquetWriter(
        buffer,
        plain,
        compression="zstd",
        compression_level=3,
        use_dictionary=[field.name for field in plain if pa.types.is_string(field.type)],
        write_statistics=True,
        write_page_checksum=True,
        store_schema=False,
    ) as writer:
        writer.write_table(table.cast(schema).cast(plain).combine_chunks(), row_group_size=ROW_GROUP_ROWS)
        writer.add_key_value_metadata(
            {_METADATA_KEY: json.dumps(facts, sort_keys=True)} | _text_lengths(table)
        )
    return buffer.getvalue()


def _text_lengths(table: pa.Table) -> dict[str, str]:
    """Return the width of each text column under the key of Astropy, which warns if it is missing."""
    text = [field.name for field in table.schema if pa.types.is_string(field.type)]
    longest = {name: pc.max(pc.utf8_length(table[name])).as_py() or 1 for name in text}
    return {f"table::len::{name}": str(length) for name, length in longest.items()}


def _statistics(galaxies: pa.Table) -> dict[str, Any]:
    low: dict[str, Any] = {}
    high: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    for name in STATISTICS_COLUMNS:
        column = galaxies[name]
        nulls[name] = column.null_count
        if column.null_count < len(column):
            ends = pc.min_max(column)
            low[name], high[name] = ends["min"].as_py(), ends["max"].as_py()
    return {"numRecords": len(galaxies), "minValues": low, "maxValues": high, "nullCount": nulls}


def _part(name: PartName, size: int, facts: Mapping[str, Any]) -> Part:
    taken = ("rows", "rejects", "planned", "stats", "reject_size", "rejects_by_reason")
    values = {fact: facts[fact] for fact in taken}
    return Part(name.unit_id, name.fingerprint, name.key, size, **values, images=facts.get("images"))


def _described(name: PartName, info: storage.ObjectInfo) -> Part | None:
    """Return the part that a footer describes; None if it is incomplete or does not match its name."""
    facts = _facts(info.uri)
    if facts is None:
        return None
    same = (facts["unit_id"], facts["fingerprint"]) == (name.unit_id, name.fingerprint)
    same = same and facts["sha256"].startswith(name.digest)
    return _part(name, info.size, facts) if same else None


def _facts(uri: str) -> dict[str, Any] | None:
    """Return the facts in the footer of a part; None if it is missing or incomplete."""
    try:
        with storage.open_binary(uri) as file:
            metadata = pq.read_metadata(file).metadata or {}
        facts: dict[str, Any] = json.loads(metadata[_METADATA_KEY])
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None
    return facts


def _origin(origins: Sequence[str]) -> str:
    if len(origins) > 1:
        return layout.SEVERAL_ORIGINS
    return origins[0] if origins else layout.MANY_ORIGINS
