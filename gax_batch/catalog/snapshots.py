"""Read a catalog at one snapshot.

A catalog is a Delta table of galaxies. Its contents are the active parts of the table and their companions,
such as rejects. `commits` makes the next snapshot.
"""

import json
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gax_batch import storage
from gax_batch.catalog import companions, layout
from gax_batch.catalog.commits import Commit, by_unit
from gax_batch.catalog.delta import Entry, Table
from gax_batch.catalog.layout import PartName
from gax_batch.catalog.parts import Part, read_columns, read_in_turn
from gax_batch.catalog.properties import bring_up_to_date, end_before
from gax_batch.catalog.schema import DESCRIPTION, GALAXIES, REJECTS
from gax_batch.errors import FatalError, UsageError
from gax_batch.rejects import PASSING, Stage
from gax_batch.storage.listing import list_objects

KNOWN_SCHEMA: pa.Schema = pa.schema(
    [
        pa.field("source_uri", pa.string()),
        pa.field("source_version", pa.string()),
        pa.field("galaxy_id", pa.string()),
        pa.field("ra", pa.float64()),
        pa.field("dec", pa.float64()),
        pa.field("unit_id", pa.string()),
        pa.field("rejected", pa.bool_()),
        pa.field("plan_reason", pa.string()),
        pa.field("attempts", pa.int32()),
        pa.field("retry", pa.bool_()),
    ]
)
"""The columns that a plan compares a listing with.

`unit_id` is the unit that has the row now. `plan_reason` is the reason of a reject of stage `plan`. `retry`
is true if a passing fault of the storage rejected the cutout, so that another run may read it.
"""


