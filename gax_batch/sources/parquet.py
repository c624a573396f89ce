"""A Parquet shard: many cutouts in one object, with their ids and, if known, positions.

The image of a row is encoded bytes (plain, or the `bytes` of a struct, as of Hugging Face) or a raw tensor:
12,288 bytes that are `uint8 [64, 64, 3]`, nested lists (pandas, Polars, DuckDB), or an extension type of
tensors (Arrow, Ray).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gax_batch import storage
from gax_batch.errors import FatalError, UsageError
from gax_batch.imaging.limits import ListingLimits
from gax_batch.rejects import Reason, RejectError, Stage
from gax_batch.sources.base import DEFAULT_LIMITS, MEMBER_SCHEMA, with_columns
from gax_batch.sources.tensors import CellReader, Receiver, finished_cutouts, image_column
from gax_batch.storage import ObjectInfo

SUFFIXES = (".parquet", ".pq")

_LISTED_ROWS = 65_536
_BATCH_ROWS = 128
_STREAM_BYTES = 4 * 1024 * 1024
_MAX_FOOTER_BYTES = 64 * 1024 * 1024
# What pyarrow raises of damaged files; names and ids that are not UTF-8 are a ValueError.
_DAMAGE = (pa.ArrowException, OSError, ValueError, LookupError, TypeError, ArithmeticError)


def read_rows(info: ObjectInfo, rows: npt.NDArray[np.int64], receiver: Receiver, *, max_bytes: int) -> None:
    """Read some rows' images from one shard.

    Only the row groups that hold them are read, a few rows at a time.

    Args:
        info: The shard, of the version that was listed.
        rows: Row numbers, increasing.
        receiver: Takes the images by their index in `rows`.
        max_bytes: Larger encoded images are rejected.

    Raises:
        TransientError: The store kept failing.
        FatalError: The shard cannot be read.
    """
    try:
        with _opened(info.uri) as file:
            column = image_column(file.schema_arrow, info.uri)
            _read_groups(file, column, rows, receiver, max_bytes)
    except (*_DAMAGE, UsageError) as error:
        line = str(error).strip().partition("\n")[0]
        raise FatalError(f"shard {info.uri} cannot be read: {line}") from error


def _read_groups(
    file: pq.ParquetFile, column: str, rows: npt.NDArray[np.int64], receiver: Receiver, max_bytes: int
) -> None:
    lengths = [file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)]
    ends = np.cumsum(lengths, dtype=np.int64)
    taker = _Taker(rows, CellReader(file.schema_arrow.field(column), max_bytes), receiver)
    groups = np.unique(np.searchsorted(ends, rows, side="right")).tolist()
    if groups and groups[-1] >= len(lengths):
        raise OSError(f"it has {ends[-1] if len(ends) else 0} rows, row {rows[-1]} was listed")
    for group in groups:
        for at_once in (_BATCH_ROWS, 1):  # rows that are too large together may do one by one
            try:
                _read_group(file, group, column, int(ends[group]) - lengths[group], at_once, taker)
                break
            except MemoryError:
                continue
        else:
            taker.reject(int(ends[group]))


def _read_group(
    file: pq.ParquetFile, group: int, column: str, start: int, at_once: int, taker: "_Taker"
) -> None:
    for batch in file.iter_batches(at_once, row_groups=[group], columns=[column]):
        taker.take(batch.column(0), start)
        start += batch.num_rows
        if taker.done:
            return


class _Taker:
    """Hands over the rows that are wanted, each once, however often they are read."""

    def __init__(self, rows: npt.NDArray[np.int64], cells: CellReader, receiver: Receiver) -> None:
        self._rows = rows
        self._cells = cells
        self._receiver = receiver
        self._taken = 0

    @property
    def done(self) -> bool:
        """Whether no more are wanted."""
        return self._taken == len(self._rows)

    def take(self, column: pa.Array, start: int) -> None:
        """Take the images of rows from `start` on."""
        first, last = np.searchsorted(self._rows, [start, start + len(column)]).tolist()
        first = max(first, self._taken)
        cutouts = finished_cutouts(column) if first < last else None
        if cutouts is not None:
            whole = last - first == len(cutouts)  # then nothing is copied
            wanted = cutouts if whole else cutouts[self._rows[first:last] - start]
            self._receiver.take_cutouts(first, wanted)
            self._taken = last
        for index in range(self._taken, last):
            self._receiver.take(index, self._cells.read(column, int(self._rows[index]) - start))
            self._taken = index + 1

    def reject(self, end: int) -> None:
        """Reject the rows before `end`: rows of a group that exceeds the memory cannot be distinguished."""
        last = int(np.searchsorted(self._rows, end))
        detail = "reading its row group takes more memory than the limit"
        for index in range(self._taken, last):
            self._receiver.take(index, RejectError(Stage.READ, Reason.DECOMPRESSION_BOMB, detail))
        self._taken = last


@contextmanager
def _opened(uri: str) -> Iterator[pq.ParquetFile]:
    # Streamed, not pre-buffered: a row group may be larger than memory.
    with storage.open_binary(uri) as binary:
        _check_footer(binary)
        metadata = pq.read_metadata(binary)
        # Ids stay in their dictionary, so that one of a megabyte is not unpacked once for each row.
        ids = [name for name in ("galaxy_id",) if name in metadata.schema.names]
        yield pq.ParquetFile(
            binary, metadata=metadata, buffer_size=_STREAM_BYTES, pre_buffer=False, read_dictionary=ids
        )


def _check_footer(file: BinaryIO) -> None:
    """Refuse a footer of gigabytes, which is read as a whole."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 8))
    tail = file.read(8)
    length = int.from_bytes(tail[:4], "little")
    if length > _MAX_FOOTER_BYTES:
        raise OSError(f"its footer has {length} bytes, the limit is {_MAX_FOOTER_BYTES}")
    file.seek(0)


