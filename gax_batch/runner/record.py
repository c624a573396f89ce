"""The record of a run, `runs/<run_id>/run.json`: settings, versions, counts, durations and outcome.

During a run, its record has the status `running` and is rewritten every `RENEWAL_SECONDS`. If the driver of a
run ended without writing the outcome, the next run writes it, as the log of the catalog shows it.
"""

import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version as package_version
from typing import Any

from gax_batch import __version__, storage
from gax_batch.catalog.delta import Entry
from gax_batch.catalog.snapshots import Catalog, write_run_record
from gax_batch.catalog.unfinished import RUNNING, read_record, run_ids
from gax_batch.cluster.progress import RunCounts, duration
from gax_batch.errors import GaxError, UnknownCommitError
from gax_batch.models.domain import Reference, warning_lines
from gax_batch.planning.plan import Plan
from gax_batch.storage.listing import split_glob
from gax_batch.system.machine import MIB
from gax_batch.system.signals import StoppedError

RECORDED_PACKAGES = ("ray", "tensorflow", "tensorflow-probability", "numpy", "pyarrow", "deltalake", "pillow")


@dataclass(frozen=True, slots=True)
class Run:
    """A run with units to process.

    Attributes:
        run_id: Identifier of the run.
        started: Time at which the run started.
        catalog: URI of the catalog.
        bundle_id: Identifier of the model bundle.
        settings: Settings as plain JSON values.
        settings_fingerprint: Fingerprint of the settings.
        plan: Units of the run.
        reference: Reference images of the bundle, None for a bundle without them.
    """

    run_id: str
    started: datetime
    catalog: str
    bundle_id: str
    settings: dict[str, Any]
    settings_fingerprint: str
    plan: Plan
    reference: Reference | None = None


COMPLETE, FAILED_UNITS, FAILED, INTERRUPTED = "complete", "failed units", "failed", "interrupted"

