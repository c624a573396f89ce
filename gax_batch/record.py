"""The record of a run, `runs/<run_id>/run.json`: what ran, on what, how long, how many."""

import platform
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as package_version
from typing import Any

from gax_batch import __version__
from gax_batch.catalog.snapshots import write_run_record
from gax_batch.machine import MIB
from gax_batch.models.domain import Reference, warning_lines
from gax_batch.plan import Plan
from gax_batch.progress import Tally, duration

RECORDED_PACKAGES = ("ray", "tensorflow", "tensorflow-probability", "numpy", "pyarrow", "deltalake", "pillow")


@dataclass(frozen=True, slots=True)
class Run:
    """What identifies one run that has something to do.

    `settings` are plain JSON values; `reference` is the bundle's, None for one that has none.
    """

    run_id: str
    started: datetime
    catalog: str
    bundle_id: str
    settings: dict[str, Any]
    settings_fingerprint: str
    plan: Plan
    reference: Reference | None = None


class Clock:
    """Seconds of a run by stage."""

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


def write(
    run: Run,
    tally: Tally,
    clock: Clock,
    *,
    status: str,
    version: int | None = None,
    cause: str | None = None,
    peak_bytes: int = 0,
) -> dict[str, Any]:
    """Write the run's record, over an earlier one of the same run, and return it."""
    inferred = sum(part.planned for part in tally.parts) - tally.reused_cutouts
    process_seconds = clock.laps.get("process", 0.0)
    record = {
        "run_id": run.run_id,
        "status": status,
        "cause": cause,
        "started": run.started.isoformat(),
        "written": datetime.now(UTC).isoformat(),
        "settings": run.settings,
        "settings_fingerprint": run.settings_fingerprint,
        "bundle_id": run.bundle_id,
        "versions": {"gax-batch": __version__, "python": platform.python_version()}
        | {name: package_version(name) for name in RECORDED_PACKAGES},
        "plan": run.plan.counts.as_dict(),
        "counts": {
            "planned": run.plan.members,
            "units": len(run.plan.units),
            "units_reused": tally.reused_units,
            "units_removed": len(run.plan.removed),
            "units_failed": len(tally.failures),
            "cutouts_failed": tally.failed_cutouts,
            "galaxies": tally.rows,
            "rejects": tally.rejects,
            "rejects_by_reason": dict(sorted(tally.rejects_by_reason.items())),
        },
        "domain": None if run.reference is None else run.reference.judge(tally.images).as_dict(),
        "failures": tally.failures,
        "seconds": {**clock.laps, "total": clock.total},
        "seconds_of_work": dict(tally.seconds_by_step),
        "galaxies_per_second": inferred / process_seconds if process_seconds else None,
        "peak_memory_mib": round(peak_bytes / MIB),
        "snapshot": version,
    }
    write_run_record(run.catalog, run.run_id, record)
    return record


def summary_lines(record: dict[str, Any]) -> list[str]:
    """What a person wants to know at the end of a run."""
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
