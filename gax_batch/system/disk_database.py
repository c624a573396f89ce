"""Tables larger than memory: a DuckDB database that spills to a folder on a local disk.

A plan compares tables with a row per galaxy (a listing, the cutouts of a catalog, positions). Those of a
large survey do not fit into memory: DuckDB sorts and joins them within a fixed budget.
This is the only module that imports DuckDB.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import duckdb
import pyarrow as pa

from gax_batch.errors import UsageError
from gax_batch.system.cpus import logical_cpus

MEMORY_BYTES = 512 * 1024 * 1024
"""Memory limit of the database. The batches that go in and come out are not included."""

MAX_THREADS = 4
"""Maximum number of threads. Each has 128 MiB, the least that DuckDB's documentation recommends."""

BATCH_ROWS = 65_536
"""Rows of a batch. Bounds memory, and keeps Arrow's 32-bit string offsets from overflowing."""


class QueryError(Exception):
    """The database rejected a statement. The message is its reason in one line."""


class Scratch:
    """A database that lives as long as a `with` block, in a folder that the caller removes."""

    def __init__(self, folder: Path) -> None:
        """Create the database.

        Args:
            folder: An existing folder on a local disk.
        """
        self._folder = folder
        settings: dict[str, Any] = {
            "memory_limit": f"{MEMORY_BYTES // 1024}KiB",
            "temp_directory": str(folder / "spill"),
            # Each thread holds its own blocks: many threads would exhaust the budget.
            "threads": min(MAX_THREADS, logical_cpus()),
            # Queries that need an order ask for it. Preserving it everywhere would take memory.
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        with self._translated():
            self._database = duckdb.connect(":memory:", config=settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def lock(self) -> None:
        """Prevent all later statements from using files, the network, extensions or settings."""
        self.run("SET enable_external_access = false")
        self.run("SET lock_configuration = true")

    def replace(self, name: str, rows: pa.Table) -> None:
        """Create a table of a few rows, or replace the table of that name.

        Raises:
            UsageError: The disk is full, or the memory does not suffice.
        """
        self._insert(f"CREATE OR REPLACE TABLE {name} AS SELECT * FROM batch", rows)  # noqa: S608

    def load(self, name: str, schema: pa.Schema, batches: Iterable[pa.Table]) -> None:
        """Create a table and fill it.

        Args:
            name: Name of the table.
            schema: Schema of the table. Each batch is cast to it.
            batches: Rows of the table.

        Raises:
            UsageError: The disk is full, or the memory does not suffice.
        """
        create = f"CREATE TABLE {name} AS SELECT * FROM batch"  # noqa: S608 (our own names)
        self._insert(create, schema.empty_table())
        for batch in batches:
            self.insert(name, schema, batch)

    def insert(self, name: str, schema: pa.Schema, batch: pa.Table) -> None:
        """Add rows to a table, cast to its schema.

        Raises:
            UsageError: The disk is full, or the memory does not suffice.
        """
        insert = f"INSERT INTO {name} SELECT * FROM batch"  # noqa: S608 (our own names)
        for start in range(0, len(batch), BATCH_ROWS):
            self._insert(insert, batch.slice(start, BATCH_ROWS).cast(schema))

    def run(self, sql: str, **values: object) -> None:
        """Execute one statement. `$name` in it stands for a value.

        Raises:
            UsageError: The disk is full, or the memory does not suffice.
        """
        with self._translated():
            self._database.execute(sql, values)

    def one(self, sql: str, **values: object) -> Mapping[str, Any] | None:
        """Return the first row of a query as a mapping from column to value, or None if it has no rows.

        Raises:
            UsageError: The disk is full, or the memory does not suffice.
        """
        # Use the one connection: another does not have the variables that were set.
        with self._translated():
            cursor = self._database.execute(sql, values)
            names = [column[0] for column in cursor.description]
            row = cursor.fetchone()
            # The database accepts no other statement until a result has been fetched to its end.
            cursor.fetchall()
        return None if row is None else dict(zip(names, row, strict=True))

    def table(self, sql: str, **values: object) -> pa.Table:
        """Return all rows of a query whose result is known to be small.

        Raises:
            UsageError: The disk is full, or the memory does not suffice.
        """
        with self._translated():
            return self._database.sql(sql, params=values).to_arrow_reader(BATCH_ROWS).read_all()

    def stream(self, sql: str, **values: object) -> Iterator[pa.Table]:
        """Yield the rows of a query, one batch at a time.

        Raises:
            UsageError: The disk is full, or the memory does not suffice.
        """
        with self._translated():
            reader = self._database.sql(sql, params=values).to_arrow_reader(BATCH_ROWS)
            for batch in reader:
                yield pa.Table.from_batches([batch])

    def _insert(self, sql: str, rows: pa.Table) -> None:
        with self._translated():
            self._database.register("batch", rows)
            try:
                self._database.execute(sql)
            finally:
                self._database.unregister("batch")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (duckdb.IOException, duckdb.OutOfMemoryException, OSError) as error:
            line = str(error).strip().partition("\n")[0]
            # The same exception means that the folder on the disk, to which blocks are offloaded, is full.
            if isinstance(error, duckdb.OutOfMemoryException) and "offload" not in line:
                raise UsageError(
                    f"more memory is needed: {line}; free some, use a machine with more memory, or ask for "
                    "fewer galaxies at once"
                ) from error
            raise UsageError(
                f"more space is needed on the disk of {self._folder}: {line}; free some, or set TMPDIR "
                "to a folder on a larger disk"
            ) from error
        except duckdb.Error as error:
            raise QueryError(str(error).strip().partition("\n")[0]) from error
