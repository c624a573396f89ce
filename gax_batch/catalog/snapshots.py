"""A catalog at one snapshot: what is in it.

A catalog is two Delta tables, and the active parts of `galaxies` are authoritative: a rejects part is
valid if the galaxies part of the same name is active. `commits` makes the next snapshot.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gax_batch import paths, storage
from gax_batch.catalog.commits import Commit, by_unit, keys_of
from gax_batch.catalog.delta import Table
from gax_batch.catalog.schema import GALAXIES, REJECTS
from gax_batch.catalog.writer import Part, read_columns, read_in_turn
from gax_batch.errors import FatalError, UsageError
from gax_batch.listing import list_objects
from gax_batch.paths import PartName
from gax_batch.rejects import PASSING, Stage

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
    ]
)
"""What a plan compares a listing with; `plan_reason` is the reason of a reject of stage `plan`."""

_DESCRIPTIONS = {
    paths.GALAXIES_TABLE: (GALAXIES, "galaxy morphology probabilities with uncertainties, a row per galaxy"),
    paths.REJECTS_TABLE: (REJECTS, "cutouts that could not be cataloged, and why"),
}


class Catalog:
    """A catalog at one snapshot; opening one that does not exist yet is fine and writes nothing."""

    def __init__(self, uri: str) -> None:
        """Open a catalog at its newest snapshot.

        Args:
            uri: Its folder or prefix.

        Raises:
            UsageError: Something else is there, or it cannot be read, or its format is newer.
        """
        self.uri = storage.normalize_uri(uri)
        self._galaxies = Table(paths.table(self.uri, paths.GALAXIES_TABLE))
        self._rejects = Table(paths.table(self.uri, paths.REJECTS_TABLE))
        if self._galaxies.version is None:
            _require_empty(self.uri)
        self._active = by_unit(self._galaxies)

    @property
    def version(self) -> int | None:
        """The number of the snapshot; None while nothing was ever committed."""
        return self._galaxies.version

    def units(self) -> dict[str, tuple[str, str]]:
        """Settings fingerprint and unit fingerprint of every unit, by unit id."""
        return {unit: (name.settings_fingerprint, name.fingerprint) for unit, name in self._active.items()}

    def members(self) -> Iterator[pa.Table]:
        """Every cutout that the snapshot accounts for, as a galaxy or as a reject, for a plan.

        Yields:
            `KNOWN_SCHEMA`, some parts at a time; over all of them, `source_uri` is unique, and `galaxy_id`
            among those that are not rejected. A reject for a passing fault has no version, so that a plan
            takes it for changed.

        Raises:
            UsageError: A part is missing or unreadable: the user has to mend the catalog first.
            TransientError: The store kept failing.
        """
        try:
            keys = keys_of(self._active.values())
            yield from map(_known_galaxies, read_in_turn(self._galaxies.uri, keys, _KNOWN_OF_GALAXIES))
            keys = keys_of(self._valid_rejects())
            yield from map(_known_rejects, read_in_turn(self._rejects.uri, keys, _KNOWN_OF_REJECTS))
        except FatalError as error:
            raise UsageError(str(error)) from error

    def galaxies(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Every row of the snapshot, in memory.

        Args:
            columns: Names of the columns to read; all of `GALAXIES` if none are given.

        Raises:
            FatalError: A part is missing or unreadable.
            TransientError: The store kept failing.
        """
        schema = GALAXIES if columns is None else pa.schema([GALAXIES.field(name) for name in columns])
        return read_columns(self._galaxies.uri, keys_of(self._active.values()), schema)

    def rejects(self) -> pa.Table:
        """Every valid reject of the snapshot: `REJECTS`; errors as those of `galaxies`."""
        return read_columns(self._rejects.uri, keys_of(self._valid_rejects()), REJECTS)

    def commit(
        self,
        parts: Sequence[Part],
        *,
        run_id: str,
        metadata: Mapping[str, str | int],
        removed: Sequence[str] = (),
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

        Returns:
            The number of the snapshot that has the parts.

        Raises:
            UsageError: Another run has committed the same units or galaxies; nothing was committed.
            FatalError: The store refused.
            TransientError: The store kept failing.
        """
        if not (parts or removed) and self.version is not None:
            return self.version
        for table in (self._rejects, self._galaxies):
            if table.version is None:
                schema, description = _DESCRIPTIONS[table.uri.rpartition("/")[2]]
                table.create(f"gax {table.uri.rpartition('/')[2]}", description, schema)
        change = Commit(self._galaxies, self._rejects, self._active, parts, removed)
        change.run(run_id, {**metadata, "run_id": run_id})
        # Only ours: what other runs did meanwhile must still count as unseen in the next commit.
        newest, gone = by_unit(self._galaxies), set(removed)
        self._active = {unit: name for unit, name in self._active.items() if unit not in gone}
        self._active |= {p.unit_id: newest[p.unit_id] for p in parts if p.unit_id in newest}
        return int(self._galaxies.version or 0)

    def _valid_rejects(self) -> list[PartName]:
        active = set(self._active.values())
        return [name for name in self._rejects.parts() if name in active]


def write_run_record(catalog: str, run_id: str, record: Mapping[str, Any]) -> None:
    """Write a run's record as JSON, whole or not at all, over an earlier one of the same run."""
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    storage.write_bytes(paths.run_record(catalog, run_id), text.encode() + b"\n")


def read_run_record(catalog: str, run_id: str) -> dict[str, Any]:
    """Read a run's record.

    Raises:
        FileNotFoundError: There is no such run.
    """
    record: dict[str, Any] = json.loads(storage.read_bytes(paths.run_record(catalog, run_id)))
    return record


def _require_empty(uri: str) -> None:
    """Refuse a place with anything but what an interrupted first run leaves."""
    for info in list_objects(uri, missing_ok=True):
        inner = info.uri.removeprefix(f"{uri}/")
        if inner == info.uri or inner.partition("/")[0] not in paths.TOP_LEVEL:
            raise UsageError(
                f"{uri} holds other things ({info.uri}) and no gax catalog; choose an empty or a new place"
            )


def _some(schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    return pa.schema([schema.field(name).remove_metadata().with_nullable(True) for name in names])


_NO_TEXT = pa.scalar(None, pa.string())
_KNOWN_OF_GALAXIES = _some(GALAXIES, ["source_uri", "source_version", "galaxy_id", "unit_id", "ra", "dec"])
_KNOWN_OF_REJECTS = _some(
    REJECTS, ["source_uri", "source_version", "galaxy_id", "unit_id", "stage", "reason"]
)


def _known_galaxies(galaxies: pa.Table) -> pa.Table:
    return _known(galaxies.append_column("rejected", pa.repeat(False, len(galaxies))))


def _known_rejects(rejects: pa.Table) -> pa.Table:
    # Without a version they count as changed, so that the next run tries them again.
    passing = pc.is_in(rejects["reason"], pa.array([str(reason) for reason in sorted(PASSING)]))
    version = pc.if_else(passing, _NO_TEXT, rejects["source_version"])
    rejects = rejects.set_column(rejects.column_names.index("source_version"), "source_version", version)
    plan_reason = pc.if_else(pc.equal(rejects["stage"], Stage.PLAN.value), rejects["reason"], _NO_TEXT)
    rejects = rejects.append_column("plan_reason", plan_reason)
    return _known(rejects.append_column("rejected", pa.repeat(True, len(rejects))))


def _known(table: pa.Table) -> pa.Table:
    names = table.column_names
    columns = [table[f.name] if f.name in names else pa.nulls(len(table), f.type) for f in KNOWN_SCHEMA]
    return pa.table(columns, schema=KNOWN_SCHEMA)
