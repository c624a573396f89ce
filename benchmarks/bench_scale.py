"""The metadata of a catalog of 100 million galaxies: 25,000 parts committed, and three new shards added."""

import hashlib
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.suite import Lab, Row, Sample, Target
from gax_batch.catalog.layout import MANY_ORIGINS, PartName, origin_of
from gax_batch.catalog.parts import Part
from gax_batch.catalog.snapshots import Catalog
from gax_batch.models.bundle import load_bundle
from gax_batch.runner.fingerprint import settings_fingerprint
from gax_batch.runner.preparation import plan_run
from gax_batch.runner.settings import RunSettings, load_settings
from gax_batch.storage.listing import list_objects

PARTS = 25_000
ROWS = 4_000
NEW = 3


def part(name: PartName, rows: int, ids: tuple[str, str]) -> Part:
    """Return a finished unit's part as in the catalog's log, with statistics as long as real ones."""
    low, high = ({"galaxy_id": galaxy, "ra": 0.0, "dec": 0.0} for galaxy in ids)
    nulls = {"galaxy_id": 0, "ra": 0, "dec": 0}
    stats = {"numRecords": rows, "minValues": low, "maxValues": high, "nullCount": nulls}
    return Part(
        name.unit_id, name.fingerprint, name.key, 800 * rows, rows, 0, rows, json.dumps(stats), None, {}
    )


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cataloged(shards: Path, settings: str) -> list[Part]:
    """Return one part for each shard, each shard one unit."""
    parts = []
    for number, info in enumerate(list_objects(str(shards))):
        origin = origin_of(info.uri, info.version)
        name = PartName(
            settings, digest(f"unit {number}"), digest(info.uri), origin, digest(f"part {number}")
        )
        parts.append(part(name, ROWS, (f"{number:06}-0000", f"{number:06}-{ROWS - 1}")))
    return parts


def add_shards(shards: Path) -> None:
    """Write new shards next to the ones that are cataloged."""
    for number in range(NEW):
        ids = [f"new-{number}-{row:04}" for row in range(ROWS)]
        pq.write_table(pa.table({"galaxy_id": ids, "image": [b"x"] * ROWS}), shards / f"new-{number}.parquet")


def grow(settings: RunSettings, shards: Path, folder: Path, parts: int) -> dict[str, float]:
    """Commit the parts, then add three new shards. Return seconds by step."""
    for number in range(parts):
        (shards / f"{number:06}.parquet").touch()
    fingerprint = settings_fingerprint(settings, load_bundle())
    first = cataloged(shards, fingerprint)
    clock = [time.perf_counter()]
    Catalog(settings.catalog).commit(first, run_id="first", metadata={})
    clock.append(time.perf_counter())
    add_shards(shards)
    clock.append(time.perf_counter())
    catalog = Catalog(settings.catalog)
    clock.append(time.perf_counter())
    plan = plan_run(settings, catalog, fingerprint, folder)
    clock.append(time.perf_counter())
    assert plan.counts.listed == (parts + NEW) * ROWS, str(plan.counts)
    assert sum(unit.members for unit in plan.units) == NEW * ROWS, str(plan.counts)
    new = [
        part(
            PartName(fingerprint, unit.unit_id, unit.fingerprint, MANY_ORIGINS, "0" * 16),
            unit.members,
            ("new-0", "new-9"),
        )
        for unit in plan.units
    ]
    catalog.commit(new, run_id="second", metadata={})
    clock.append(time.perf_counter())
    return {
        f"commit of {parts:,} parts": clock[1] - clock[0],
        "opening that catalog": clock[3] - clock[2],
        f"planning {NEW} shards more": clock[4] - clock[3],
        "commit of them": clock[5] - clock[4],
    }


def once(lab: Lab) -> dict[str, float]:
    """Run `grow` for a new catalog."""
    with tempfile.TemporaryDirectory(dir=lab.folder) as folder:
        shards, scratch = Path(folder, "shards"), Path(folder, "plan")
        shards.mkdir()
        scratch.mkdir()
        given = {"input": str(shards), "catalog": str(Path(folder, "catalog")), "unit_size": ROWS}
        return grow(load_settings(None, given), shards, scratch, lab.count(PARTS))


def run(lab: Lab) -> Iterator[Row]:
    runs = [once(lab) for _ in range(lab.few_turns)]
    for step in runs[0]:
        yield Row(step, "s", Sample(tuple(seconds[step] for seconds in runs)))
    total = Sample(tuple(sum(seconds.values()) for seconds in runs))
    yield Row(f"all of it, {lab.count(PARTS) * ROWS:,} galaxies", "s", total, target=Target(60, at_most=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    yield Row("peak memory of the process", "MiB", Sample((peak,)), target=Target(1536, at_most=True))
