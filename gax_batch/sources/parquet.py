"""One Parquet shard: many cutouts in one object, with their ids and, if known, positions.

A row's image is encoded bytes (plain, or the `bytes` of a struct) or a raw tensor: 12,288 bytes that are
`uint8 [64, 64, 3]`, nested lists, or the extension types in which Arrow and Ray write tensors.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gax_batch import storage
from gax_batch.errors import FatalError, UsageError
from gax_batch.sources.base import MEMBER_SCHEMA, with_columns
from gax_batch.sources.tensors import CellReader, Receiver, finished_cutouts, image_column
from gax_batch.storage import ObjectInfo

SUFFIXES = (".parquet", ".pq")

_LISTED_ROWS = 65_536
_BATCH_ROWS = 128
_STREAM_BYTES = 4 * 1024 * 1024


def read_rows(info: ObjectInfo, rows: npt.NDArray[np.int64], receiver: Receiver) -> None:
    """Read some rows' images from one shard.

    Only the row groups that hold them are read, a few rows at a time.

    Args:
        info: The shard, of the version that was listed.
        rows: Row numbers, increasing.
        receiver: Takes the images by their index in `rows`.

    Raises:
        TransientError: The store kept failing.
        FatalError: The shard cannot be read.
    """
    try:
        with _opened(info.uri) as file:
            column = image_column(file.schema_arrow, info.uri)
            _read_groups(file, column, rows, receiver)
    except (pa.ArrowException, OSError, UsageError) as error:
        line = str(error).strip().partition("\n")[0]
        raise FatalError(f"shard {info.uri} cannot be read: {line}") from error


def _read_groups(file: pq.ParquetFile, column: str, rows: npt.NDArray[np.int64], receiver: Receiver) -> None:
    lengths = [file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)]
    ends = np.cumsum(lengths, dtype=np.int64)
    cells = CellReader(file.schema_arrow.field(column))
    groups = np.unique(np.searchsorted(ends, rows, side="right")).tolist()
    if groups and groups[-1] >= len(lengths):
        raise OSError(f"it has {ends[-1] if len(ends) else 0} rows, row {rows[-1]} was listed")
    for group in groups:
        start = int(ends[group]) - lengths[group]
        for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[column]):
            stop = start + batch.num_rows
            first, last = np.searchsorted(rows, [start, stop]).tolist()
            cutouts = finished_cutouts(batch.column(0))
            if cutouts is not None:
                whole = last - first == len(cutouts)  # then nothing is copied
                receiver.take_cutouts(first, cutouts if whole else cutouts[rows[first:last] - start])
            else:
                for index in range(first, last):
                    receiver.take(index, cells.read(batch.column(0), int(rows[index]) - start))
            start = stop
            if last == len(rows):
                return


@contextmanager
def _opened(uri: str) -> Iterator[pq.ParquetFile]:
    # Streamed, not pre-buffered: a row group may be larger than memory.
    with storage.open_binary(uri) as binary:
        yield pq.ParquetFile(binary, buffer_size=_STREAM_BYTES, pre_buffer=False)


def list_rows(info: ObjectInfo) -> Iterator[pa.Table]:
    """List the rows of a shard, a batch at a time, reading no image.

    Yields:
        `MEMBER_SCHEMA`.

    Raises:
        UsageError: It is no Parquet file with the columns that are needed.
        TransientError: The store kept failing.
    """
    try:
        with _opened(info.uri) as file:
            image = image_column(file.schema_arrow, info.uri)
            size = _row_bytes(file.metadata, image)
            start = 0
            for batch in file.iter_batches(_LISTED_ROWS, columns=_listed_columns(info, file.schema_arrow)):
                yield _members_of(info, pa.Table.from_batches([batch]), start, size)
                start += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        line = str(error).strip().partition("\n")[0]
        raise UsageError(f"{info.uri} is no readable Parquet file ({line}); repair or remove it") from None


def _listed_columns(info: ObjectInfo, schema: pa.Schema) -> list[str]:
    if "galaxy_id" not in schema.names:
        names = ", ".join(schema.names)
        raise UsageError(f"{info.uri} has no column galaxy_id; it has {names}: rename one of them")
    return [name for name in ("galaxy_id", "ra", "dec") if name in schema.names]


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


def _row_bytes(metadata: pq.FileMetaData, column: str) -> int:
    """The mean size of a row's image in memory, from the footer."""
    total: int = 0
    for group in range(metadata.num_row_groups):
        chunks = metadata.row_group(group)
        for index in range(chunks.num_columns):
            chunk = chunks.column(index)
            if chunk.path_in_schema.split(".")[0] == column:
                total += chunk.total_uncompressed_size
    return total // max(int(metadata.num_rows), 1)