def list_rows(info: ObjectInfo, limits: ListingLimits = DEFAULT_LIMITS) -> Iterator[pa.Table]:
    """List the rows of a shard, a batch at a time, reading no image.

    Args:
        info: The shard.
        limits: How many rows it may have, and how long ids may be: longer ones are cut.

    Yields:
        `MEMBER_SCHEMA`.

    Raises:
        UsageError: It is not a Parquet file with the required columns, or has too many rows.
        TransientError: The store kept failing.
    """
    try:
        with _opened(info.uri) as file:
            if file.metadata.num_rows > limits.shard_members:
                raise UsageError(
                    f"{info.uri} has {file.metadata.num_rows} rows; split it, or raise --max-shard-members "
                    f"above {limits.shard_members}"
                )
            image_column(file.schema_arrow, info.uri)
            size = _row_bytes(file.metadata)
            start = 0
            for batch in file.iter_batches(_LISTED_ROWS, columns=_listed_columns(info, file.schema_arrow)):
                batch.validate(full=True)
                rows = _cut_ids(pa.Table.from_batches([batch]), limits.id_characters)
                yield _members_of(info, rows, start, size)
                start += batch.num_rows
    except _DAMAGE as error:
        line = str(error).strip().partition("\n")[0]
        raise UsageError(f"{info.uri} is not a readable Parquet file ({line}); repair or remove it") from None


def _listed_columns(info: ObjectInfo, schema: pa.Schema) -> list[str]:
    if "galaxy_id" not in schema.names:
        names = ", ".join(schema.names)
        raise UsageError(f"{info.uri} has no column galaxy_id; it has {names}: rename one of them")
    return [name for name in ("galaxy_id", "ra", "dec") if name in schema.names]


def _cut_ids(rows: pa.Table, most: int) -> pa.Table:
    """Ids cut to one character too many, and out of their dictionary."""
    kind = rows["galaxy_id"].type
    if not pa.types.is_dictionary(kind) or not pa.types.is_string(kind.value_type):
        return rows
    chunks = [
        pa.DictionaryArray.from_arrays(
            chunk.indices, pc.utf8_slice_codeunits(chunk.dictionary, 0, most + 1)
        ).dictionary_decode()
        for chunk in rows["galaxy_id"].chunks
    ]
    return rows.set_column(
        rows.column_names.index("galaxy_id"), "galaxy_id", pa.chunked_array(chunks, pa.string())
    )


def _members_of(info: ObjectInfo, rows: pa.Table, start: int, size: int) -> pa.Table:
    count = len(rows)
    columns = {name: _cast(info.uri, name, rows[name]) for name in rows.column_names}
    numbers = pa.array(np.arange(start, start + count, dtype=np.int64))
    # Padded, so that rows in the order of their URIs are in the order of the file.
    padded = pc.utf8_lpad(pc.cast(numbers, pa.string()), 9, "0")
    columns |= {
        "source_uri": pc.binary_join_element_wise(f"{info.uri}#row=", padded, ""),
        "source_version": pa.array([info.version] * count, pa.string()),
        "object_uri": pa.array([info.uri] * count, pa.string()),
        "row": numbers,
        "size": pa.array([size] * count, pa.int64()),
    }
    return with_columns(columns, count)


def _cast(uri: str, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    wanted = MEMBER_SCHEMA.field(name).type
    if wanted == pa.float64() or not pa.types.is_floating(column.type):
        try:
            return pc.cast(column, wanted)
        except pa.ArrowException:
            pass
    need = "degrees" if wanted == pa.float64() else "integers or strings"
    raise UsageError(f"{uri}: column {name} is {column.type}; it must be {need}")


def _row_bytes(metadata: pq.FileMetaData) -> int:
    """The mean size of a row in memory, from the footer."""
    # Of row groups: to ask for a damaged column's metadata ends the process (pyarrow 26).
    total = sum(int(metadata.row_group(group).total_byte_size) for group in range(metadata.num_row_groups))
    return max(0, total) // max(int(metadata.num_rows), 1)
