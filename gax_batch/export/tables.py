"""Publish selected galaxies as one file: Parquet with a VOTable in its footer, VOTable, FITS, CSV or ECSV.

Rows are streamed into a Parquet file in `TMPDIR`. This file is published, or converted to the other formats,
which need the number of rows and the widest text first. The published file is stored whole or not at all.
"""

import io
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from gax_batch import storage
from gax_batch.catalog.schema import Column
from gax_batch.export.formats import Format
from gax_batch.export.records import write_fits, write_votable
from gax_batch.export.selection import Selection, described
from gax_batch.export.votable import TableProvenance, Text, voparquet, votable_header

ROW_GROUP_ROWS = 65_536


@dataclass(slots=True)
class _RowStatistics:
    """Statistics of the streamed rows."""

    rows: int = 0
    without_position: int = 0
    texts: dict[str, Text] = field(default_factory=dict)
    bundle_ids: set[str] = field(default_factory=set)

    def add(self, rows: pa.Table) -> None:
        self.rows += len(rows)
        self.without_position += pc.sum(pc.or_(rows["ra"].is_null(), rows["dec"].is_null())).as_py() or 0
        self.bundle_ids.update(rows["bundle_id"].unique().to_pylist())
        for name, column in zip(rows.column_names, rows.columns, strict=True):
            if pa.types.is_string(column.type):
                self.texts[name] = _widest(self.texts.get(name, Text()), column)


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """Number of published galaxies, and of those without a position."""

    rows: int
    without_position: int


def publish_table(
    root: str,
    keys: Sequence[str],
    selection: Selection,
    provenance: TableProvenance,
    form: Format,
    output: str,
) -> PublishedTable:
    """Write the selected galaxies of some parts as one object.

    Args:
        root: URI of the table of galaxies.
        keys: Keys of its parts.
        selection: Columns and galaxies to publish.
        provenance: Provenance of the rows; the bundles are added to it.
        form: Format of the object.
        output: URI of the object, which replaces an existing one.

    Raises:
        UsageError: The selection or the format cannot represent the rows.
        FatalError: A part is missing or unreadable.
        OSError: The object, or the file in `TMPDIR`, cannot be written.
        TransientError: The store kept failing.
    """
    columns = described(selection.columns)
    with tempfile.TemporaryDirectory(prefix="gax-") as folder:
        spool, product = Path(folder) / "rows.parquet", Path(folder) / "product"
        seen, provenance = _spool(spool, root, keys, selection, columns, provenance)
        if form is Format.PARQUET:
            product = spool
        else:
            texts = {name: seen.texts.get(name, Text()) for name in _text_columns(columns)}
            with product.open("wb") as file, pq.ParquetFile(spool) as rows:
                batches = (rows.read_row_group(i) for i in range(rows.num_row_groups))
                if form is Format.CSV:
                    write_csv(file, columns, batches)
                elif form is Format.ECSV:
                    write_ecsv(file, columns, batches, provenance)
                else:
                    write = write_fits if form is Format.FITS else write_votable
                    write(file, columns, batches, provenance, seen.rows, texts)
        storage.upload(product, output)
    return PublishedTable(seen.rows, seen.without_position)


def write_csv(file: BinaryIO, columns: Sequence[Column], batches: Iterable[pa.Table]) -> None:
    """Write CSV with a line of column names. Missing values are empty."""
    file.write(",".join(column.name for column in columns).encode() + b"\n")
    _write_rows(file, batches)


def write_ecsv(
    file: BinaryIO, columns: Sequence[Column], batches: Iterable[pa.Table], provenance: TableProvenance
) -> None:
    """Write CSV with astropy's ECSV header: `#` lines of YAML with units and descriptions, then the names."""
    from astropy.table import Table

    head = Table()
    for column in columns:
        kind = str if pa.types.is_string(column.type) else column.type.to_pandas_dtype()
        head[column.name] = np.array([], kind)
        head[column.name].unit = column.unit or None
        head[column.name].description = column.description
        head[column.name].meta["ucd"] = column.ucd
    head.meta = {name: value for name, value, _ in provenance.items()}
    text = io.StringIO()
    head.write(text, format="ascii.ecsv", delimiter=",")
    file.write(text.getvalue().encode())
    _write_rows(file, batches)


def _write_rows(file: BinaryIO, batches: Iterable[pa.Table]) -> None:
    for batch in batches:
        pa_csv.write_csv(batch, file, pa_csv.WriteOptions(include_header=False))


def _spool(
    path: Path,
    root: str,
    keys: Sequence[str],
    selection: Selection,
    columns: Sequence[Column],
    provenance: TableProvenance,
) -> tuple[_RowStatistics, TableProvenance]:
    seen = _RowStatistics()
    schema = pa.schema([column.field for column in columns])
    plain = {"compression": "zstd", "compression_level": 3, "store_schema": False}
    with pq.ParquetWriter(path, schema, **plain) as writer:
        waiting: list[pa.Table] = []
        for rows in selection.read(root, keys, more=("ra", "dec", "bundle_id")):
            seen.add(rows)
            waiting.append(rows.select(selection.columns))
            if sum(map(len, waiting)) >= ROW_GROUP_ROWS:
                writer.write_table(pa.concat_tables(waiting).cast(schema), row_group_size=ROW_GROUP_ROWS)
                waiting.clear()
        rest = pa.concat_tables([schema.empty_table(), *(rows.cast(schema) for rows in waiting)])
        writer.write_table(rest, row_group_size=ROW_GROUP_ROWS)
        provenance = replace(provenance, bundle_ids=tuple(sorted(seen.bundle_ids)))
        widths = {name: seen.texts.get(name, Text()) for name in _text_columns(columns)}
        header = votable_header(columns, provenance, rows=seen.rows, texts=widths)
        # Astropy's own key for the width of text. Without it astropy warns about every column.
        lengths = {f"table::len::{name}": str(text.width) for name, text in widths.items()}
        writer.add_key_value_metadata(voparquet(header) | lengths)
    return seen, provenance


def _text_columns(columns: Sequence[Column]) -> list[str]:
    return [column.name for column in columns if pa.types.is_string(column.type)]


def _widest(text: Text, column: pa.ChunkedArray) -> Text:
    characters, size = pc.max(pc.utf8_length(column)).as_py() or 1, pc.max(pc.binary_length(column)).as_py()
    # In UTF-16, the encoding of VOTable's unicodeChar, rare characters take two code units.
    width = max(characters, (size or 1) // 2) if (size or 1) > characters else characters
    plain = pc.all(pc.equal(pc.utf8_length(column), pc.binary_length(column))).as_py() is not False
    return Text(max(text.width, width), text.ascii and plain)