RENEWAL_SECONDS = 600.0
_LOST_AFTER = timedelta(seconds=3 * RENEWAL_SECONDS)
# Every run checks the records before its own, so that records without an outcome are among the last ones.
_CHECKED_RECORDS = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a run, from which its message, exit code and record are derived.

    Attributes:
        status: `COMPLETE`, `FAILED_UNITS`, `FAILED` or `INTERRUPTED`.
        exit_code: 0, or 3 with failed units; without a commit 2 or 4, or 130 and 143 for signals.
        version: The snapshot that the run committed, None without a commit.
        cause: The error that ended the run or followed the commit, None without an error.
        unknown: Whether it is unknown if the commit exists; then `version` is None.
    """

    status: str
    exit_code: int
    version: int | None = None
    cause: str | None = None
    unknown: bool = False

    @classmethod
    def of(cls, version: int | None, *, failed_units: int, error: BaseException | None) -> "Outcome":
        """Derive the outcome of a run.

        Args:
            version: Committed snapshot. With one, the run did not fail, whatever the error is.
            failed_units: Number of units that failed.
            error: Error that ended the run or followed the commit.
        """
        cause = None if error is None else str(error) or type(error).__name__
        if version is not None:
            return cls(FAILED_UNITS if failed_units else COMPLETE, 3 if failed_units else 0, version, cause)
        if isinstance(error, KeyboardInterrupt):
            return cls(INTERRUPTED, 130, None, cause)
        if isinstance(error, StoppedError):
            return cls(INTERRUPTED, error.exit_code, None, cause)
        exit_code = error.exit_code if isinstance(error, GaxError) else 4
        return cls(FAILED, exit_code, None, cause, isinstance(error, UnknownCommitError))

    @property
    def messages(self) -> list[str]:
        """Lines to log about the outcome; empty if there was no problem."""
        if self.unknown:
            return []  # the message of the error explains it
        if self.version is None:
            return ["nothing was committed; finished units are kept, and the same command reuses them"]
        if self.cause is not None:
            return [f"snapshot {self.version} is committed; after that, this failed: {self.cause}"]
        return []


class Clock:
    """Measures the seconds of each stage of a run.

    Attributes:
        laps: Seconds by name of the stage.
    """

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._start = self._last = time.monotonic()

    def lap(self, stage: str) -> None:
        """End a stage."""
        now = time.monotonic()
        self.laps[stage] = now - self._last
        self._last = now

    @property
    def total(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._start


def describe(
    run: Run, counts: RunCounts, clock: Clock, outcome: Outcome | None = None, *, peak_bytes: int = 0
) -> dict[str, Any]:
    """Return the record of a run as plain JSON values.

    Args:
        run: The run.
        counts: Counts of its units and cutouts.
        clock: Seconds of its stages.
        outcome: Outcome of the run, None while it runs.
        peak_bytes: Peak memory, bytes.
    """
    inferred = sum(part.planned for part in counts.parts) - counts.reused_cutouts
    process_seconds = clock.laps.get("process", 0.0)
    return {
        "run_id": run.run_id,
        "status": RUNNING if outcome is None else outcome.status,
        "cause": None if outcome is None else outcome.cause,
        "exit_code": None if outcome is None else outcome.exit_code,
        "started": run.started.isoformat(),
        "written": datetime.now(UTC).isoformat(),
        "settings": run.settings,
        "input_root": split_glob(storage.normalize_uri(run.settings["input"]))[0],
        "settings_fingerprint": run.settings_fingerprint,
        "bundle_id": run.bundle_id,
        "versions": {"gax-batch": __version__, "python": platform.python_version()}
        | {name: package_version(name) for name in RECORDED_PACKAGES},
        "plan": run.plan.counts.as_dict(),
        "counts": {
            "planned": run.plan.members,
            "units": len(run.plan.units),
            "units_reused": counts.reused_units,
            "units_removed": len(run.plan.removed),
            "units_failed": len(counts.failures),
            "cutouts_failed": counts.failed_cutouts,
            "galaxies": counts.rows,
            "rejects": counts.rejects,
            "rejects_by_reason": dict(sorted(counts.rejects_by_reason.items())),
        },
        "domain": None if run.reference is None else run.reference.judge(counts.images).as_dict(),
        "failures": dict(counts.failures),
        "seconds": {**clock.laps, "total": clock.total},
        "seconds_of_work": dict(counts.seconds_by_step),
        "galaxies_per_second": inferred / process_seconds if process_seconds else None,
        "peak_memory_mib": round(peak_bytes / MIB),
        "snapshot": None if outcome is None else outcome.version,
    }


def store(catalog: str, record: dict[str, Any]) -> None:
    """Write the record of a run, and replace an earlier record of the same run.

    Raises:
        OSError: It cannot be written.
        TransientError: The store kept failing.
    """
    write_run_record(catalog, record["run_id"], record)


@contextmanager
def kept_running(run: Run, counts: RunCounts, clock: Clock) -> Iterator[None]:
    """Store the record of a run, and rewrite it regularly while the block runs.

    Raises:
        OSError: It cannot be written.
        TransientError: The store kept failing.
    """
    record = describe(run, counts, clock)
    store(run.catalog, record)
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(RENEWAL_SECONDS):
            with suppress(GaxError, OSError):
                store(run.catalog, {**record, "written": datetime.now(UTC).isoformat()})

    thread = threading.Thread(target=renew, name="run-record", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        # A late renewal must not replace the record of the end.
        thread.join()


def commit_of(catalog: str, run_id: str) -> Entry | None:
    """Return the commit of a run from the log of the catalog, or None.

    Raises:
        UsageError: The catalog cannot be read.
        TransientError: The store kept failing.
    """
    entries = Catalog(catalog).history()
    # Entries with an operation only prepare the table.
    mine = (e for e in entries if e.facts.get("run_id") == run_id and "operation" not in e.facts)
    return next(mine, None)


def complete_lost_records(catalog: str) -> None:
    """Complete the records of runs whose driver ended without writing the outcome, for example by SIGKILL.

    Errors of the storage are ignored here. The run that follows reports them.
    """
    with suppress(GaxError, OSError):
        for run_id in run_ids(catalog)[-_CHECKED_RECORDS:]:
            record = read_record(catalog, run_id)
            if record.get("status") != RUNNING:
                continue
            if datetime.now(UTC) - datetime.fromisoformat(record["written"]) < _LOST_AFTER:
                continue
            commit = commit_of(catalog, run_id)
            ended = {
                "status": INTERRUPTED if commit is None else commit.facts.get("status", COMPLETE),
                "cause": "the driver ended without a record of its end",
                "snapshot": None if commit is None else commit.version,
            }
            store(catalog, {**record, **ended})


def summary_lines(record: dict[str, Any]) -> list[str]:
    """Return the lines of the summary that is logged at the end of a run."""
    counts = record["counts"]
    lines = [
        f"{counts['planned']:,} planned = {counts['galaxies']:,} galaxies + {counts['rejects']:,} rejects"
    ]
    if counts["units_failed"]:
        lines[0] += f" + {counts['cutouts_failed']:,} in {counts['units_failed']:,} failed units"
    lines += [f"  rejected {n:,}: {reason}" for reason, n in counts["rejects_by_reason"].items()]
    lines += [f"  failed unit {unit}: {cause}" for unit, cause in list(record["failures"].items())[:5]]
    rate = record["galaxies_per_second"]
    speed = f"{rate:,.1f} cutouts/s, " if rate else ""
    lines.append(
        f"{duration(record['seconds']['total'])}, {speed}"
        f"peak memory {record['peak_memory_mib']:,} MiB besides the object store"
    )
    lines += warning_lines(record["domain"])
    lines.append(f"snapshot {record['snapshot']} of {record['settings']['catalog']} (run {record['run_id']})")
    return lines
