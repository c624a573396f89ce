"""Deleting what no snapshot of the last days, and no unfinished run, needs."""

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

# More and the clock of this machine is no measure of an object's age.
MAX_CLOCK_ERROR = timedelta(hours=1)
_MAX_RACES = 10

_RUN_TIME = re.compile(r"(\d{8}T\d{6}Z)-")


@dataclass(frozen=True, slots=True)
class Vacuumed:
    """What was deleted, or would be.

    Attributes:
        parts: Parts and their companions.
        plans: Files of plans.
        ended: Snapshots that ended with them, and can no longer be opened.
        unfinished: Runs whose parts were left, by their ids.
    """

    parts: int
    plans: int
    ended: range
    unfinished: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Dead:
    parts: list[str]
    plans: list[str]
    first: int
    """The oldest snapshot that there is now."""
    oldest: int
    """The oldest one once the parts are deleted."""
    unfinished: tuple[str, ...]


def vacuum(uri: str, keep_days: int, *, dry_run: bool = False) -> Vacuumed:
    """Delete the parts that only snapshots older than some days need, and plans of runs older than that.

    A snapshot ends if one of its parts is deleted, and so do those before it. That is committed before
    anything is deleted, so that nobody restores such a snapshot at the same time. Parts of no snapshot are
    deleted once they are as old, unless an unfinished run of the same settings may still commit them.

    Args:
        uri: The catalog.
        keep_days: Every snapshot that was the newest one within these days stays; at least 1.
        dry_run: Only count.

    Raises:
        UsageError: There is no catalog, too few days, or this machine's clock differs from the storage's.
        FatalError: The store refused, or the log is damaged; nothing was deleted.
        TransientError: The store kept failing; what is left is deleted by the next try.
    """
    if keep_days < 1:
        raise UsageError(f"--keep-days must be at least 1, not {keep_days}: runs need their parts")
    _check_clock(open_existing(uri))
    age = timedelta(days=keep_days)
    dead = _find(open_existing(uri), age) if dry_run else _end_snapshots(uri, age)
    if not dry_run:
        for _ in map_threads(storage.delete, [*dead.parts, *dead.plans]):
            pass
    return Vacuumed(len(dead.parts), len(dead.plans), range(dead.first, dead.oldest), dead.unfinished)


def _end_snapshots(uri: str, age: timedelta) -> _Dead:
    """Commit which snapshots end; what is dead is found again if another commit came first."""
    for _ in range(_MAX_RACES):
        catalog = open_existing(uri)
        dead = _find(catalog, age)
        if dead.oldest == dead.first:
            return dead
        run_id = operation_id(VACUUM)
        try:
            catalog.end_before(dead.oldest, {"operation": VACUUM, "run_id": run_id, "oldest": dead.oldest})
        except LostRaceError:
            continue
        return dead
    raise FatalError(f"{_MAX_RACES} other commits to {uri} came first; run again when it is quiet")


def _find(catalog: Catalog, age: timedelta) -> _Dead:
    before = datetime.now(UTC) - age
    first = catalog.oldest()
    kept = _oldest_in_window(catalog, first, before)
    root = layout.table(catalog.uri, layout.GALAXIES_TABLE)
    needed = {name.key for opened in (catalog, Catalog(catalog.uri, kept)) for name in opened.parts()}
    for change in changes(root, kept, int(catalog.version or 0)):
        needed |= change.added
    unfinished = unfinished_runs(catalog.uri, max(age, RESUMED_WITHIN))
    held = {run.settings_fingerprint for run in unfinished}
    parts = _old([uri for uri in _parts(catalog.uri) if _is_dead(uri, needed, held)], before)
    names = (PartName.parse(uri) for uri in parts)
    keys = {name.key for name in names if name is not None}
    losses = (change.version for change in changes(root, first, kept) if change.removed & keys)
    runs = {run.run_id for run in unfinished}
    plans = list(_old_plans(catalog.uri, before, runs))
    return _Dead(parts, plans, first, max(losses, default=first), tuple(sorted(runs)))


def _oldest_in_window(catalog: Catalog, first: int, before: datetime) -> int:
    """The snapshot that was the newest one at a time; the first there is if it came later."""
    kept, latest = first, datetime.min.replace(tzinfo=UTC)
    for entry in reversed(catalog.history()):
        # A commit cannot be older than the one before it: that writer's clock was slow.
        latest = max(latest, entry.time)
        if entry.version > first and latest < before:
            kept = entry.version
    return kept


def _parts(catalog: str) -> Iterator[str]:
    for kind in (layout.GALAXIES_TABLE, *layout.COMPANIONS):
        for info in list_objects(layout.parts_root(catalog, kind), missing_ok=True):
            yield info.uri


def _is_dead(uri: str, needed: Collection[str], held: Collection[str]) -> bool:
    name = PartName.parse(uri)
    # What has another name is half a file that a killed process has left.
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
    """Refuse to judge ages by a clock that is not the storage's."""
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
            f"this machine's clock and the storage's differ by {wrong}, so ages cannot be judged; "
            "set the clock, then vacuum again"
        )
