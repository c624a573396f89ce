"""Arrow tables and records as single cells, so that one row of a table can hold a whole unit.

Ray Data does not call functions for blocks without rows, and a unit that failed has none: each block has
exactly one row instead. A nested table shares its buffers with the original, so that no pixels are copied.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa


def record_cell(values: Mapping[str, Any]) -> pa.Array:
    """Return a column of one struct; the types of the fields follow from the values."""
    return pa.array([values])


def record_of(column: pa.ChunkedArray) -> dict[str, Any]:
    """Return the values of a column of `record_cell`."""
    (values,) = column.to_pylist()
    return dict(values)


def table_cell(table: pa.Table) -> pa.Array:
    """Return a column of one cell that holds a table: a list of structs, without metadata of the schema."""
    columns = [single_array(column) for column in table.columns]
    rows = pa.StructArray.from_arrays(columns, fields=list(table.schema))
    # Large: a unit may have more than 2**31 values.
    return pa.LargeListArray.from_arrays(pa.array([0, len(table)], pa.int64()), rows)


def table_of(column: pa.ChunkedArray) -> pa.Table:
    """Return the table in a column of `table_cell`."""
    return pa.Table.from_struct_array(single_array(column).flatten())


def single_array(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array. `combine_chunks` copies even a single chunk, 50 MB of a unit's pixels."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
