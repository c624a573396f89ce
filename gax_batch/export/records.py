"""Rows as fixed-width records, for FITS binary tables and for VOTables in BINARY2.

Both formats contain big-endian values one after the other. In both, missing numbers are NaN and missing text
is empty. BINARY2 also marks them as null.
"""

import base64
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gax_batch.catalog.schema import Column
from gax_batch.errors import UsageError
from gax_batch.export.fits_checksum import ChecksumStream, reserve_checksums, with_checksums
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
    """Write a VOTable with its rows as BINARY2, one batch at a time."""
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
    """Write a FITS binary table with checksums, one batch at a time, which TOPCAT recognizes as fits-plus.

    The primary HDU contains a VOTable without rows (keyword `VOTMETA`). Units, UCDs and descriptions are also
    in the table's own header as TOPCAT writes them: `TUNITn`, `TUCDn` and `TCOMMn`.

    Args:
        file: Seekable file, because the header is rewritten once the checksum of the rows is known.
        columns: Columns in their order.
        batches: Rows, `rows` of them in total.
        provenance: Provenance of the rows; each fact becomes one keyword.
        rows: Number of rows.
        texts: Widths of text columns.

    Raises:
        UsageError: Text is not ASCII, which FITS requires.
    """
    for name, text in texts.items():
        if not text.ascii:
            raise UsageError(
                f"column {name} has text that is not ASCII, which FITS does not allow; omit it with "
                "--columns, or publish votable or parquet"
            )
    # STIL refuses a TABLE with a DATA element there.
    document = votable_header(columns, provenance, rows=rows, texts=texts)
    file.write(_primary(document.encode("ascii", "xmlcharrefreplace")))
    table = _table_header(columns, provenance, rows, texts)
    start = file.tell()
    file.write(table.tostring().encode("ascii"))
    written, data_sum = 0, ChecksumStream()
    for batch in batches:
        data = encode(batch, columns, texts).tobytes()
        data_sum.add(data)
        written += file.write(data)
    file.write(b"\0" * (-written % _FITS_BLOCK))
    # The sums are known only now. The length of the header does not change.
    file.seek(start)
    file.write(with_checksums(table, data_sum.total).tostring().encode("ascii"))
    file.seek(0, io.SEEK_END)


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


def _primary(document: bytes) -> bytes:
    """Return the primary HDU of a document."""
    from astropy.io import fits

    header = fits.PrimaryHDU(np.frombuffer(document, np.uint8)).header
    # STIL recognizes fits-plus only if VOTMETA is the fifth card. Astropy places EXTEND there, which the
    # FITS standard does not require.
    header.remove("EXTEND", ignore_missing=True)
    header.set("VOTMETA", True, "table metadata in VOTable format", after="NAXIS1")
    reserve_checksums(header)
    data_sum = ChecksumStream()
    data_sum.add(document)
    card_bytes: bytes = with_checksums(header, data_sum.total).tostring().encode("ascii")
    return card_bytes + document + b"\0" * (-len(document) % _FITS_BLOCK)


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
    if {"ra", "dec"} & {column.name for column in columns}:
        header["RADESYS"] = ("ICRS", "reference frame of ra and dec")
    header["LONGSTRN"] = ("OGIP 1.0", "long strings continue in CONTINUE cards")
    reserve_checksums(header)
    return header


def _keywords(provenance: TableProvenance) -> Iterator[str]:
    short = {
        "bundle_id": "BUNDLEID",
        "selection": "SELECT",
        "published": "DATE",
        # The FITS standard reserves this keyword for a citation.
        "reference": "REFERENC",
    }
    for name, _, _ in provenance.items():
        yield short.get(name, name.upper())


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()
