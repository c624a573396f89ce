"""What a unit stores beside its galaxies part, under the same key in a folder of its own.

A companion is written before its galaxies part and is valid if and only if that part is active, so it
needs no transaction. Kinds: `rejects`, the unit's cutouts that could not be cataloged; `population`, sums
over galaxies by draw (`gax_batch.catalog.sums`); and `draws`, the draws of every galaxy
(`gax_batch.catalog.draws`). Companions merge by concatenation.
"""

import io
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gax_batch import storage
from gax_batch.catalog import layout
from gax_batch.catalog.delta import one_line
from gax_batch.catalog.layout import PartName
from gax_batch.errors import FatalError, UsageError
from gax_batch.storage.listing import list_objects
from gax_batch.system.concurrency import READ_THREADS, map_threads
from gax_batch.system.cpus import logical_cpus

_REMEDIES = {
    layout.POPULATION: "it was made by an earlier version: run the same `gax run` again, which redoes it",
    layout.DRAWS: "they were not kept: run `gax run` again with --keep-draws --redo-companions",
}


def encode(table: pa.Table) -> bytes:
    """A companion as Parquet: the same bytes for the same rows.

    Rows of one `grouping` lie together in a row group, so that a reader of one grouping reads no other.
    """
    buffer = io.BytesIO()
    fields = list(table.schema)
    options = {
        "store_schema": False,
        "write_page_checksum": True,
        "compression": "zstd",
        "compression_level": 3,
        "use_dictionary": [field.name for field in fields if pa.types.is_string(field.type)],
        # Measured on draws: an eighth smaller, and written in half the time.
        "use_byte_stream_split": [f"{f.name}.list.element" for f in fields if pa.types.is_list(f.type)],
    }
    with pq.ParquetWriter(buffer, table.schema, **options) as writer:
        for rows in _groups(table.combine_chunks()):
            writer.write_table(rows, row_group_size=max(len(rows), 1))
    return buffer.getvalue()


def read(
    catalog: str,
    kind: str,
    keys: Sequence[str],
    schema: pa.Schema,
    *,
    columns: Sequence[str] | None = None,
    grouping: str | None = None,
) -> Iterator[pa.Table]:
    """Read companions one after the other, with few of them in memory.

    Args:
        catalog: The catalog's URI.
        kind: One of `layout.COMPANIONS`.
        keys: Of the galaxies parts.
        schema: Of the companion.
        columns: Some of its columns; all by default.
        grouping: Rows of this grouping only.

    Yields:
        For each key, its rows.

    Raises:
        UsageError: The catalog was made without them.
        FatalError: One of them is unreadable: the catalog is damaged.
        TransientError: The store kept failing.
    """
    names = list(columns or schema.names)
    wanted = pa.schema([schema.field(name) for name in names])
    filters = None if grouping is None else [("grouping", "=", grouping)]

    def one(key: str) -> pa.Table:
        uri = layout.companion(catalog, kind, key)
        try:
            with storage.open_for_arrow(uri) as file:
                table = pq.read_table(
                    file,
                    columns=names,
                    filters=filters,
                    use_threads=False,
                    page_checksum_verification=True,
                )
            return table.cast(wanted)
        except FileNotFoundError:
            raise UsageError(f"{catalog} has no {kind} for its part {key}: {_REMEDIES[kind]}") from None
        except (OSError, ValueError, pa.ArrowException) as error:
            raise FatalError(
                f"the catalog is damaged: {uri} cannot be read ({one_line(error)}); "
                "restore the object, or run again with --full"
            ) from error

    yield from map_threads(one, keys, read_threads(catalog))


def with_rejects(catalog: str, names: Iterable[PartName]) -> list[PartName]:
    """Return those of some parts that have rejects, in the order of their keys."""
    names = sorted(names, key=lambda name: name.key)
    there: set[PartName | None] = set()
    if any(name.rejects is None for name in names):
        objects = list_objects(layout.parts_root(catalog, layout.REJECTS), missing_ok=True)
        there = {PartName.parse(info.uri) for info in objects}
    return [name for name in names if name.rejects or (name.rejects is None and name in there)]


def count_rejects(catalog: str, names: Iterable[PartName]) -> dict[PartName, int]:
    """Count the rejects of some parts; of parts of catalog format 2, the footers say.

    Raises:
        FatalError: A companion is unreadable: the catalog is damaged.
        TransientError: The store kept failing.
    """
    counts = {name: name.rejects or 0 for name in names}
    old = with_rejects(catalog, (name for name in counts if name.rejects is None))
    footers = map_threads(lambda name: read_footer(catalog, layout.REJECTS, name.key), old)
    return counts | {name: int(footer.num_rows) for name, footer in zip(old, footers, strict=True)}


def read_footer(catalog: str, kind: str, key: str) -> pq.FileMetaData:
    """Read the Parquet footer of a companion.

    Args:
        catalog: URI of the catalog.
        kind: One of `layout.COMPANIONS`.
        key: Key of the galaxies part.

    Raises:
        FatalError: The companion is missing or unreadable: the catalog is damaged.
        TransientError: The store kept failing.
    """
    uri = layout.companion(catalog, kind, key)
    try:
        with storage.open_binary(uri) as file:
            return pq.read_metadata(file)
    except (OSError, pa.ArrowException) as error:
        raise FatalError(f"the catalog is damaged: {uri} cannot be read ({one_line(error)})") from error


def read_threads(uri: str) -> int:
    """How many parts below a URI to read at once.

    A local disk's cache keeps nobody waiting: more threads would only take the memory from each other.
    """
    local = storage.local_path(uri) is not None
    return min(READ_THREADS, 2 * logical_cpus()) if local else READ_THREADS


def _groups(table: pa.Table) -> Iterator[pa.Table]:
    if "grouping" not in table.column_names or not len(table):
        yield table
        return
    for name in pc.unique(table["grouping"]):
        yield table.filter(pc.equal(table["grouping"], name))
