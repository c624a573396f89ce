"""A table of positions, which the plan joins to members by galaxy id."""

import csv
import gzip
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from gax_batch import storage
from gax_batch.errors import UsageError
from gax_batch.sources.base import POSITION_SCHEMA

ID_COLUMNS = ("galaxy_id", "galaxyid", "objid", "asset_id", "id")
RADIUS_COLUMNS = ("radius", "petror90", "petror90_r", "petrorad90", "r90")
_NO_NUMBER = pa.scalar(None, pa.float64())
_GZIP = b"\x1f\x8b"
_FORMATS = {
    "csv": (".csv",),
    "parquet": (".parquet", ".pq"),
    "fits": (".fits", ".fit"),
    "votable": (".vot", ".votable", ".xml"),
}


def read_positions(uri: str, *, all_ids: bool = True) -> Iterator[pa.Table]:
    """Read a CSV, Parquet, FITS or VOTable table, gzipped or not, with an id, `ra` and `dec` column.

    CSV and Parquet are read in batches, FITS and VOTable as a whole.

    Args:
        uri: Path or URI of the table. Its id columns are those named `galaxy_id`, `GalaxyID`, `objid`,
            `asset_id` or `id`, in any case. Ids are read as text. Positions are in degrees ICRS, null or NaN
            if unknown. The Petrosian R90 in arcseconds is the first column of `radius`, `petroR90`,
            `petroR90_r`, `petroRad90`, `R90`.
        all_ids: Read the table once for each of its id columns, instead of only for the first of them in the
            order above.

    Yields:
        `POSITION_SCHEMA`: a batch of rows by one of the id columns.

    Raises:
        UsageError: The table is missing, cannot be read, lacks a column, or has only ids with a fraction.
    """
    name = uri.lower().removesuffix(".gz")
    kind = next((k for k, suffixes in _FORMATS.items() if name.endswith(suffixes)), None)
    if kind is None:
        known = ", ".join(suffix for suffixes in _FORMATS.values() for suffix in suffixes)
        raise UsageError(f"{uri} is not a table of a known format; its name must end in one of {known}")
    try:
        file = storage.open_binary(storage.normalize_uri(uri))
    except OSError as error:
        raise UsageError(f"the position table {uri} cannot be read: {error.strerror or error}") from None
    try:
        with file:
            for table in _READERS[kind](uri, _unzipped(file)):
                yield from _positions(uri, table, all_ids=all_ids)
    except (pa.ArrowException, OSError, EOFError, ValueError, LookupError, TypeError) as error:
        line = str(error).strip().partition("\n")[0]
        raise UsageError(f"the position table {uri} is not a readable {kind} table: {line}") from None


def _unzipped(file: BinaryIO) -> BinaryIO:
    magic = file.read(len(_GZIP))
    file.seek(0)
    return cast(BinaryIO, gzip.open(file)) if magic == _GZIP else file


def _positions(uri: str, table: pa.Table, *, all_ids: bool) -> Iterator[pa.Table]:
    keys, *places = _wanted_columns(uri, table.column_names)
    keys = keys if all_ids else keys[:1]
    # 587722981736054938 would be 5.87722981736055e17
    exact = [key for key in keys if not pa.types.is_floating(_plain(table[key]).type)]
    if not exact:
        kind = _plain(table[keys[0]]).type
        raise UsageError(f"{uri}: column {keys[0]} is {kind}; it must be integers or strings")
    try:
        ra, dec = (pc.cast(_plain(table[name]), pa.float64()) for name in places)
    except pa.ArrowException as error:
        line = str(error).partition("\n")[0]
        raise UsageError(f"{uri}: column {places} cannot be used: {line}; ra and dec are degrees") from None
    ra, dec = (pc.if_else(pc.is_nan(values), _NO_NUMBER, values) for values in (ra, dec))
    radius = _radius(uri, table)
    for key in exact:
        ids = pc.utf8_trim_whitespace(pc.cast(_plain(table[key]), pa.string()))
        names = pa.repeat(key.strip(), len(table))
        yield pa.table([ids, ra, dec, radius, names], schema=POSITION_SCHEMA)


