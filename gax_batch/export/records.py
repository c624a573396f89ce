"""Rows as fixed-width records, for FITS binary tables and for VOTables in BINARY2.

Both formats contain big-endian values one after the other. In both, missing numbers are NaN and missing text
is empty. BINARY2 also marks them as null.
"""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gax_batch.catalog.schema import Column
from gax_batch.errors import UsageError
from gax_batch.export.votable import TableProvenance, Text, votable_header

Records = npt.NDArray[np.void]

_FITS_BLOCK = 2880
_FORMATS = {pa.float32(): "E", pa.float64(): "D", pa.int32(): "J", pa.int64(): "K"}
_NUMBERS = {pa.float32(): ">f4", pa.float64(): ">f8", pa.int32(): ">i4", pa.int64(): ">i8"}


def write_votable(
    file: BinaryIO,
    columns: Sequence[Column],
    batches: Iterable[pa.Table],
    provenance: TableProvenance,
    rows: int,
    texts: Mapping[str, Text],
) -> None:
    """Write a VOTable 1.4 with its rows as BINARY2, one batch at a time."""
    header = votable_header(columns, provenance, rows=rows, texts=texts)
    before, end, after = header.rpartition("</TABLE>")
    file.write(f'{before}<DATA><BINARY2><STREAM encoding="base64">\n'.encode())
    left = b""
    for batch in batches:
        data = left + _with_nulls(batch, encode(batch, columns, texts)).tobytes()
        whole = len(data) - len(data) % 57  # a line of base64
        file.write(base64.encodebytes(data[:whole]))
        left = data[whole:]
    file.write(base64.encodebytes(left))
    file.write(f"</STREAM></BINARY2></DATA>{end}{after}".encode())


def write_fits(
    file: BinaryIO,
    columns: Sequence[Column],
    batches: Iterable[pa.Table],
    provenance: TableProvenance,
    rows: int,
    texts: Mapping[str, Text],
) -> None:
    """Write a FITS binary table, one batch at a time, which TOPCAT recognizes as fits-plus.

    The primary HDU contains a VOTable without rows (keyword `VOTMETA`). Units, UCDs and descriptions are also
    in the table's own header as TOPCAT writes them: `TUNITn`, `TUCDn` and `TCOMMn`.

    Raises:
        UsageError: Text is not ASCII, which FITS requires.
    """
    from astropy.io import fits

    for name, text in texts.items():
        if not text.ascii:
            raise UsageError(
                f"column {name} has text that is not ASCII, which FITS does not allow; omit it with "
                "--columns, or publish votable or parquet"
            )
    header = votable_header(columns, provenance, rows=rows, texts=texts)
    before, end, after = header.rpartition("</TABLE>")
    document = f'{before}<DATA><FITS extnum="1"/></DATA>{end}{after}'.encode("ascii", "xmlcharrefreplace")
    primary = fits.PrimaryHDU(np.frombuffer(document, np.uint8))
    primary.header["VOTMETA"] = (True, "table metadata in VOTable format")
    primary.header["EXTEND"] = True
    primary.writeto(file)
    file.write(_table_header(columns, provenance, rows, texts).tostring().encode("ascii"))
    written = 0
    for batch in batches:
        written += file.write(encode(batch, columns, texts).tobytes())
    file.write(b"\0" * (-written % _FITS_BLOCK))


def encode(batch: pa.Table, columns: Sequence[Column], texts: Mapping[str, Text]) -> Records:
    """Return rows as packed big-endian records `[N]`. Text is padded with zeros to its column's width."""
    fields = [(column.name, _storage(column, texts)) for column in columns]
    records = np.zeros(len(batch), fields)
    for column in columns:
        values = batch[column.name]
        if column.name not in texts:
            missing = np.nan if pa.types.is_floating(column.type) else 0
            records[column.name] = pc.fill_null(values, missing).to_numpy()
            continue
        encoding = "ascii" if texts[column.name].ascii else "utf-16-be"
        records[column.name] = [(value or "").encode(encoding) for value in values.to_pylist()]
    return records


def _storage(column: Column, texts: Mapping[str, Text]) -> str:
    text = texts.get(column.name)
    return _NUMBERS[column.type] if text is None else f"S{text.width * (1 if text.ascii else 2)}"


def _with_nulls(batch: pa.Table, records: Records) -> npt.NDArray[np.uint8]:
    """Return BINARY2 rows as bytes `[N, bytes]`: a bit per column, set if it is null, then the values."""
    nulls = np.stack([batch[name].is_null().to_numpy() for name in records.dtype.names or ()], axis=1)
    values = records.view(np.uint8).reshape(len(records), records.dtype.itemsize)
    return np.concatenate([np.packbits(nulls, axis=1), values], axis=1)


def _table_header(
    columns: Sequence[Column], provenance: TableProvenance, rows: int, texts: Mapping[str, Text]
) -> Any:
    from astropy.io import fits

    made = [
        fits.Column(
            column.name,
            _FORMATS[column.type] if column.name not in texts else f"{texts[column.name].width}A",
            unit=column.unit or None,
        )
        for column in columns
    ]
    header = fits.BinTableHDU.from_columns(made, nrows=0, name="galaxies").header
    header["NAXIS2"] = rows
    for number, column in enumerate(columns, 1):
        header.set(f"TUCD{number}", column.ucd, "UCD", after=f"TFORM{number}")
        header.set(f"TCOMM{number}", _ascii(column.description), after=f"TUCD{number}")
    for keyword, (_, value, _) in zip(_keywords(provenance), provenance.items(), strict=True):
        header[keyword] = _ascii(value)
    return header


def _keywords(provenance: TableProvenance) -> Iterator[str]:
    short = {"bundle_id": "BUNDLEID", "selection": "SELECT", "published": "DATE"}
    for name, _, _ in provenance.items():
        yield short.get(name, name.upper())


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()
