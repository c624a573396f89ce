"""A table of positions, joined to members by galaxy id."""

import csv
import gzip
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from gax_batch import storage
from gax_batch.errors import UsageError

ID_COLUMNS = ("galaxy_id", "galaxyid", "objid", "asset_id", "id")
_GZIP = b"\x1f\x8b"
_FORMATS = {
    "csv": (".csv",),
    "parquet": (".parquet", ".pq"),
    "fits": (".fits", ".fit"),
    "votable": (".vot", ".votable", ".xml"),
}


@dataclass(frozen=True, slots=True)
class Positions:
    """Distinct galaxy ids and their positions.

    Attributes:
        ids: String `[N]`.
        ra: Right ascension, float64 `[N]`, degrees ICRS; null or NaN where unknown.
        dec: Declination, likewise.
    """

    ids: pa.Array
    ra: pa.Array
    dec: pa.Array

    def join(self, members: pa.Table) -> pa.Table:
        """Give members the positions of their ids; the others keep what they have."""
        index = pc.index_in(members["galaxy_id"], value_set=self.ids, skip_nulls=True)
        for name, known in (("ra", self.ra), ("dec", self.dec)):
            values = pc.if_else(pc.is_valid(index), pc.take(known, index), members[name])
            members = members.set_column(
                members.schema.get_field_index(name), members.schema.field(name), values
            )
        return members


def read_positions(uri: str) -> Positions:
    """Read a CSV, Parquet, FITS or VOTable table (or gzipped) with an id, `ra` and `dec` column.

    Args:
        uri: Where the table is. The id column is the first of `galaxy_id`, `GalaxyID`, `objid`,
            `asset_id`, `id` that it has, in any case; ids are read as text. Positions are in degrees.

    Raises:
        UsageError: It is missing, unreadable, lacks a column, has numbers with a fraction for ids, or gives
            two positions for one galaxy.
    """
    table = _read(uri)
    wanted = _wanted_columns(uri, table.column_names)
    keys = _plain(table[wanted[0]])
    if pa.types.is_floating(keys.type):  # 587722981736054938 would be 5.87722981736055e17
        raise UsageError(f"{uri}: column {wanted[0]} is {keys.type}; it must be integers or strings")
    try:
        ids = pc.utf8_trim_whitespace(pc.cast(keys, pa.string()))
        ra, dec = (pc.cast(_plain(table[name]), pa.float64()) for name in wanted[1:])
    except pa.ArrowException as error:
        line = str(error).partition("\n")[0]
        raise UsageError(f"{uri}: column {wanted} cannot be used: {line}; ra and dec are degrees") from None
    return _distinct(uri, ids, ra, dec)


def _plain(column: pa.ChunkedArray) -> pa.Array:
    column = column.combine_chunks()
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _wanted_columns(uri: str, names: Sequence[str]) -> tuple[str, str, str]:
    by_lower = {name.strip().lower(): name for name in reversed(names)}
    found = [
        next((by_lower[n] for n in choice if n in by_lower), None)
        for choice in (ID_COLUMNS, ("ra",), ("dec",))
    ]
    if found[0] is None or found[1] is None or found[2] is None:
        raise UsageError(
            f"{uri} needs a column galaxy_id (or {', '.join(ID_COLUMNS[1:])}), ra and dec; "
            f"it has {', '.join(names) or 'none'}"
        )
    return found[0], found[1], found[2]


def _distinct(uri: str, ids: pa.Array, ra: pa.Array, dec: pa.Array) -> Positions:
    _, first, inverse = np.unique(
        pc.fill_null(ids.dictionary_encode().indices, -1).to_numpy(zero_copy_only=False),
        return_index=True,
        return_inverse=True,
    )
    for column in (ra, dec):
        values = column.to_numpy(zero_copy_only=False)
        same = (values == values[first][inverse]) | (np.isnan(values) & np.isnan(values[first][inverse]))
        conflicts = np.flatnonzero(~same & ids.is_valid().to_numpy(zero_copy_only=False))
        if len(conflicts):
            raise UsageError(
                f"{uri} gives galaxy {ids[int(conflicts[0])].as_py()} two positions; keep one row per galaxy"
            )
    return Positions(ids.take(pa.array(first)), ra.take(pa.array(first)), dec.take(pa.array(first)))


def _read(uri: str) -> pa.Table:
    name = uri.lower().removesuffix(".gz")
    kind = next((k for k, suffixes in _FORMATS.items() if name.endswith(suffixes)), None)
    if kind is None:
        known = ", ".join(suffix for suffixes in _FORMATS.values() for suffix in suffixes)
        raise UsageError(f"{uri} is no table of a known format; its name must end in one of {known}")
    try:
        data = storage.read_bytes(storage.normalize_uri(uri))
    except OSError as error:
        raise UsageError(f"the position table {uri} cannot be read: {error.strerror or error}") from None
    try:
        if data.startswith(_GZIP):
            data = gzip.decompress(data)
        if kind == "csv":
            return _read_csv(uri, data)
        return pq.read_table(pa.BufferReader(data)) if kind == "parquet" else _read_astropy(data, kind)
    except (pa.ArrowException, OSError, EOFError, ValueError, LookupError, TypeError) as error:
        line = str(error).strip().partition("\n")[0]
        raise UsageError(f"the position table {uri} is no readable {kind} table: {line}") from None


def _read_csv(uri: str, data: bytes) -> pa.Table:
    header = data[: data.find(b"\n") if b"\n" in data else None].decode("utf-8-sig", errors="replace")
    names = next(csv.reader([header.rstrip("\r")]), [])
    key, ra, dec = _wanted_columns(uri, names)
    # Ids stay text: 0012 is not 12, and 19 digits do not fit a float.
    options = pa_csv.ConvertOptions(
        include_columns=[key, ra, dec],
        column_types={key: pa.string(), ra: pa.float64(), dec: pa.float64()},
        strings_can_be_null=True,
    )
    return pa_csv.read_csv(pa.BufferReader(data), convert_options=options)


def _read_astropy(data: bytes, kind: str) -> pa.Table:
    from astropy.table import Table  # takes a second to import, and few runs need it

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # real files break the standards in ways that do not matter here
        table = Table.read(io.BytesIO(data), format=kind)
    return pa.table(
        {name: _of_astropy(name, table[name]) for name in table.colnames if table[name].ndim == 1}
    )


def _of_astropy(name: str, column: Any) -> pa.Array:
    unit = str(getattr(column, "unit", None) or "deg")
    if name.lower() in ("ra", "dec") and unit not in ("deg", "degree"):
        raise ValueError(f"column {name} is in {unit}, not degrees")
    mask: npt.NDArray[np.bool_] | None = getattr(column, "mask", None)
    values = np.asarray(column)
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    if values.dtype.kind in "OU":
        return pa.array([None if v is None else str(v) for v in values.tolist()], pa.string())
    return pa.array(values.astype(values.dtype.newbyteorder("=")), mask=mask)
