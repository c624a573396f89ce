"""Merging small units, and deleting what no snapshot needs."""

import os
import time
from datetime import UTC, datetime, timedelta

import pytest
from catalogs import META, galaxies, local, rejects, visible_rejects
from typer.testing import CliRunner

from gax_batch import storage
from gax_batch.catalog import delta, upkeep
from gax_batch.catalog.history import restore
from gax_batch.catalog.snapshots import Catalog
from gax_batch.catalog.upkeep import compact, vacuum
from gax_batch.cli import app
from gax_batch.errors import UsageError
from gax_batch.machine import MIB

DAY = 86_400


class TestCompaction:
    @pytest.fixture
    def nights(self, catalog, make_part) -> int:
        """Five small nights and a large one."""
        for i in range(5):
            parts = [make_part(f"u{i}", [f"a{i}", f"b{i}"], [f"x{i}"])]
            Catalog(catalog).commit(parts, run_id=f"night-{i}", metadata=META)
        large = [make_part("large", [f"c{i}" for i in range(9)])]
        return Catalog(catalog).commit(large, run_id="large", metadata=META)

    def test_units_are_fewer_and_no_row_changes(self, catalog, nights):
        before, bad = Catalog(catalog).galaxies().sort_by("galaxy_id"), rejects(catalog)
        done = compact(catalog, 10)
        assert (done.before, done.after) == (6, 3)
        assert Catalog(catalog).galaxies().sort_by("galaxy_id") == before
        assert rejects(catalog) == visible_rejects(catalog) == bad
        assert sorted(Catalog(catalog).planned().values()) == [6, 9, 9]

    def test_again_there_is_nothing_to_merge_and_no_snapshot(self, catalog, nights):
        version = compact(catalog, 10).version
        # Groups of 9 and 6 do not fit into 10, and only the 6 is small.
        assert compact(catalog, 10).version == version

    def test_units_of_other_settings_are_not_mixed(self, catalog, make_part):
        parts = [make_part("u", ["a"]), make_part("v", ["b"], settings="other")]
        Catalog(catalog).commit(parts, run_id="r", metadata=META)
        assert compact(catalog, 10).after == 2

    def test_a_plan_knows_the_merged_unit_as_the_one_to_redo(self, catalog, nights):
        compact(catalog, 1000)
        opened = Catalog(catalog)
        units = {unit for table in opened.members() for unit in table["unit_id"].to_pylist()}
        assert units == set(opened.units())

    def test_the_snapshot_before_it_can_be_restored(self, catalog, nights):
        compact(catalog, 1000)
        restore(catalog, nights)
        assert len(Catalog(catalog).units()) == 6
        assert len(galaxies(catalog)) == 19
        assert len(visible_rejects(catalog)) == 5

    def test_a_unit_that_no_run_could_hold_is_refused_before_anything_is_merged(
        self, catalog, nights, monkeypatch
    ):
        monkeypatch.setattr(upkeep, "available_bytes", lambda: 100 * MIB)
        parts = len(list(local(catalog).rglob("*.parquet")))
        with pytest.raises(UsageError, match="100 MiB are available"):
            compact(catalog, 1000)
        assert len(list(local(catalog).rglob("*.parquet"))) == parts
        # The catalog has a unit of nine already: somebody held it.
        assert compact(catalog, 10).after == 3

    def test_a_unit_never_has_more_cutouts_than_a_run_may_ask_for(self, catalog, nights, monkeypatch):
        monkeypatch.setattr(upkeep, "MAX_UNIT_SIZE", 10)
        compact(catalog, 10**6)
        assert sorted(Catalog(catalog).planned().values()) == [6, 9, 9]
        done = CliRunner().invoke(app, ["catalog", "compact", "--catalog", catalog, "--unit-size", "65537"])
        assert done.exit_code == 2


@pytest.fixture
def long_ago(monkeypatch):
    """Let commits and files seem a number of days old."""

    def age(catalog: str, days: float) -> None:
        then = time.time() - days * DAY
        for path in local(catalog).rglob("*.parquet"):
            if path.stat().st_mtime > then:
                os.utime(path, (then, then))

    monkeypatch.setattr(delta.time, "time_ns", lambda: int((time.time() - 40 * DAY) * 1e9))
    return age