class Catalog:
    """A catalog at one snapshot. It may not exist yet; opening it writes nothing."""

    def __init__(self, uri: str, version: int | None = None) -> None:
        """Open a catalog.

        Args:
            uri: Folder or prefix of the catalog.
            version: Number of the snapshot to read; the newest if None. Only the newest accepts commits.

        Raises:
            UsageError: The place has other files, the catalog cannot be read, has a newer format, or does not
                have this snapshot.
        """
        self.uri = storage.normalize_uri(uri)
        self._galaxies = Table(layout.table(self.uri, layout.GALAXIES_TABLE), version)
        if self._galaxies.version is None:
            _require_empty(self.uri)
        self._active = by_unit(self._galaxies)

    @property
    def version(self) -> int | None:
        """The number of the snapshot; None if nothing has been committed yet."""
        return self._galaxies.version

    def oldest(self) -> int:
        """Return the number of the oldest snapshot that can still be opened."""
        return self._galaxies.oldest()

    def history(self) -> list[Entry]:
        """Return the commits up to this snapshot, the newest first."""
        return self._galaxies.history()

    def parts(self) -> list[PartName]:
        """Return the active part of every unit, in the order of their keys."""
        return sorted(self._active.values(), key=lambda name: name.key)

    def reject_parts(self) -> list[PartName]:
        """Return the active parts that have rejects, in the order of their keys."""
        return companions.with_rejects(self.uri, self._active.values())

    def planned(self) -> dict[PartName, int]:
        """Return the number of cutouts (galaxies and rejects) of every unit, by its part."""
        galaxies = self._galaxies.rows()
        rejects = companions.count_rejects(self.uri, self._active.values())
        return {name: galaxies[name.key] + rejects[name] for name in self._active.values()}

    def galaxies_by_part(self) -> dict[PartName, int]:
        """Return the number of galaxies of every part, according to the log of the table."""
        rows = self._galaxies.rows()
        return {name: rows[name.key] for name in self._active.values()}

    def galaxy_count(self) -> int:
        """Return the number of galaxies of the snapshot, according to the log of the table."""
        return sum(self.galaxies_by_part().values())

    def bounds_of_ids(self) -> dict[str, tuple[str, str]]:
        """Return the smallest and the largest `galaxy_id` of every part with galaxies, by its key."""
        return self._galaxies.bounds("galaxy_id")

    def units(self) -> dict[str, tuple[str, str]]:
        """Return the settings fingerprint and the unit fingerprint of every unit, by unit id."""
        return {unit: (name.settings_fingerprint, name.fingerprint) for unit, name in self._active.items()}

    def members(self, passed_over: Container[PartName] = ()) -> Iterator[pa.Table]:
        """Yield every cutout of the snapshot, galaxies and rejects, for a plan.

        Args:
            passed_over: Parts that are not read. It is evaluated when the first batch is read.

        Yields:
            Rows of `KNOWN_SCHEMA`, part by part. Over all parts, `source_uri` is unique, and so is the
            `galaxy_id` of the cutouts that are not rejected.

        Raises:
            UsageError: A part is missing or unreadable: the user has to repair the catalog first.
            TransientError: The store kept failing.
        """
        try:
            good = [name for name in self.parts() if name not in passed_over]
            yield from _known(self._galaxies.uri, good, _KNOWN_OF_GALAXIES, _of_galaxies)
            bad = [name for name in self.reject_parts() if name not in passed_over]
            yield from _known(layout.table(self.uri, layout.REJECTS), bad, _KNOWN_OF_REJECTS, _of_rejects)
        except FatalError as error:
            raise UsageError(str(error)) from error

    def batches(self, columns: Sequence[str], names: Sequence[PartName] | None = None) -> Iterator[pa.Table]:
        """Yield columns of the galaxies of the snapshot, part by part.

        Args:
            columns: Names of columns of `GALAXIES`.
            names: Parts to read; all if None.

        Raises:
            UsageError: A part is missing or unreadable: it was vacuumed, or the catalog is damaged.
            TransientError: The store kept failing.
        """
        schema = pa.schema([GALAXIES.field(name) for name in columns])
        yield from self._in_turn(self._galaxies.uri, self.parts() if names is None else names, schema)

    def reject_batches(self, names: Sequence[PartName] | None = None) -> Iterator[pa.Table]:
        """Yield the valid rejects of the snapshot, `REJECTS`, part by part. Raises as `batches` does.

        Args:
            names: Parts to read, of `reject_parts`; all if None.
        """
        root = layout.table(self.uri, layout.REJECTS)
        yield from self._in_turn(root, self.reject_parts() if names is None else names, REJECTS)

    def _in_turn(self, root: str, names: Sequence[PartName], schema: pa.Schema) -> Iterator[pa.Table]:
        try:
            yield from read_in_turn(root, [name.key for name in names], schema)
        except FatalError as error:
            raise UsageError(f"snapshot {self.version} cannot be read completely: {error}") from error

    def galaxies(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all galaxies of the snapshot, in memory.

        Args:
            columns: Names of the columns to read; all of `GALAXIES` if None.

        Raises:
            FatalError: A part is missing or unreadable.
            TransientError: The store kept failing.
        """
        schema = GALAXIES if columns is None else pa.schema([GALAXIES.field(name) for name in columns])
        return read_columns(self._galaxies.uri, [name.key for name in self.parts()], schema)

    def rejects(self) -> pa.Table:
        """Return all valid rejects of the snapshot, `REJECTS`, in memory. Raises as `galaxies` does."""
        root = layout.table(self.uri, layout.REJECTS)
        return read_columns(root, [name.key for name in self.reject_parts()], REJECTS)

    def commit(
        self,
        parts: Sequence[Part],
        *,
        run_id: str,
        metadata: Mapping[str, str | int],
        removed: Sequence[str] = (),
        restored: int | None = None,
    ) -> int:
        """Make parts visible, all or none. Each replaces the older part of its unit.

        The same commit again changes nothing. Other runs may have committed since this catalog was opened,
        as long as they worked on other units and other galaxies. A unit that another run has finished in the
        meantime from the same members with the same settings is left as it is. Afterwards this object
        contains its own commit, but not those of others: open the catalog again to read them.

        Args:
            parts: One part per unit.
            run_id: The run.
            metadata: Facts that are stored with the commit, besides the run id.
            removed: Units to remove without a replacement.
            restored: The earlier snapshot that the parts are taken from, which must still exist.

        Returns:
            The number of the snapshot that has the parts.

        Raises:
            UsageError: Another run has committed the same units or galaxies, or the restored snapshot has
                ended; nothing was committed.
            FatalError: A part is missing or incomplete, or the store refused; nothing was committed.
            TransientError: The store kept failing.
        """
        if not (parts or removed) and self.version is not None:
            return self.version
        if self.version is None:
            self._galaxies.create("gax galaxies", DESCRIPTION, GALAXIES)
        else:
            bring_up_to_date(self._galaxies, GALAXIES, run_id)
        change = Commit(self.uri, self._galaxies, self._active, parts, removed, restored)
        change.run({**metadata, "run_id": run_id})
        self._retire_rejects_table()
        # Only this commit: the next one must still compare with what other runs committed in the meantime.
        newest, gone = by_unit(self._galaxies), set(removed)
        self._active = {unit: name for unit, name in self._active.items() if unit not in gone}
        self._active |= {p.unit_id: newest[p.unit_id] for p in parts if p.unit_id in newest}
        return int(self._galaxies.version or 0)

    def end_before(self, version: int, facts: Mapping[str, str | int]) -> None:
        """Mark the snapshots before one as deleted: they can no longer be opened.

        Args:
            version: Number of the oldest snapshot that stays.
            facts: Facts that are stored with the commit.

        Raises:
            LostRaceError: This snapshot is no longer the newest; nothing was committed.
            FatalError: The store refused.
        """
        end_before(self._galaxies, version, facts)

    def _retire_rejects_table(self) -> None:
        """Delete the log of the table of rejects, which only catalogs of format 2 have."""
        log = storage.join(layout.table(self.uri, layout.REJECTS), layout.DELTA_LOG)
        for info in list_objects(log, missing_ok=True):
            storage.delete(info.uri)


def open_existing(uri: str, version: int | None = None) -> Catalog:
    """Open a catalog that must exist.

    Raises:
        UsageError: The catalog does not exist, or `Catalog` raises.
    """
    catalog = Catalog(uri, version)
    if catalog.version is None:
        raise UsageError(f"there is no catalog at {catalog.uri}; check --catalog")
    return catalog


def write_run_record(catalog: str, run_id: str, record: Mapping[str, Any]) -> None:
    """Write the record of a run as JSON, atomically. It replaces an earlier record of the run."""
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    storage.write_bytes(layout.run_record(catalog, run_id), text.encode() + b"\n")


def read_run_record(catalog: str, run_id: str) -> dict[str, Any]:
    """Read the record of a run.

    Raises:
        FileNotFoundError: There is no record of this run.
    """
    record: dict[str, Any] = json.loads(storage.read_bytes(layout.run_record(catalog, run_id)))
    return record


def _require_empty(uri: str) -> None:
    """Refuse a place with other files than an interrupted first run leaves."""
    for info in list_objects(uri, missing_ok=True):
        inner = info.uri.removeprefix(f"{uri}/")
        expected = inner == storage.WRITE_TEST or inner.partition("/")[0] in layout.TOP_LEVEL
        if inner == info.uri or not expected:
            raise UsageError(
                f"{uri} has other files ({info.uri}) and is not a gax catalog; choose an empty or a new place"
            )


def _some(schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    return pa.schema([schema.field(name).remove_metadata().with_nullable(True) for name in names])


_KNOWN_OF_GALAXIES = _some(GALAXIES, ["source_uri", "source_version", "galaxy_id", "ra", "dec"])
_KNOWN_OF_REJECTS = _some(
    REJECTS, ["source_uri", "source_version", "galaxy_id", "stage", "reason", "attempts"]
)


def _known(
    root: str, names: Sequence[PartName], schema: pa.Schema, describe: Callable[[pa.Table], dict[str, Any]]
) -> Iterator[pa.Table]:
    tables = read_in_turn(root, [name.key for name in names], schema)
    for name, table in zip(names, tables, strict=True):
        # Rows name the unit that made them. A plan redoes the unit of the part that has them now.
        columns = {**dict(zip(table.column_names, table.columns, strict=True)), **describe(table)}
        columns["unit_id"] = pa.repeat(name.unit_id, len(table))
        arrays = [columns.get(field.name, pa.nulls(len(table), field.type)) for field in KNOWN_SCHEMA]
        yield pa.table(arrays, schema=KNOWN_SCHEMA)


def _of_galaxies(galaxies: pa.Table) -> dict[str, Any]:
    no = pa.repeat(False, len(galaxies))
    return {"rejected": no, "retry": no}


def _of_rejects(rejects: pa.Table) -> dict[str, Any]:
    at_plan = pc.equal(rejects["stage"], Stage.PLAN.value)
    return {
        "rejected": pa.repeat(True, len(rejects)),
        "plan_reason": pc.if_else(at_plan, rejects["reason"], pa.scalar(None, pa.string())),
        "retry": pc.is_in(rejects["reason"], pa.array([str(reason) for reason in sorted(PASSING)])),
    }
