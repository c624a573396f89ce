"""Numbers of galaxies of each part in each pixel of the sky, in a database on disk."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gax_batch.export.tasks import COUNTS, Tile
from gax_batch.export.tiling import CELL_ORDER, INDEX_ORDER, Ints, Tiling
from gax_batch.system.disk_database import Scratch

_NUMBERED = pa.schema([pa.field("part", pa.int32()), *list(COUNTS)[1:]])
_REACH = pa.schema([("margin", pa.bool_()), ("tile", pa.int32()), ("cell", pa.int32())])


@dataclass(frozen=True, slots=True)
class Origin:
    """Sources of a tile: a digest of the parts that have galaxies in or near it, and the number of galaxies.

    For a margin, `rows` counts the cells around its tile, which is more than the margin has.
    """

    fingerprint: str
    rows: int


class PixelCounts:
    """Number of galaxies of each part of a snapshot in each pixel."""

    def __init__(self, scratch: Scratch, keys: Sequence[str], counts: Iterable[pa.Table]) -> None:
        """Store counts in a database.

        Args:
            scratch: Database that receives the counts.
            keys: Keys of the parts.
            counts: `COUNTS` of every part. Those of other parts are ignored.
        """
        self._scratch, self._keys = scratch, pa.array(keys, pa.string())
        scratch.load("counts", _NUMBERED, (self._numbered(batch) for batch in counts))
        digests = [int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") for key in keys]
        parts = pa.table(
            {"part": pa.array(range(len(keys)), pa.int32()), "id": pa.array(digests, pa.uint64())}
        )
        scratch.load("parts", parts.schema, [parts])

    def totals(self) -> tuple[int, int, tuple[str, ...]]:
        """Return the number of selected galaxies, of those without a position, and their bundles."""
        found = self._scratch.one(
            "SELECT coalesce(sum(rows), 0) AS rows, "
            "coalesce(sum(rows) FILTER (cell IS NULL), 0) AS nowhere, "
            "coalesce(string_agg(DISTINCT bundle_ids, ' '), '') AS bundles FROM counts"
        ) or {"rows": 0, "nowhere": 0, "bundles": ""}
        return int(found["rows"]), int(found["nowhere"]), tuple(sorted(set(found["bundles"].split())))

    def cells(self) -> tuple[Ints, Ints]:
        """Return the pixels of `CELL_ORDER` that have galaxies, in order, and the number of galaxies."""
        sql = """
            SELECT cell, sum(rows)::BIGINT AS rows FROM counts
            WHERE cell IS NOT NULL GROUP BY cell ORDER BY cell"""
        none = pa.schema([("cell", pa.int32()), ("rows", pa.int64())]).empty_table()
        found = pa.concat_tables([none, *self._scratch.stream(sql)])
        return found["cell"].to_numpy().astype(np.int64), found["rows"].to_numpy()

    def origins(self, tiling: Tiling) -> dict[Tile, Origin]:
        """Return the sources of each tile and each margin that has galaxies in reach."""
        cells, _ = self.cells()
        places = _reach(False, tiling.find(cells << 2 * (INDEX_ORDER - CELL_ORDER)), cells)
        self._scratch.load("reach", _REACH, [places, _reach(True, *tiling.margin_cells())])
        sql = """
            SELECT margin, tile, sum(rows)::BIGINT AS rows, count(*) AS parts, bit_xor(id) AS digest
            FROM (
                SELECT margin, tile, part, sum(rows) AS rows
                FROM counts JOIN reach USING (cell) GROUP BY ALL
            ) JOIN parts USING (part) GROUP BY margin, tile"""
        return {
            Tile(row["margin"], int(tiling.orders[row["tile"]]), int(tiling.pixels[row["tile"]])): Origin(
                f"{row['digest']:016x}-{row['parts']}-{row['rows']}", row["rows"]
            )
            for batch in self._scratch.stream(sql)
            for row in batch.to_pylist()
        }

    def sources(self, tiling: Tiling, wanted: Iterable[Tile]) -> list[tuple[str, int]]:
        """Return the source parts of tiles, and their numbers of galaxies, in order. Needs `origins`."""
        numbers = {
            key: i for i, key in enumerate(zip(tiling.orders.tolist(), tiling.pixels.tolist(), strict=True))
        }
        rows = [(tile.margin, numbers[tile.order, tile.pixel]) for tile in wanted]
        table = pa.table({"margin": [margin for margin, _ in rows], "tile": [tile for _, tile in rows]})
        self._scratch.load("wanted", table.schema, [table])
        sql = """
            SELECT part, sum(rows)::BIGINT AS rows FROM counts WHERE part IN (
                SELECT part FROM counts JOIN reach USING (cell) SEMI JOIN wanted USING (margin, tile))
            GROUP BY part ORDER BY part"""
        found = [row for batch in self._scratch.stream(sql) for row in batch.to_pylist()]
        return [(self._keys[row["part"]].as_py(), row["rows"]) for row in found]

    def save(self, path: Path) -> None:
        """Write the counts to a Parquet file: `COUNTS`."""
        with pq.ParquetWriter(path, COUNTS, compression="zstd") as writer:
            for batch in self._scratch.stream("SELECT * FROM counts ORDER BY part, cell NULLS FIRST"):
                writer.write_table(
                    batch.set_column(0, "part", pc.take(self._keys, batch["part"])).cast(COUNTS)
                )

    def _numbered(self, counts: pa.Table) -> pa.Table:
        numbers = pc.index_in(counts["part"], self._keys)
        counts = counts.set_column(0, "part", numbers)
        return counts.filter(numbers.is_valid())


def _reach(margin: bool, tiles: Ints, cells: Ints) -> pa.Table:
    return pa.table(
        [pa.repeat(margin, len(tiles)), tiles.astype(np.int32), cells.astype(np.int32)], schema=_REACH
    )
