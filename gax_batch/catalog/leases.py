"""Runs whose parts stay although no snapshot has them: those at work, and those that may be resumed.

A run is unfinished while its record names no snapshot. The record is written when the run starts and when
it ends. In between, the run writes `lease` beside it every hour. So the age of the newer of both is the time
since the last sign of life, and a driver that was killed holds its parts only for so long.
"""

import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from gax_batch import paths, storage
from gax_batch.errors import GaxError
from gax_batch.listing import list_objects
from gax_batch.processes import map_threads

RENEW_SECONDS = 3600.0
# A backfill that works on weekend nights only is resumed after five days.
RESUMED_WITHIN = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class UnfinishedRun:
    """A run that may still commit parts of these settings."""

    run_id: str
    settings_fingerprint: str


@contextmanager
def hold(catalog: str, run_id: str, seconds: float = RENEW_SECONDS) -> Iterator[None]:
    """Renew a run's lease in a thread while the block runs, and give it back at the end.

    Args:
        catalog: The catalog's URI.
        run_id: The run, whose record is written in the block.
        seconds: Time between two renewals.
    """
    uri, ended = paths.run_lease(catalog, run_id), threading.Event()

    def renew() -> None:
        while not ended.wait(seconds):
            # The next try comes long before the lease ends.
            with suppress(GaxError, OSError):
                storage.write_bytes(uri, b"")

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(GaxError, OSError):
            storage.delete(uri)


def unfinished_runs(catalog: str, within: timedelta) -> list[UnfinishedRun]:
    """Find the runs that have committed nothing and gave a sign of life not long ago.

    A run that ended, and whose work a later run of the same input and settings has committed, is finished.

    Args:
        catalog: The catalog's URI.
        within: Time since the last sign of life.

    Raises:
        TransientError: The store kept failing.
    """
    signs = _signs_of_life(catalog)
    found: dict[tuple[Any, ...], list[UnfinishedRun]] = defaultdict(list)
    # A run's id begins with the time of its start.
    run_ids = sorted(signs)
    records = map_threads(lambda run_id: _read(signs[run_id][0]), run_ids)
    for run_id, record in zip(run_ids, records, strict=True):
        if "settings_fingerprint" not in record:
            continue
        settings = record["settings_fingerprint"]
        work = (settings, json.dumps(record.get("settings", {}).get("input")))
        if record.get("snapshot") is None:
            found[work].append(UnfinishedRun(run_id, settings))
        else:
            found[work] = [run for run in found[work] if len(signs[run.run_id]) > 1]
    runs = [run for same_work in found.values() for run in same_work]
    since = datetime.now(UTC) - within
    alive = map_threads(lambda run: _last_sign(signs[run.run_id]) > since, runs)
    return [run for run, lives in zip(runs, alive, strict=True) if lives]


def _signs_of_life(catalog: str) -> dict[str, list[str]]:
    """URIs of each run's record, and of its lease where there is one, by run."""
    root = storage.join(catalog, paths.RUNS)
    there = {info.uri for info in list_objects(root, missing_ok=True)}
    signs: dict[str, list[str]] = {}
    for uri in there:
        run_id = uri.removeprefix(f"{root}/").partition("/")[0]
        if uri == paths.run_record(catalog, run_id):
            lease = paths.run_lease(catalog, run_id)
            signs[run_id] = [uri, lease] if lease in there else [uri]
    return signs


def _read(uri: str) -> dict[str, Any]:
    try:
        record = json.loads(storage.read_bytes(uri))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _last_sign(uris: list[str]) -> datetime:
    times = []
    for uri in uris:
        with suppress(FileNotFoundError):
            times.append(storage.modified(uri))
    return max(times, default=datetime.min.replace(tzinfo=UTC))
