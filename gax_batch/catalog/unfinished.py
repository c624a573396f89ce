"""Find unfinished runs, at work or to be resumed, whose parts are kept although no snapshot has them.

A run is unfinished while its record does not name a snapshot. A run at work renews its record
(`gax_batch.runner.record`). The age of a record is therefore the time since the run was last known to work.
The parts of a terminated driver are kept only for a limited time.
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from gax_batch import storage
from gax_batch.catalog import layout
from gax_batch.storage.listing import list_objects
from gax_batch.system.concurrency import map_threads

RUNNING = "running"
"""The status in the record of a run at work."""
# A backfill that works on weekend nights only is resumed after five days.
RESUMED_WITHIN = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class UnfinishedRun:
    """A run that may still commit parts of these settings."""

    run_id: str
    settings_fingerprint: str


def unfinished_runs(catalog: str, within: timedelta) -> list[UnfinishedRun]:
    """Find the runs that have not committed and whose records were written recently.

    A run that ended, and whose work a later run of the same input and settings has committed, is finished.

    Args:
        catalog: URI of the catalog.
        within: Maximum age of the record.

    Raises:
        TransientError: The store kept failing.
    """
    found: dict[tuple[Any, ...], list[UnfinishedRun]] = defaultdict(list)
    names = run_ids(catalog)
    records = dict(zip(names, map_threads(lambda name: read_record(catalog, name), names), strict=True))
    for run_id, record in records.items():
        if "settings_fingerprint" not in record:
            continue
        settings = record["settings_fingerprint"]
        work = (settings, json.dumps(record.get("settings", {}).get("input")))
        if record.get("snapshot") is None:
            found[work].append(UnfinishedRun(run_id, settings))
        else:
            found[work] = [run for run in found[work] if records[run.run_id].get("status") == RUNNING]
    runs = [run for same_work in found.values() for run in same_work]
    since = datetime.now(UTC) - within
    recent = map_threads(lambda run: _written(catalog, run.run_id) > since, runs)
    return [run for run, is_recent in zip(runs, recent, strict=True) if is_recent]


def run_ids(catalog: str) -> list[str]:
    """Return the ids of the runs that have a record. Ids begin with the time of the start and are sorted."""
    there = (info.uri for info in list_objects(layout.runs_folder(catalog), missing_ok=True))
    names = (uri.split("/")[-2] for uri in there if uri.endswith("/run.json"))
    return sorted(names)


def read_record(catalog: str, run_id: str) -> dict[str, Any]:
    """Return the record of a run; empty if it cannot be read."""
    try:
        record = json.loads(storage.read_bytes(layout.run_record(catalog, run_id)))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _written(catalog: str, run_id: str) -> datetime:
    """Return when a record was written, by the clock of the storage."""
    try:
        return storage.modified(layout.run_record(catalog, run_id))
    except FileNotFoundError:
        return datetime.min.replace(tzinfo=UTC)
