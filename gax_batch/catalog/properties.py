"""Metadata of a table: its columns, its format, and how long Delta Lake keeps its log."""

from collections.abc import Mapping
from functools import partial

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Field

from gax_batch.catalog import delta
from gax_batch.catalog.delta import OLDEST_KEY, LostRaceError, Table
from gax_batch.errors import FatalError

ADD_COLUMNS = "add_columns"
SET_PROPERTIES = "set_properties"
_ATTEMPTS = 5


def bring_up_to_date(table: Table, schema: pa.Schema, run_id: str) -> None:
    """Give a table of an earlier release the columns and properties of this one, without changing a row.

    Args:
        table: A table that exists. It is moved to its newest snapshot.
        schema: All columns of this release. Those that the table lacks must be nullable.
        run_id: The run that makes the commits.

    Raises:
        FatalError: The store refused.
    """
    facts = {"run_id": run_id}
    for _ in range(_ATTEMPTS):
        table.refresh()
        there = table.columns()
        missing = [Field.from_arrow(field) for field in schema if field.name not in there]
        try:
            if missing:
                add = partial(_add_columns, missing)
                table.alter(add, {**facts, "operation": ADD_COLUMNS})
            set_properties(table, delta.PROPERTIES, {**facts, "operation": SET_PROPERTIES})
        except LostRaceError:
            continue
        return
    raise FatalError(f"other commits to {table.uri} came first; run again when no other run commits")


def end_before(table: Table, version: int, facts: Mapping[str, str | int]) -> None:
    """Mark the snapshots before one as deleted: after this commit, they cannot be opened.

    Args:
        table: The table of galaxies.
        version: Number of the oldest snapshot that stays.
        facts: Facts that are stored with the commit.

    Raises:
        LostRaceError: Another commit came first; nothing was committed.
        FatalError: The store refused.
    """
    set_properties(table, {OLDEST_KEY: str(version)}, facts)


def set_properties(table: Table, properties: Mapping[str, str], facts: Mapping[str, str | int]) -> None:
    """Set the properties that differ. Raises as `end_before` does."""
    if properties.items() <= table.configuration().items():
        return
    table.alter(
        lambda now, commit: now.alter.set_table_properties(
            dict(properties), raise_if_not_exists=False, commit_properties=commit
        ),
        facts,
    )


def _add_columns(missing: list[Field], table: DeltaTable, commit: CommitProperties) -> None:
    table.alter.add_columns(missing, commit_properties=commit)
