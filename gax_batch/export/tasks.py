"""Functions of the three steps of publishing a HATS catalog, which run on any worker: count, scatter, gather.

A part of a catalog has galaxies from the whole sky, a tile of HATS those of one region. A task of the second
step sorts the rows of some parts by tile into one object. A task of the third step reads its
tile's rows from all of those objects. A process holds at most a few parts or one tile in memory.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gax_batch import storage
from gax_batch.catalog.schema import Column
from gax_batch.export.selection import Selection, described
from gax_batch.export.tiling import CELL_ORDER, INDEX_ORDER, Tiling, index_of

Item = TypeVar("Item")
Result = TypeVar("Result")

INDEX = Column("_healpix_29", pa.int64(), "", "pos.healpix", "HEALPix pixel of order 29, nested, ICRS", False)

COUNTS = pa.schema(
    [
        pa.field("part", pa.string()),
        pa.field("cell", pa.int32()),
        pa.field("rows", pa.int32()),
        pa.field("bundle_ids", pa.string()),
    ]
)
"""Selected galaxies of a part by `CELL_ORDER` pixel.

One row does not have a cell. It is for galaxies without a position and for the bundles of all galaxies, and
marks a part as counted.
"""


class Runner(Protocol):
    """Calls a function for each item, on any worker, and yields the results in any order."""

    def __call__(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Yield the result of the function for each item."""


@dataclass(frozen=True, slots=True)
class PartSelection:
    """Parts of a catalog, and the columns and galaxies to read from them."""

    root: str
    keys: tuple[str, ...]
    selection: Selection


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """A tile, or the margin around it, by HEALPix order and nested pixel."""

    margin: bool
    order: int
    pixel: int

    @property
    def key(self) -> str:
        """Key of the tile's file, relative to the folder of its HATS catalog."""
        return f"dataset/Norder={self.order}/Dir={self.pixel // 10_000 * 10_000}/Npix={self.pixel}.parquet"


@dataclass(frozen=True, slots=True)
class ScatterTask:
    """Sort rows by tile.

    Attributes:
        source: Rows to sort.
        tiling: Tiles of the catalog.
        wanted: Whether to write each tile, and each margin of a tile, bool `[2, T]`.
        uri: URI of the object to write.
    """

    source: PartSelection
    tiling: Tiling
    wanted: npt.NDArray[np.bool_]
    uri: str


@dataclass(frozen=True, slots=True)
class Piece:
    """The rows of one tile in one object."""

    tile: Tile
    uri: str
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class GatherTask:
    """Write one tile from its pieces, to the folder of its HATS catalog."""

    tile: Tile
    folder: str
    pieces: tuple[Piece, ...]
    schema: pa.Schema


@dataclass(frozen=True, slots=True)
class WrittenTile:
    """A tile that was written, with its number of rows and of bytes."""

    tile: Tile
    rows: int
    size: int


def sky_schema(selection: Selection) -> pa.Schema:
    """Return the columns of a tile: the index, then the selected ones, with unit, UCD and description."""
    return pa.schema([column.field for column in [INDEX, *described(selection.columns)]])


def count(source: PartSelection) -> pa.Table:
    """Count the selected galaxies of each part: `COUNTS`."""
    only_where = Selection((), source.selection.where)
    found: list[pa.Table] = []
    parts = only_where.read(source.root, source.keys, more=("ra", "dec", "bundle_id"))
    for key, rows in zip(source.keys, parts, strict=True):
        index, placed = _index(rows)
        cells, counts = np.unique(index >> 2 * (INDEX_ORDER - CELL_ORDER), return_counts=True)
        bundles = " ".join(sorted(rows["bundle_id"].unique().to_pylist()))
        found.append(
            pa.table(
                {
                    "part": [key] * (len(cells) + 1),
                    "cell": [None, *cells.tolist()],
                    "rows": [len(rows) - len(placed), *counts.tolist()],
                    "bundle_ids": [bundles] + [None] * len(cells),
                },
                schema=COUNTS,
            )
        )
    return pa.concat_tables([COUNTS.empty_table(), *found])


def scatter(task: ScatterTask) -> list[Piece]:
    """Sort the selected galaxies of some parts by tile into one object. A galaxy may be in several tiles."""
    source, count_of_tiles = task.source, len(task.tiling)
    tables: list[pa.Table] = [sky_schema(source.selection).empty_table()]
    places: list[npt.NDArray[np.int64]] = []
    for rows in source.selection.read(source.root, source.keys, more=("ra", "dec")):
        index, placed = _index(rows)
        near, margins = task.tiling.margins_of(index)
        numbers = np.concatenate([np.arange(len(index)), near])
        # Margins are numbered after the tiles.
        goals = np.concatenate([task.tiling.find(index), margins + count_of_tiles])
        kept = task.wanted.reshape(-1)[goals]
        rows = rows.select(source.selection.columns).take(placed[numbers[kept]])
        tables.append(rows.add_column(0, INDEX.field, pa.array(index[numbers[kept]])))
        places.append(goals[kept])
    goals = np.concatenate([np.empty(0, np.int64), *places])
    order = np.argsort(goals, kind="stable")
    rows = pa.concat_tables(tables).take(order)
    return _write_pieces(task, rows, goals[order])


def gather(task: GatherTask) -> WrittenTile:
    """Write a tile, sorted by its index, as one Parquet file."""
    from hats.io.file_io.file_io import get_parquet_write_table_kwargs

    pieces = [_read_piece(piece) for piece in task.pieces]
    rows = pa.concat_tables(pieces).cast(task.schema)
    rows = rows.take(pc.sort_indices(rows[INDEX.name]))
    buffer = io.BytesIO()
    # Use the library's own encodings. Its compression level of 15 takes most of the time for a few percent.
    settings = get_parquet_write_table_kwargs(task.schema, write_table_kwargs={"compression_level": 3})
    pq.write_table(rows, buffer, **settings)
    storage.write_bytes(storage.join(task.folder, task.tile.key), buffer.getvalue())
    return WrittenTile(task.tile, len(rows), buffer.tell())


def _index(rows: pa.Table) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the HATS index of the rows that have a position, and the numbers of these rows."""
    has = pc.and_(rows["ra"].is_valid(), rows["dec"].is_valid()).to_numpy().astype(bool)
    placed = np.flatnonzero(has)
    ra, dec = (rows[name].to_numpy()[placed] for name in ("ra", "dec"))
    return index_of(ra, dec), placed


def _write_pieces(task: ScatterTask, rows: pa.Table, goals: npt.NDArray[np.int64]) -> list[Piece]:
    starts = np.flatnonzero(np.diff(goals, prepend=-1))
    ends = np.append(starts, len(goals))[1:]
    buffer = io.BytesIO()
    pieces: list[Piece] = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        margin, number = divmod(int(goals[start]), len(task.tiling))
        tile = Tile(bool(margin), int(task.tiling.orders[number]), int(task.tiling.pixels[number]))
        at = buffer.tell()
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_stream(buffer, rows.schema, options=options) as writer:
            writer.write_table(rows.slice(start, end - start).combine_chunks())
        pieces.append(Piece(tile, task.uri, at, buffer.tell() - at))
    if pieces:
        storage.write_bytes(task.uri, buffer.getvalue())
    return pieces


def _read_piece(piece: Piece) -> pa.Table:
    data: Any = storage.read_range(piece.uri, piece.start, piece.length)
    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()