def _radius_columns(names: Sequence[str]) -> list[str]:
    """Return the name of the column of radii, in a list that is empty without one."""
    return [name for name in names if name.strip().lower() in RADIUS_COLUMNS][:1]


def _radius(uri: str, table: pa.Table) -> pa.Array:
    found = _radius_columns(table.column_names)
    if not found:
        return pa.nulls(len(table), pa.float64())
    name = found[0]
    try:
        radius = pc.cast(_plain(table[name]), pa.float64())
    except pa.ArrowException:
        raise UsageError(f"{uri}: column {name} is {table[name].type}; it must be arcseconds") from None
    return pc.if_else(pc.is_nan(radius), _NO_NUMBER, radius)


def _plain(column: pa.ChunkedArray) -> pa.Array:
    column = column.combine_chunks()
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _wanted_columns(uri: str, names: Sequence[str]) -> tuple[list[str], str, str]:
    by_lower = {name.strip().lower(): name for name in reversed(names)}
    keys = [by_lower[name] for name in ID_COLUMNS if name in by_lower]
    if not (keys and "ra" in by_lower and "dec" in by_lower):
        raise UsageError(
            f"{uri} needs a column galaxy_id (or {', '.join(ID_COLUMNS[1:])}), ra and dec; "
            f"it has {', '.join(names) or 'none'}"
        )
    return keys, by_lower["ra"], by_lower["dec"]


def _read_csv(uri: str, file: BinaryIO) -> Iterator[pa.Table]:
    header = file.readline().decode("utf-8-sig", errors="replace").rstrip("\r\n")
    file.seek(0)
    names = next(csv.reader([header]), [])
    keys, ra, dec = _wanted_columns(uri, names)
    radius = _radius_columns(names)
    # Keep ids as text: 0012 is not 12, and 19 digits do not fit a float.
    options = pa_csv.ConvertOptions(
        include_columns=[*keys, ra, dec, *radius],
        column_types=dict.fromkeys(keys, pa.string()) | dict.fromkeys([ra, dec, *radius], pa.float64()),
        strings_can_be_null=True,
    )
    for batch in pa_csv.open_csv(file, convert_options=options):
        yield pa.Table.from_batches([batch])


def _read_parquet(uri: str, file: BinaryIO) -> Iterator[pa.Table]:
    parquet = pq.ParquetFile(file)
    names = parquet.schema_arrow.names
    keys, ra, dec = _wanted_columns(uri, names)
    for batch in parquet.iter_batches(columns=[*keys, ra, dec, *_radius_columns(names)]):
        yield pa.Table.from_batches([batch])


def _read_fits(uri: str, file: BinaryIO) -> Iterator[pa.Table]:
    yield _read_astropy(file.read(), "fits")


def _read_votable(uri: str, file: BinaryIO) -> Iterator[pa.Table]:
    yield _read_astropy(file.read(), "votable")


_READERS: dict[str, Callable[[str, BinaryIO], Iterator[pa.Table]]] = {
    "csv": _read_csv,
    "parquet": _read_parquet,
    "fits": _read_fits,
    "votable": _read_votable,
}


def _read_astropy(data: bytes, kind: str) -> pa.Table:
    from astropy.table import Table  # its import takes a second, and few runs need it

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # real files violate the standards in ways that do not matter here
        table = Table.read(io.BytesIO(data), format=kind)
    return pa.table(
        {name: _of_astropy(name, table[name]) for name in table.colnames if table[name].ndim == 1}
    )


def _of_astropy(name: str, column: Any) -> pa.Array:
    unit = str(getattr(column, "unit", None) or "deg")
    if name.lower() in ("ra", "dec") and unit not in ("deg", "degree"):
        raise ValueError(f"the unit of column {name} is {unit}, not degrees")
    mask: npt.NDArray[np.bool_] | None = getattr(column, "mask", None)
    values = np.asarray(column)
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    if values.dtype.kind in "OU":
        return pa.array([None if v is None else str(v) for v in values.tolist()], pa.string())
    return pa.array(values.astype(values.dtype.newbyteorder("=")), mask=mask)
