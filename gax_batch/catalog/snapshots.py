"""A catalog at one snapshot: what is in it.

A catalog is a Delta table of galaxies: its active parts are what is in it, and their companions, such as
their rejects, are valid with them. `commits` makes the next snapshot.
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
"""What a plan compares a listing with.

`unit_id` is the unit that holds the row now; `plan_reason` the reason of a reject of stage `plan`; `retry`
says that a passing fault of the storage rejected it, which another try may find gone.
"""


class Catalog:
    """A catalog at one snapshot; opening one that does not exist yet is fine and writes nothing."""

    def __init__(self, uri: str, version: int | None = None) -> None:
        """Open a catalog.

        Args:
            uri: Its folder or prefix.
            version: The snapshot to read; the newest if none is given. An old one cannot be committed to.

        Raises:
            UsageError: Something else is there, or it cannot be read, or its format is newer, or it has no
                such snapshot.
        """
        self.uri = storage.normalize_uri(uri)
        self._galaxies = Table(layout.table(self.uri, layout.GALAXIES_TABLE), version)
        if self._galaxies.version is None:
            _require_empty(self.uri)
        self._active = by_unit(self._galaxies)

    @property
    def version(self) -> int | None:
        """The number of the snapshot; None while nothing was ever committed."""
        return self._galaxies.version

    def oldest(self) -> int:
        """The number of the oldest snapshot that can still be opened."""
        return self._galaxies.oldest()

    def history(self) -> list[Entry]:
        """The commits that made this snapshot, the newest first."""
        return self._galaxies.history()

    def parts(self) -> list[PartName]:
        """The active part of every unit, in the order of their keys."""
        return sorted(self._active.values(), key=lambda name: name.key)

    def reject_parts(self) -> list[PartName]:
        """The active parts that have rejects beside them, in the order of their keys."""
        return companions.with_rejects(self.uri, self._active.values())

    def planned(self) -> dict[PartName, int]:
        """Cutouts of every unit, galaxies and rejects, by its part."""
        galaxies = self._galaxies.rows()
        rejects = companions.count_rejects(self.uri, self._active.values())
        return {name: galaxies[name.key] + rejects[name] for name in self._active.values()}

    def galaxies_by_part(self) -> dict[PartName, int]:
        """How many galaxies every part has, by the table's log."""
        rows = self._galaxies.rows()
        return {name: rows[name.key] for name in self._active.values()}

    def galaxy_count(self) -> int:
        """How many galaxies the snapshot has, by the table's log."""
        return sum(self.galaxies_by_part().values())

    def bounds_of_ids(self) -> dict[str, tuple[str, str]]:
        """The least and the greatest `galaxy_id` of every part that has any, by its key."""
        return self._galaxies.bounds("galaxy_id")

    def units(self) -> dict[str, tuple[str, str]]:
        """Settings fingerprint and unit fingerprint of every unit, by unit id."""
        return {unit: (name.settings_fingerprint, name.fingerprint) for unit, name in self._active.items()}

    def members(self, passed_over: Container[PartName] = ()) -> Iterator[pa.Table]:
        """Every cutout that the snapshot accounts for, as a galaxy or as a reject, for a plan.

        Args:
            passed_over: Parts that are not read; asked for when the first batch is.

        Yields:
            `KNOWN_SCHEMA`, some parts at a time; over all of them, `source_uri` is unique, and `galaxy_id`
            among those that are not rejected.

        Raises:
            UsageError: A part is missing or unreadable: the user has to mend the catalog first.
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
        """Columns of the snapshot's galaxies, part by part.

        Args:
            columns: Names of columns of `GALAXIES`.
            names: Parts to read; all if none are given.

        Raises:
            UsageError: A part is missing or unreadable: it was vacuumed, or the catalog is damaged.
            TransientError: The store kept failing.
        """
        schema = pa.schema([GALAXIES.field(name) for name in columns])
        yield from self._in_turn(self._galaxies.uri, self.parts() if names is None else names, schema)

    def reject_batches(self, names: Sequence[PartName] | None = None) -> Iterator[pa.Table]:
        """The snapshot's valid rejects, `REJECTS`, part by part; errors as those of `batches`.

        Args:
            names: Parts to read, of `reject_parts`; all if none are given.
        """
        root = layout.table(self.uri, layout.REJECTS)
        yield from self._in_turn(root, self.reject_parts() if names is None else names, REJECTS)

    def _in_turn(self, root: str, names: Sequence[PartName], schema: pa.Schema) -> Iterator[pa.Table]:
        try:
            yield from read_in_turn(root, [name.key for name in names], schema)
        except FatalError as error:
            raise UsageError(f"snapshot {self.version} cannot be read whole: {error}") from error

    def galaxies(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Every row of the snapshot, in memory.

        Args:
            columns: Names of the columns to read; all of `GALAXIES` if none are given.

        Raises:
            FatalError: A part is missing or unreadable.
            TransientError: The store kept failing.
        """
        schema = GALAXIES if columns is None else pa.schema([GALAXIES.field(name) for name in columns])
        return read_columns(self._galaxies.uri, [name.key for name in self.parts()], schema)

    def rejects(self) -> pa.Table:
        """Every valid reject of the snapshot: `REJECTS`; errors as those of `galaxies`."""
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
        """Make parts visible, each in the place of its unit's older one, all at once or not at all.

        The same commit again changes nothing. Other runs may have committed since this catalog was opened,
        as long as they worked on other units and other galaxies; a unit that another run has since finished
        from the same members with the same settings is left as it is. Afterwards this object knows its own
        commit but still not those of others: open the catalog again for that.

        Args:
            parts: One per unit.
            run_id: The run.
            metadata: Kept with the commit, besides the run id.
            removed: Units to take out, with nothing in their place.
            restored: The snapshot that the parts are taken from; it must not have ended meanwhile.

        Returns:
            The number of the snapshot that has the parts.

        Raises:
            UsageError: Another run has committed the same units or galaxies, or the restored snapshot has
                ended; nothing was committed.
            FatalError: A part is not there or not whole, or the store refused; nothing was committed.
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
        # Only ours: what other runs did meanwhile must still count as unseen in the next commit.
        newest, gone = by_unit(self._galaxies), set(removed)
        self._active = {unit: name for unit, name in self._active.items() if unit not in gone}
        self._active |= {p.unit_id: newest[p.unit_id] for p in parts if p.unit_id in newest}
        return int(self._galaxies.version or 0)

    def end_before(self, version: int, facts: Mapping[str, str | int]) -> None:
        """End the snapshots before one, for good.

        Raises:
            LostRaceError: This snapshot is no longer the newest; nothing was committed.
            FatalError: The store refused.
        """
        end_before(self._galaxies, version, facts)

    def _retire_rejects_table(self) -> None:
        """Delete the log of the second table that catalogs of format 2 had: it would never change again."""
        log = storage.join(layout.table(self.uri, layout.REJECTS), layout.DELTA_LOG)
        for info in list_objects(log, missing_ok=True):
            storage.delete(info.uri)


def open_existing(uri: str, version: int | None = None) -> Catalog:
    """Open a catalog that must be there.

    Raises:
        UsageError: It is not, or as those of `Catalog`.
    """
    catalog = Catalog(uri, version)
    if catalog.version is None:
        raise UsageError(f"there is no catalog at {catalog.uri}; check --catalog")
    return catalog


def write_run_record(catalog: str, run_id: str, record: Mapping[str, Any]) -> None:
    """Write a run's record as JSON, whole or not at all, over an earlier one of the same run."""
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    storage.write_bytes(layout.run_record(catalog, run_id), text.encode() + b"\n")


def read_run_record(catalog: str, run_id: str) -> dict[str, Any]:
    """Read a run's record.

    Raises:
        FileNotFoundError: There is no such run.
    """
    record: dict[str, Any] = json.loads(storage.read_bytes(layout.run_record(catalog, run_id)))
    return record


def _require_empty(uri: str) -> None:
    """Refuse a place with anything but what an interrupted first run leaves."""
    for info in list_objects(uri, missing_ok=True):
        inner = info.uri.removeprefix(f"{uri}/")
        expected = inner == storage.WRITE_TEST or inner.partition("/")[0] in layout.TOP_LEVEL
        if inner == info.uri or not expected:
            raise UsageError(
                f"{uri} holds other things ({info.uri}) and no gax catalog; choose an empty or a new place"
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
        # Rows keep the unit that made them; what is redone together is the part that holds them now.
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
