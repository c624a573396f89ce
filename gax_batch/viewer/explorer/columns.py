"""The columns of a snapshot that filters use, each read once from the catalog's parts.

They are stored in files that are mapped into memory, so that a survey may be larger than memory. Each number
of a galaxy takes four bytes on the disk of `TMPDIR`.
"""

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gax_batch.catalog.schema import GALAXIES
from gax_batch.catalog.snapshots import Catalog
from gax_batch.errors import UsageError

Places = npt.NDArray[np.int64]
"""Indices of galaxies, from 0 in the order of the snapshot's parts, int64."""

FIRST = ("galaxy_id", "ra", "dec", "gz2_class", "flags", "ood_score")
"""Columns that many filters need."""


class Columns:
    """Columns of all N galaxies, in the order of the snapshot's parts."""

    def __init__(self, catalog: Catalog, folder: Path) -> None:
        """Read the columns that many filters need.

        Args:
            catalog: A snapshot.
            folder: An empty folder on a local disk that outlives this object.

        Raises:
            UsageError: A part is missing or unreadable.
            TransientError: The store kept failing.
        """
        self._catalog, self._folder = catalog, folder
        self._parts = catalog.parts()
        self._loaded: dict[str, pa.ChunkedArray] = {}
        self._lock = threading.Lock()
        # Read them in one pass: opening the parts takes most of the time.
        self.ids = self.table(FIRST)["galaxy_id"]
        self._starts = np.cumsum([0, *(len(chunk) for chunk in self.ids.chunks)])

    def __len__(self) -> int:
        return len(self.ids)

    def table(self, names: Sequence[str]) -> pa.Table:
        """Return some columns of all galaxies. A column is read only once."""
        with self._lock:
            missing = [name for name in dict.fromkeys(names) if name not in self._loaded]
            if missing:
                self._load(missing)
            return pa.table({name: self._loaded[name] for name in dict.fromkeys(names)})

    def floats(self, name: str) -> npt.NDArray[np.float64]:
        """Return a column of numbers, float64 `[N]`; NaN where it is null."""
        values: npt.NDArray[np.float64] = self.table([name])[name].to_numpy().astype(np.float64)
        return values

    def place(self, galaxy_id: str) -> int:
        """Return the index of a galaxy.

        Raises:
            UsageError: The galaxy is not in the snapshot.
        """
        place = int(pc.index(self.ids, pa.scalar(galaxy_id, pa.string())).as_py())
        if place < 0:
            raise UsageError(f"galaxy {galaxy_id!r} is not in snapshot {self._catalog.version}")
        return place

    def rows(self, places: Places, names: Sequence[str]) -> pa.Table:
        """Return columns of a few galaxies, read from their parts, in the order of `places`."""
        order = np.argsort(places, kind="stable")
        ascending = places[order]
        part_of = np.searchsorted(self._starts, ascending, side="right") - 1
        holding = np.unique(part_of)
        batches = self._catalog.batches(names, [self._parts[part] for part in holding])
        schema = pa.schema([GALAXIES.field(name) for name in names])
        found = [schema.empty_table()]
        for part, batch in zip(holding, batches, strict=True):
            found.append(batch.take(ascending[part_of == part] - self._starts[part]).cast(schema))
        return pa.concat_tables(found).take(np.argsort(order, kind="stable"))

    def _load(self, names: Sequence[str]) -> None:
        path = self._folder / f"{len(self._loaded)}.arrow"
        schema = pa.schema([GALAXIES.field(name).remove_metadata().with_nullable(True) for name in names])
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
            for rows in self._catalog.batches(names):
                # Write one batch for each part, even for a part without galaxies.
                writer.write_batch(_one_batch(rows.cast(schema)))
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        self._loaded |= dict(zip(table.column_names, table.columns, strict=True))


def _one_batch(rows: pa.Table) -> pa.RecordBatch:
    arrays = [column.combine_chunks() for column in rows.columns]
    return pa.RecordBatch.from_arrays(arrays, schema=rows.schema)
