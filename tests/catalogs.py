"""Catalogs for tests: made without Ray, and what readers see of them."""

import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from fake_engine import FakeEngine
from listings import new_folder

from gax_batch.catalog.snapshots import Catalog
from gax_batch.cluster.progress import RunCounts
from gax_batch.cluster.unit import UnitOptions, UnitResult, UnitTask, infer, read, write
from gax_batch.imaging.decoding import Decoder
from gax_batch.planning.plan import Plan, make_plan
from gax_batch.runner import record
from gax_batch.runner.record import Clock, Outcome, Run
from gax_batch.runner.settings import load_settings
from gax_batch.sources import Source, open_source

META = {"bundle_id": "bundle"}


def local(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def galaxies(catalog: str) -> list[str]:
    return sorted(Catalog(catalog).galaxies(["galaxy_id"])["galaxy_id"].to_pylist())


def rejects(catalog: str) -> list[str]:
    return sorted(Catalog(catalog).rejects()["galaxy_id"].to_pylist())


def visible_rejects(catalog: str) -> list[str]:
    """What plain tools read: the companions of the parts that are active in the Delta table."""
    table = DeltaTable(str(local(catalog) / "galaxies"))
    files = [
        local(catalog) / "rejects" / key for key in pa.table(table.get_add_actions())["path"].to_pylist()
    ]
    return sorted(
        name for file in files if file.exists() for name in pq.read_table(file)["galaxy_id"].to_pylist()
    )


def run_record(catalog: Path) -> dict[str, Any]:
    """The record of a catalog's only run."""
    (path,) = (catalog / "runs").rglob("run.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def age(catalog: str, days: float) -> None:
    """Make everything in a catalog so many days older: its objects, and the times that its log notes."""
    then = time.time() - days * 86_400
    for path in local(catalog).rglob("*"):
        if path.suffix == ".json" and path.parent.name == "_delta_log":
            actions = [json.loads(line) for line in path.read_text().splitlines()]
            for times in (facts for action in actions for facts in action.values()):
                for name in ("timestamp", "deletionTimestamp", "modificationTime"):
                    if name in times:
                        times[name] -= int(days * 86_400_000)
            path.write_text("\n".join(map(json.dumps, actions)))
        if path.is_file():
            os.utime(path, (min(then, path.stat().st_mtime - days * 86_400),) * 2)


def commit_nothing(catalog: str, until: int) -> None:
    """Write entries of the log that change nothing, up to a snapshot, as fast as files are written."""
    log = local(catalog) / "galaxies" / "_delta_log"
    entry = {"commitInfo": {"timestamp": int(time.time() * 1000), "operation": "WRITE", "gax.run_id": "r"}}
    for version in range(1 + max(int(path.stem) for path in log.glob("*.json")), until + 1):
        (log / f"{version:020}.json").write_text(json.dumps(entry))


def run_units(plan: Plan, options: UnitOptions, engine: Any = None) -> Iterator[UnitResult]:
    """Store, read, infer and write a plan's units, as a run does but without Ray."""
    engine = engine or FakeEngine()
    for planned, place in zip(plan.units, plan.write(options.catalog, options.run_id), strict=True):
        task = UnitTask(*place, planned.unit_id, planned.fingerprint, planned.members, planned.whole)
        yield write(infer(read(task, options), engine, options), options)


def catalog_of(survey: Path, options: UnitOptions, source: Source | None = None, engine: Any = None) -> str:
    """Catalog a survey in units of 5, without Ray but with the record that a run leaves."""
    catalog, clock, counts = Catalog(options.catalog), Clock(), RunCounts()
    plan = make_plan(
        (source or open_source(str(survey))).list_members(),
        catalog.members(),
        catalog.units(),
        settings_fingerprint=options.settings_fingerprint,
        unit_size=5,
        folder=new_folder(),
    )
    clock.lap("plan")
    settings = load_settings(None, {"input": str(survey), "catalog": options.catalog})
    run = Run(
        run_id=options.run_id,
        started=datetime.now(UTC),
        catalog=catalog.uri,
        bundle_id=options.bundle_id,
        settings=settings.model_dump(mode="json"),
        settings_fingerprint=options.settings_fingerprint,
        plan=plan,
        reference=options.reference,
    )
    for result in run_units(plan, options, engine):
        counts.add(result)
    clock.lap("process")
    version = catalog.commit(counts.parts, run_id=options.run_id, metadata={"bundle_id": options.bundle_id})
    record.store(run.catalog, record.describe(run, counts, clock, Outcome("complete", 0, version)))
    return options.catalog


def catalog_without_ray(source: Source, catalog: str, folder: Path, *, unit_size: int = 512) -> Catalog:
    """Catalog a survey in this process, with the fake engine: each step of a run but Ray's."""
    found = Catalog(catalog)
    options = UnitOptions(found.uri, "s", "bundle", "run", Decoder())
    plan = make_plan(
        source.list_members(), [], {}, settings_fingerprint="s", unit_size=unit_size, folder=folder
    )
    parts = []
    for result in run_units(plan, options):
        assert result.part is not None, result.state.failure
        parts.append(result.part)
    found.commit(parts, run_id="run", metadata={})
    return found