class TestVacuum:
    def test_what_only_old_snapshots_need_is_deleted_and_the_newest_stays(self, catalog, make_part, long_ago):
        first = Catalog(catalog).commit([make_part("u", ["a"], ["x"])], run_id="r1", metadata=META)
        Catalog(catalog).commit([make_part("u", ["a", "x"], version="2")], run_id="r2", metadata=META)
        orphan = make_part("interrupted", ["z"], ["y"])
        long_ago(catalog, 40)
        assert vacuum(catalog, 30, dry_run=True).parts == 4
        assert vacuum(catalog, 30).parts == 4
        assert vacuum(catalog, 30).parts == 0
        assert (galaxies(catalog), rejects(catalog)) == (["a", "x"], [])
        assert not (local(catalog) / "galaxies" / orphan.key).exists()
        with pytest.raises(UsageError, match="cannot be read whole"):
            list(Catalog(catalog, first).batches(["galaxy_id"]))
        with pytest.raises(UsageError, match="can no longer be restored"):
            restore(catalog, first)

    def test_what_a_reader_may_still_need_stays(self, catalog, make_part):
        first = Catalog(catalog).commit([make_part("u", ["a"])], run_id="r1", metadata=META)
        Catalog(catalog).commit([make_part("u", ["a"], version="2")], run_id="r2", metadata=META)
        make_part("at work", ["z"])
        for path in local(catalog).rglob("*.parquet"):
            os.utime(path, (time.time() - 40 * DAY,) * 2)
        # All files are old, but the first snapshot was replaced just now.
        assert vacuum(catalog, 30).parts == 1
        assert Catalog(catalog, first).galaxies(["galaxy_id"])["galaxy_id"].to_pylist() == ["a"]

    def test_parts_of_a_run_at_work_stay(self, catalog, make_part):
        Catalog(catalog).commit([make_part("u", ["a"])], run_id="r1", metadata=META)
        part = make_part("at work", ["z"])
        assert vacuum(catalog, 1).parts == 0
        assert (local(catalog) / "galaxies" / part.key).exists()

    def test_plans_of_old_runs_go_and_their_records_stay(self, catalog, make_part):
        Catalog(catalog).commit([make_part("u", ["a"])], run_id="r1", metadata=META)
        for days in (40, 2):
            run = f"{datetime.now(UTC) - timedelta(days=days):%Y%m%dT%H%M%SZ}-abc"
            for name in ("run.json", "plan/000000.parquet"):
                storage.write_bytes(storage.join(catalog, "runs", run, *name.split("/")), b"x")
        assert vacuum(catalog, 30).plans == 1
        left = sorted(p.name for p in (local(catalog) / "runs").rglob("*") if p.is_file())
        assert left == ["000000.parquet", "run.json", "run.json"]

    def test_a_clock_that_is_not_the_storages_is_refused(self, catalog, make_part, monkeypatch):
        Catalog(catalog).commit([make_part("u", ["a"])], run_id="r1", metadata=META)
        monkeypatch.setattr(storage, "modified", lambda uri: datetime.now(UTC) - timedelta(days=3))
        with pytest.raises(UsageError, match="clock"):
            vacuum(catalog, 30)
        assert list((local(catalog) / "runs").rglob("*")) == []

    def test_less_than_a_day_is_refused(self, catalog):
        with pytest.raises(UsageError, match="at least 1"):
            vacuum(catalog, 0)


def test_the_commands_say_what_they_did(catalog, make_part):
    for i in range(2):
        Catalog(catalog).commit([make_part(f"u{i}", [f"a{i}"])], run_id=f"r{i}", metadata=META)
    done = CliRunner().invoke(app, ["catalog", "compact", "--catalog", catalog])
    assert "2 units are 1 now, at snapshot 3" in done.output
    done = CliRunner().invoke(app, ["catalog", "vacuum", "--catalog", catalog, "--dry-run"])
    assert "0 parts and 0 files of plans would be deleted" in done.output
