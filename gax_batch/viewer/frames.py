"""Convert rows of a catalog for Astropy and pandas, and names and values to HTML."""

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gax_batch.export.selection import described

if TYPE_CHECKING:
    from astropy.table import Table


def astropy_table(rows: pa.Table, meta: Mapping[str, Any]) -> "Table":
    """Return columns of a catalog as an Astropy table with units, descriptions and UCDs.

    Args:
        rows: Table of N rows with columns of a catalog.
        meta: Metadata of the table.
    """
    from astropy.table import Table

    table = Table({name: _plain(rows[name]) for name in rows.column_names}, meta=dict(meta))
    for column in described(rows.column_names):
        table[column.name].description = column.description
        table[column.name].unit = column.unit or None
        table[column.name].meta["ucd"] = column.ucd
    return table


def arrow_type(kind: pa.DataType) -> Any:
    """Return the pandas type of an Arrow type."""
    import pandas as pd

    return pd.ArrowDtype(kind)


def html_table(facts: Mapping[str, str]) -> str:
    """Return an HTML table of names and values."""
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td style='text-align: left'>{html.escape(value)}</td></tr>"
        for name, value in facts.items()
    )
    return f"<table>{rows}</table>"


def _plain(values: pa.ChunkedArray) -> Any:
    """Return an array for a column of Astropy, which is masked if there are nulls."""
    text = pa.types.is_string(values.type)
    mask = pc.is_null(values).to_numpy()
    filled = pc.fill_null(values, pa.scalar("" if text else 0, values.type)).to_numpy()
    filled = filled.astype(str) if text else filled
    return np.ma.array(filled, mask=mask) if mask.any() else filled
