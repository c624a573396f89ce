"""Tables larger than memory: a DuckDB database that spills to a folder on a local disk.

What a plan compares (a listing, the cutouts that a catalog knows, positions) has a row per galaxy, so a
large survey's never is in memory as a whole: DuckDB sorts and joins it within a fixed budget.
The only module that imports DuckDB.
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
"""What the database may take; the batches that go in and out come on top."""

MAX_THREADS = 4
"""Threads of the database: 128 MiB for each, which DuckDB's documentation recommends as the least."""

BATCH_ROWS = 65_536
"""Rows of a batch: bounds memory, and keeps Arrow's 32-bit string offsets from overflow."""


class QueryError(Exception):
    """The database refused a statement; one line says why."""


class Scratch:
    """A database that lives as long as a `with` block, in a folder that the caller removes."""

    def __init__(self, folder: Path) -> None:
        """Make the database.

        Args:
            folder: An existing folder on a local disk.
        """
        self._folder = folder
        settings: dict[str, Any] = {
            "memory_limit": f"{MEMORY_BYTES // 1024}KiB",
            "temp_directory": str(folder / "spill"),
            # Each thread holds blocks of its own: many would exhaust the budget.
            "threads": min(MAX_THREADS, logical_cpus()),
            # The order of rows is asked for where it matters; to keep it everywhere would take memory.
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
        """From now on let no statement reach a file, the network, an extension or a setting."""
        self.run("SET enable_external_access = false")
        self.run("SET lock_configuration = true")

    def replace(self, name: str, rows: pa.Table) -> None:
        """Make a table of a few rows, in the place of the one of that name.

        Raises:
            UsageError: The disk is full, or the memory does not suffice.
        """
        self._insert(f"CREATE OR REPLACE TABLE {name} AS SELECT * FROM batch", rows)  # noqa: S608

    def load(self, name: str, schema: pa.Schema, batches: Iterable[pa.Table]) -> None:
        """Make a table and fill it.

        Args:
            name: The table's.
            schema: Of the table; each batch is cast to it.
            batches: The rows.

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
        """Execute one statement; `$name` in it stands for a value.

        Raises:
            UsageError: The disk is full, or the memory does not suffice.
        """
        with self._translated():
            self._database.execute(sql, values)

    def one(self, sql: str, **values: object) -> Mapping[str, Any] | None:
        """The first row of a query by column, if it has one.

        Raises:
            UsageError: The disk is full, or the memory does not suffice.
        """
        # The one connection: another would not know the variables that are set.
        with self._translated():
            cursor = self._database.execute(sql, values)
            names = [column[0] for column in cursor.description]
            row = cursor.fetchone()
            # The database does nothing else before a result is fetched to its end.
            cursor.fetchall()
        return None if row is None else dict(zip(names, row, strict=True))

    def table(self, sql: str, **values: object) -> pa.Table:
        """All rows of a query that is known to be small.

        Raises:
            UsageError: The disk is full, or the memory does not suffice.
        """
        with self._translated():
            return self._database.sql(sql, params=values).to_arrow_reader(BATCH_ROWS).read_all()

    def stream(self, sql: str, **values: object) -> Iterator[pa.Table]:
        """The rows of a query, a batch at a time.

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
            # The same exception says that the folder on the disk, to which blocks are offloaded, is full.
            if isinstance(error, duckdb.OutOfMemoryException) and "offload" not in line:
                raise UsageError(
                    f"more memory is needed: {line}; free some, use a machine with more, or ask for fewer "
                    "galaxies at once"
                ) from error
            raise UsageError(
                f"more room is needed on the disk of {self._folder}: {line}; free some, or set TMPDIR "
                "to a folder on a larger disk"
            ) from error
        except duckdb.Error as error:
            raise QueryError(str(error).strip().partition("\n")[0]) from error
