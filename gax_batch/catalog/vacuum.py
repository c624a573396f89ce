"""Delete the parts that neither a snapshot of the last days nor an unfinished run needs."""

import re
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gax_batch import storage
from gax_batch.catalog import layout
from gax_batch.catalog.delta import LostRaceError
from gax_batch.catalog.history import VACUUM, operation_id
from gax_batch.catalog.layout import PartName
from gax_batch.catalog.log import changes
from gax_batch.catalog.snapshots import Catalog, open_existing
from gax_batch.catalog.unfinished import RESUMED_WITHIN, unfinished_runs
from gax_batch.errors import FatalError, UsageError
from gax_batch.storage.listing import list_objects
from gax_batch.system.concurrency import map_threads

# With a larger error, the clock of this machine cannot measure the age of an object.
MAX_CLOCK_ERROR = timedelta(hours=1)
_MAX_RACES = 10

_RUN_TIME = re.compile(r"(\d{8}T\d{6}Z)-")


@dataclass(frozen=True, slots=True)
class Vacuumed:
    """Counts of what a vacuum has deleted, or would delete.

    Attributes:
        parts: Number of parts and companions.
        plans: Number of files of plans.
        ended: Numbers of the snapshots that can no longer be opened.
        unfinished: Ids of the runs whose parts were kept.
    """

    parts: int
    plans: int
    ended: range
    unfinished: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Obsolete:
    parts: list[str]
    plans: list[str]
    first: int
    """The oldest snapshot before the vacuum."""
    oldest: int
    """The oldest snapshot after the parts are deleted."""
    unfinished: tuple[str, ...]


def vacuum(uri: str, keep_days: int, *, dry_run: bool = False) -> Vacuumed:
    """Delete the parts that only snapshots older than some days need, and plans of runs older than that.

    A snapshot ends if one of its parts is deleted, and so do the snapshots before it. The end is committed
    before anything is deleted, so that no other process restores such a snapshot at the same time. Parts
    that are not in any snapshot are deleted at the same age, unless an unfinished run of the same settings
    may still commit them.

    Args:
        uri: URI of the catalog.
        keep_days: Days, at least 1. Every snapshot that was the newest one within these days stays.
        dry_run: Only count.

    Returns:
        The counts of what was deleted.

    Raises:
        UsageError: There is no catalog, `keep_days` is too small, or the clock of this machine differs from
            that of the storage.
        FatalError: The store refused, or the log is damaged; nothing was deleted.
        TransientError: The store kept failing; the next vacuum deletes the rest.
    """
    if keep_days < 1:
        raise UsageError(f"--keep-days must be at least 1, not {keep_days}: runs need their parts")
    _check_clock(open_existing(uri))
    age = timedelta(days=keep_days)
    obsolete = _find(open_existing(uri), age) if dry_run else _end_snapshots(uri, age)
    if not dry_run:
        for _ in map_threads(storage.delete, [*obsolete.parts, *obsolete.plans]):
            pass
    return Vacuumed(
        len(obsolete.parts), len(obsolete.plans), range(obsolete.first, obsolete.oldest), obsolete.unfinished
    )


def _end_snapshots(uri: str, age: timedelta) -> _Obsolete:
    """Commit the end of old snapshots. Search again for what to delete if another commit came first."""
    for _ in range(_MAX_RACES):
        catalog = open_existing(uri)
        obsolete = _find(catalog, age)
        if obsolete.oldest == obsolete.first:
            return obsolete
        run_id = operation_id(VACUUM)
        try:
            catalog.end_before(
                obsolete.oldest, {"operation": VACUUM, "run_id": run_id, "oldest": obsolete.oldest}
            )
        except LostRaceError:
            continue
        return obsolete
    raise FatalError(f"{_MAX_RACES} other commits to {uri} came first; run again when no other run commits")


def _find(catalog: Catalog, age: timedelta) -> _Obsolete:
    before = datetime.now(UTC) - age
    first = catalog.oldest()
    kept = _oldest_in_window(catalog, first, before)
    root = layout.table(catalog.uri, layout.GALAXIES_TABLE)
    needed = {name.key for opened in (catalog, Catalog(catalog.uri, kept)) for name in opened.parts()}
    for change in changes(root, kept, int(catalog.version or 0)):
        needed |= change.added
    unfinished = unfinished_runs(catalog.uri, max(age, RESUMED_WITHIN))
    held = {run.settings_fingerprint for run in unfinished}
    parts = _old([uri for uri in _parts(catalog.uri) if _is_obsolete(uri, needed, held)], before)
    names = (PartName.parse(uri) for uri in parts)
    keys = {name.key for name in names if name is not None}
    losses = (change.version for change in changes(root, first, kept) if change.removed & keys)
    runs = {run.run_id for run in unfinished}
    plans = list(_old_plans(catalog.uri, before, runs))
    return _Obsolete(parts, plans, first, max(losses, default=first), tuple(sorted(runs)))


def _oldest_in_window(catalog: Catalog, first: int, before: datetime) -> int:
    """Return the snapshot that was the newest at a time, or the first one if it is later."""
    kept, latest = first, datetime.min.replace(tzinfo=UTC)
    for entry in reversed(catalog.history()):
        # A commit cannot be older than the one before it: the clock of its writer was slow.
        latest = max(latest, entry.time)
        if entry.version > first and latest < before:
            kept = entry.version
    return kept


def _parts(catalog: str) -> Iterator[str]:
    for kind in (layout.GALAXIES_TABLE, *layout.COMPANIONS):
        for info in list_objects(layout.parts_root(catalog, kind), missing_ok=True):
            yield info.uri


def _is_obsolete(uri: str, needed: Collection[str], held: Collection[str]) -> bool:
    name = PartName.parse(uri)
    # A file with another name is incomplete: a terminated process has left it.
    return name is None or (name.key not in needed and name.settings_fingerprint not in held)


def _old(uris: list[str], before: datetime) -> list[str]:
    def is_old(uri: str) -> bool:
        try:
            return storage.modified(uri) < before
        except FileNotFoundError:
            return False

    return [uri for uri, old in zip(uris, map_threads(is_old, uris), strict=True) if old]


def _old_plans(catalog: str, before: datetime, unfinished: Collection[str]) -> Iterator[str]:
    root = layout.runs_folder(catalog)
    for info in list_objects(root, missing_ok=True):
        run_id, _, name = info.uri.removeprefix(f"{root}/").partition("/")
        match = _RUN_TIME.match(run_id)
        if match and name.startswith("plan/") and run_id not in unfinished:
            started = datetime.strptime(match[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            if started < before:
                yield info.uri


def _check_clock(catalog: Catalog) -> None:
    """Refuse to compute ages if the clock of this machine differs from that of the storage."""
    probe = storage.join(layout.runs_folder(catalog.uri), f".clock-{uuid.uuid4().hex}")
    storage.write_bytes(probe, b"")
    try:
        error = datetime.now(UTC) - storage.modified(probe)
    finally:
        storage.delete(probe)
    newest = catalog.history()[0].time - datetime.now(UTC)
    if abs(error) > MAX_CLOCK_ERROR or newest > MAX_CLOCK_ERROR:
        wrong = max(abs(error), newest)
        raise UsageError(
            f"the clocks of this machine and of the storage differ by {wrong}, so that ages are unknown; "
            "set the clock, then vacuum again"
        )
