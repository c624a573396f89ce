"""Commit the next snapshot of a catalog: one transaction adds parts and removes those that they replace.

Companions, such as rejects, need no transaction: they are written before their part and are valid while it is
active.
"""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from gax_batch import storage
from gax_batch.catalog import layout
from gax_batch.catalog.companions import with_rejects
from gax_batch.catalog.delta import LostRaceError, NewFile, Table
from gax_batch.catalog.layout import PartName
from gax_batch.catalog.parts import Part, read_in_turn
from gax_batch.errors import FatalError, UsageError
from gax_batch.system.concurrency import map_threads
from gax_batch.system.disk_database import Scratch

# Each lost race means that another run has committed. No real operation loses this many.
MAX_RACES = 50

_IDENTITY = pa.schema([("galaxy_id", pa.string()), ("source_uri", pa.string())])
_SHARED = """
SELECT (SELECT count(*) FROM ours SEMI JOIN theirs USING (galaxy_id)) AS galaxies,
    (SELECT count(*) FROM ours SEMI JOIN theirs USING (source_uri)) AS cutouts
"""


class Commit:
    """The changes of one run to a catalog, on top of the snapshot that is the newest at the commit."""

    def __init__(
        self,
        catalog: str,
        galaxies: Table,
        planned_from: Mapping[str, PartName],
        parts: Sequence[Part],
        removed: Iterable[str] = (),
        restored: int | None = None,
    ) -> None:
        """Prepare a commit.

        Args:
            catalog: URI of the catalog.
            galaxies: Table of galaxies. It must exist; the commit moves it to its newest snapshot.
            planned_from: The active part of each unit when the run was planned.
            parts: Parts to make visible. Each replaces the older part of its unit.
            removed: Units to remove.
            restored: The earlier snapshot that the parts are taken from, if any.
        """
        self._catalog = catalog
        self._galaxies = galaxies
        self._planned_from = planned_from
        self._parts = parts
        self._removed = sorted(set(removed))
        self._restored = restored

    def run(self, facts: Mapping[str, str | int]) -> None:
        """Commit everything or nothing; the same commit again changes nothing.

        If the store commits but its answer is lost, the next round finds the parts of this commit active,
        and has nothing left to do.

        Args:
            facts: Facts that are stored with the commit.

        Raises:
            UsageError: Another run has committed the same units or galaxies, or the restored snapshot has
                ended; nothing was committed.
            FatalError: A part is missing or incomplete, or the store refused; nothing was committed.
            TransientError: The store kept failing.
        """
        for _ in range(MAX_RACES):
            self._galaxies.refresh()
            if self._restored is not None:
                self._galaxies.require(self._restored)
            add, remove = self._changes()
            if not (add or remove):
                return
            self._require_stored(add)
            noted = {**facts, **self._counts(add, remove)}
            files = [NewFile(part.key, part.size, part.stats) for part in add]
            try:
                self._galaxies.commit(files, remove, metadata=noted)
            except LostRaceError:
                continue
            return
        raise FatalError(
            f"{MAX_RACES} other commits to {self._galaxies.uri} came first; "
            "run again when no other run commits"
        )

    def _changes(self) -> tuple[list[Part], list[str]]:
        """Return the parts to add and the keys to remove, on top of the newest snapshot."""
        newest = by_unit(self._galaxies)
        add: list[Part] = []
        remove: list[str] = []
        clashes = 0
        for part in self._parts:
            before, now = self._planned_from.get(part.unit_id), newest.get(part.unit_id)
            if now is not None and now.key == part.key:
                continue
            if now == before:
                add.append(part)
                remove += [] if now is None else [now.key]
            elif now is None or not _same_work(now, part):
                clashes += 1
        for unit in self._removed:
            now = newest.get(unit)
            if now is not None and now == self._planned_from.get(unit):
                remove.append(now.key)
            elif now is not None:
                clashes += 1
        if not clashes:
            ours = {PartName.parse(part.key) for part in self._parts}
            foreign = set(newest.values()) - set(self._planned_from.values()) - ours
            clashes = self._shared_galaxies(add, foreign)
        if clashes:
            raise UsageError(
                f"another run has committed {clashes} of the same units or galaxies to {self._galaxies.uri} "
                "since this one was planned; nothing was committed: let one run at a time write to it and "
                "run again"
            )
        return add, remove

    def _require_stored(self, parts: Sequence[Part]) -> None:
        """Refuse parts that are missing or incomplete: delta-rs commits files that do not exist."""
        files = [(storage.join(self._galaxies.uri, part.key), part.size) for part in parts]
        files += [
            (layout.companion(self._catalog, layout.REJECTS, part.key), part.reject_size)
            for part in parts
            if part.reject_size is not None
        ]
        whole = map_threads(_is_whole, files)
        lost = [uri for (uri, _), is_whole in zip(files, whole, strict=True) if not is_whole]
        if lost:
            raise FatalError(
                f"{len(lost):,} of {len(files):,} files of this commit are missing or incomplete, such as "
                f"{lost[0]}; nothing was committed: run the same command again to write them again"
            )

    def _counts(self, add: Sequence[Part], remove: Sequence[str]) -> dict[str, int]:
        """Count the galaxies and units that the commit adds and removes, and the galaxies after it."""
        rows = self._galaxies.rows()
        added, removed = sum(part.rows for part in add), sum(rows[key] for key in remove)
        return {
            "galaxies": sum(rows.values()) + added - removed,
            "galaxies_added": added,
            "galaxies_removed": removed,
            "units_added": len(add),
            "units_removed": len(remove),
        }

    def _shared_galaxies(self, parts: Sequence[Part], foreign: set[PartName]) -> int:
        """Count the cutouts or galaxies of these parts that other runs have added since the plan."""
        if not foreign or not parts:
            return 0
        theirs = self._identities(foreign)
        ours = self._identities({name for part in parts if (name := PartName.parse(part.key))})
        with tempfile.TemporaryDirectory(prefix="gax-") as folder, Scratch(Path(folder)) as scratch:
            scratch.load("theirs", _IDENTITY, theirs)
            scratch.load("ours", _IDENTITY, ours)
            found = scratch.one(_SHARED) or {}
        return int(max(found.values()))

    def _identities(self, names: set[PartName]) -> Iterator[pa.Table]:
        yield from read_in_turn(self._galaxies.uri, keys_of(names), _IDENTITY)
        rejects = keys_of(with_rejects(self._catalog, names))
        for bad in read_in_turn(layout.table(self._catalog, layout.REJECTS), rejects, _IDENTITY):
            # A reject does not claim its id.
            yield pa.table([pa.nulls(len(bad), pa.string()), bad["source_uri"]], schema=_IDENTITY)


def by_unit(galaxies: Table) -> dict[str, PartName]:
    """Return the active part of every unit.

    Raises:
        UsageError: The table has two parts of one unit, or files that this package did not write.
    """
    names = galaxies.parts()
    units = {name.unit_id: name for name in names}
    if len(units) != len(names):
        raise UsageError(f"{galaxies.uri} has a unit twice; restore an earlier version of the table")
    return units


def keys_of(names: Iterable[PartName]) -> list[str]:
    """Return the keys of parts, sorted."""
    return sorted(name.key for name in names)


def _same_work(name: PartName, part: Part) -> bool:
    mine = PartName.parse(part.key)
    return mine is not None and (name.settings_fingerprint, name.fingerprint) == (
        mine.settings_fingerprint,
        mine.fingerprint,
    )


def _is_whole(file: tuple[str, int]) -> bool:
    uri, size = file
    try:
        return storage.stat(uri).size in (size, storage.UNKNOWN_SIZE)
    except FileNotFoundError:
        return False
