"""Deleting what no snapshot of the last days, and no unfinished run, needs."""

import os
import re
import time
from datetime import UTC, datetime, timedelta

import pytest
from catalogs import META, age, commit_nothing, galaxies, local, rejects
from deltalake import DeltaTable
from typer.testing import CliRunner

from gax_batch import storage
from gax_batch.catalog import layout
from gax_batch.catalog import vacuum as vacuum_module
from gax_batch.catalog.diff import compare
from gax_batch.catalog.history import contents, log_lines, restore
from gax_batch.catalog.parts import find_finished
from gax_batch.catalog.snapshots import Catalog, write_run_record
from gax_batch.catalog.unfinished import RESUMED_WITHIN, RUNNING, unfinished_runs
from gax_batch.catalog.vacuum import vacuum
from gax_batch.cli import app
from gax_batch.errors import FatalError, UsageError

DAY = 86_400


def record(
    catalog: str,
    run_id: str,
    *,
    snapshot: int | None = None,
    settings: str = "settings",
    status: str = "any",
) -> None:
    facts = {"settings_fingerprint": settings, "settings": {"input": "s3://survey"}, "snapshot": snapshot}
    write_run_record(catalog, run_id, {"status": status, **facts})


def is_there(catalog: str, key: str) -> bool:
    return (local(catalog) / "galaxies" / key).exists()


class TestWindow:
    def test_what_only_old_snapshots_need_is_deleted_and_the_newest_stays(self, catalog, make_part):
        first = Catalog(catalog).commit([make_part("u", ["a"], ["x"])], run_id="r1", metadata=META)
        second = Catalog(catalog).commit(
            [make_part("u", ["a", "x"], version="2")], run_id="r2", metadata=META
        )
        orphan = make_part("interrupted", ["z"], ["y"])
        age(catalog, 40)
        would = vacuum(catalog, 30, dry_run=True)
        assert (would.parts, would.ended) == (4, range(second))
        assert Catalog(catalog, first).version == first
        assert vacuum(catalog, 30) == would
        again = vacuum(catalog, 30)
        assert (again.parts, list(again.ended)) == (0, [])
        assert (galaxies(catalog), rejects(catalog)) == (["a", "x"], [])
        assert not is_there(catalog, orphan.key)

    def test_a_snapshot_that_has_ended_is_refused_with_the_oldest_there_is(self, catalog, make_part):
        first = Catalog(catalog).commit([make_part("u", ["a"])], run_id="r1", metadata=META)
        second = Catalog(catalog).commit([make_part("u", ["a"], version="2")], run_id="r2", metadata=META)
        age(catalog, 40)
        vacuum(catalog, 30)
        for use in (Catalog, restore):
            with pytest.raises(UsageError, match=rf" {first}\b.* {second}\b") as caught:
                use(catalog, first)
            assert "\n" not in str(caught.value)
        history = Catalog(catalog).history()
        lines = zip(log_lines(history, Catalog(catalog).oldest()), log_lines(history), strict=True)
        # The lines of snapshots that have ended are marked.
        assert [line != unmarked for line, unmarked in lines] == [False, False, False, True, True]
        assert galaxies(catalog) == ["a"]

    def test_what_a_reader_may_still_need_stays(self, catalog, make_part):
        first = Catalog(catalog).commit([make_part("u", ["a"])], run_id="r1", metadata=META)
        age(catalog, 40)
        Catalog(catalog).commit([make_part("u", ["a"], version="2")], run_id="r2", metadata=META)
        # The first snapshot is old, but it was the newest one until just now.
        assert vacuum(catalog, 30).parts == 0
        assert Catalog(catalog, first).galaxies(["galaxy_id"])["galaxy_id"].to_pylist() == ["a"]

    def test_a_part_whose_tombstone_has_left_the_log_stays_as_long_as_a_snapshot_needs_it(
        self, catalog, make_part
    ):
        first = Catalog(catalog).commit([make_part("u", ["a"], ["x"])], run_id="r1", metadata=META)
        age(catalog, 50)
        Catalog(catalog).commit([make_part("u", ["a"], version="2")], run_id="r2", metadata=META)
        age(catalog, 10)
        # Written 60 days ago, replaced 10 days ago: seven days later, a checkpoint forgets it.
        DeltaTable(str(local(catalog) / "galaxies")).create_checkpoint()
        assert vacuum(catalog, 30).parts == 0
        old = Catalog(catalog, first)
        assert contents(old).galaxies == 1
        assert old.rejects()["galaxy_id"].to_pylist() == ["x"]

    def test_only_snapshots_that_lose_a_part_end(self, catalog, make_part):
        for night in range(4):
            Catalog(catalog).commit([make_part(f"u{night}", [f"a{night}"])], run_id="r", metadata=META)
            age(catalog, 40)
        make_part("of an interrupted run", ["z"])
        age(catalog, 40)
        done = vacuum(catalog, 30)
        assert (done.parts, list(done.ended)) == (1, [])
        assert len(Catalog(catalog, 1).galaxies()) == 1

    def test_a_restored_snapshot_keeps_its_parts(self, catalog, make_part):
        first = Catalog(catalog).commit([make_part("u", ["a"])], run_id="r1", metadata=META)
        Catalog(catalog).commit([make_part("u", ["b"], version="2")], run_id="r2", metadata=META)
        age(catalog, 40)
        restore(catalog, first)
        vacuum(catalog, 30)
        assert galaxies(catalog) == ["a"]

    def test_a_restore_at_the_same_time_wins_or_is_refused(self, catalog, make_part, monkeypatch):
        first = Catalog(catalog).commit([make_part("u", ["a"])], run_id="r1", metadata=META)
        Catalog(catalog).commit([make_part("u", ["b"], version="2")], run_id="r2", metadata=META)
        age(catalog, 40)
        find, late = vacuum_module._find, []

        def find_slowly(*args):
            found = find(*args)
            if not late:
                late.append(restore(catalog, first))
            return found

        monkeypatch.setattr(vacuum_module, "_find", find_slowly)
        vacuum(catalog, 30)
        assert galaxies(catalog) == ["a"]
        assert Catalog(catalog, first).galaxies()["galaxy_id"].to_pylist() == ["a"]

    def test_a_vacuum_between_the_reading_and_the_commit_of_a_restore_is_noticed(
        self, catalog, make_part, monkeypatch
    ):
        first = Catalog(catalog).commit([make_part("u", ["a"])], run_id="r1", metadata=META)
        Catalog(catalog).commit([make_part("u", ["b"], version="2")], run_id="r2", metadata=META)
        age(catalog, 40)
        commit = Catalog.commit

        def commit_late(self, *args, **named):
            monkeypatch.setattr(storage, "delete", lambda uri: None)
            vacuum(catalog, 30)
            return commit(self, *args, **named)

        with monkeypatch.context() as patch:
            patch.setattr(Catalog, "commit", commit_late)
            with pytest.raises(UsageError, match=rf" {first}\b"):
                restore(catalog, first)
        assert galaxies(catalog) == ["b"]

    def test_a_file_that_a_killed_process_has_left_half_is_deleted(self, catalog, make_part):
        part = make_part("u", ["a"])
        Catalog(catalog).commit([part], run_id="r1", metadata=META)
        torn = (local(catalog) / "galaxies" / part.key).with_name(".0123.tmp")
        torn.write_bytes(b"half")
        assert vacuum(catalog, 30).parts == 0
        os.utime(torn, (time.time() - 40 * DAY,) * 2)
        assert vacuum(catalog, 30).parts == 1
        assert not torn.exists()

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
        with pytest.raises(UsageError, match="2 days, 23:59"):
            vacuum(catalog, 30)
        assert list((local(catalog) / "runs").rglob("*")) == []

    def test_less_than_a_day_is_refused(self, catalog):
        with pytest.raises(UsageError, match=r"--keep-days.*\b1\b.*\b0\b"):
            vacuum(catalog, 0)

    def test_the_command_says_which_snapshots_end(self, catalog, make_part):
        for version in "12":
            Catalog(catalog).commit([make_part("u", ["a"], version=version)], run_id="r", metadata=META)
        age(catalog, 40)
        for more, oldest in ((["--dry-run"], 0), ([], 2)):
            done = CliRunner().invoke(app, ["catalog", "vacuum", "--catalog", catalog, *more])
            parts, snapshots = (re.findall(r"\d+", line)[:2] for line in done.output.splitlines())
            assert (parts, snapshots) == (["1", "0"], ["0", "1"])
            assert Catalog(catalog).oldest() == oldest


class TestUnfinishedRuns:
    """Night 1 stores parts and is interrupted; night 2 resumes it while a vacuum runs."""

    def test_a_vacuum_during_a_resumed_run_of_two_nights_costs_nothing(self, catalog, make_part):
        Catalog(catalog).commit([make_part("before", ["q"], settings="other")], run_id="r", metadata=META)
        night_1 = [make_part(f"u{i}", [f"a{i}"], [f"x{i}"]) for i in range(3)]
        record(catalog, "20260101T000000Z-1")
        age(catalog, 2)
        assert vacuum(catalog, 1).parts == 0

        record(catalog, "20260102T000000Z-2")
        wanted = [(part.unit_id, part.fingerprint) for part in night_1]
        assert vacuum(catalog, 1).unfinished == ("20260101T000000Z-1", "20260102T000000Z-2")
        finished = find_finished(catalog, "settings", wanted)
        assert len(finished) == 3
        night_2 = make_part("u9", ["a9"])
        assert vacuum(catalog, 1).parts == 0
        version = Catalog(catalog).commit([*finished.values(), night_2], run_id="run-2", metadata=META)
        record(catalog, "20260102T000000Z-2", snapshot=version)
        assert vacuum(catalog, 1).parts == 0
        assert galaxies(catalog) == ["a0", "a1", "a2", "a9", "q"]

    def test_parts_of_other_settings_and_of_runs_long_dead_go(self, catalog, make_part):
        Catalog(catalog).commit([make_part("u", ["a"])], run_id="r", metadata=META)
        parts = [make_part("v", ["b"], settings=settings) for settings in ("dead", "alive", "never")]
        record(catalog, "20260101T000000Z-1", settings="dead")
        age(catalog, RESUMED_WITHIN.days + 1)
        record(catalog, "20260102T000000Z-2", settings="alive")
        assert vacuum(catalog, 1).parts == 2
        assert [is_there(catalog, part.key) for part in parts] == [False, True, False]

    def test_a_run_of_weeks_that_renews_its_record_keeps_parts_and_plan(self, catalog, make_part):
        Catalog(catalog).commit([make_part("u", ["a"])], run_id="r", metadata=META)
        part, run_id = make_part("v", ["b"]), "20260101T000000Z-1"
        record(catalog, run_id)
        storage.write_bytes(layout.plan_file(catalog, run_id, 0), b"x")
        age(catalog, 20)
        record(catalog, run_id)
        done = vacuum(catalog, 1)
        assert (done.parts, done.plans, done.unfinished) == (0, 0, (run_id,))
        assert is_there(catalog, part.key)

    def test_a_run_at_work_is_unfinished_although_another_one_has_committed_the_same(self, catalog):
        record(catalog, "20260101T000000Z-1", status=RUNNING)
        record(catalog, "20260102T000000Z-2", snapshot=1)
        assert [run.run_id for run in unfinished_runs(catalog, RESUMED_WITHIN)] == ["20260101T000000Z-1"]

    def test_an_interrupted_run_that_another_one_finished_holds_nothing(self, catalog):
        record(catalog, "20260101T000000Z-1")
        assert len(unfinished_runs(catalog, RESUMED_WITHIN)) == 1
        record(catalog, "20260102T000000Z-2", snapshot=1)
        assert unfinished_runs(catalog, RESUMED_WITHIN) == []
        record(catalog, "20260103T000000Z-3")
        assert [run.run_id for run in unfinished_runs(catalog, RESUMED_WITHIN)] == ["20260103T000000Z-3"]

    def test_records_that_cannot_be_read_hold_nothing(self, catalog):
        for number, text in enumerate([b"", b"{", b"[]", b"{}"]):
            storage.write_bytes(layout.run_record(catalog, f"run-{number}"), text)
        assert unfinished_runs(catalog, RESUMED_WITHIN) == []


class TestCommitOfLostParts:
    @pytest.mark.parametrize("table", ["galaxies", "rejects"])
    @pytest.mark.parametrize(
        "spoil",
        [
            pytest.param(lambda file: file.unlink(), id="gone"),
            pytest.param(lambda file: file.write_bytes(file.read_bytes()[:-1]), id="torn"),
        ],
    )
    def test_a_part_that_is_not_there_whole_is_not_committed(self, catalog, make_part, table, spoil):
        before = Catalog(catalog).commit([make_part("u", ["a"])], run_id="r1", metadata=META)
        parts = [make_part("v", ["b"], ["x"]), make_part("w", ["c"])]
        spoil(local(catalog) / table / parts[0].key)
        with pytest.raises(FatalError, match=rf"\b1\b.*\b3\b.*{parts[0].unit_id}") as caught:
            Catalog(catalog).commit(parts, run_id="r2", metadata=META)
        assert "\n" not in str(caught.value)
        assert Catalog(catalog).version == before
        assert galaxies(catalog) == ["a"]


def test_250_commits_with_aged_logs_and_parts_keep_every_snapshot_of_the_window(catalog, make_part, tmp_path):
    """A commit a day, every tenth of which redoes the unit, and every 50 days a vacuum that keeps 60."""
    made: dict[int, int] = {}
    for day in range(10, 251, 10):
        parts = [make_part("u", [f"g{day}"], [f"x{day}"], version=str(day))]
        version = Catalog(catalog).commit(parts, run_id=f"day-{day}", metadata=META)
        made[version] = day
        commit_nothing(catalog, version + 9)
        age(catalog, 10)
        if day % 50 == 0:
            vacuum(catalog, 60)
    newest = Catalog(catalog)
    oldest = newest.oldest()
    assert newest.version >= 250
    assert [day for version, day in made.items() if version >= oldest] == [200, 210, 220, 230, 240, 250]
    for version in range(oldest, newest.version + 1):
        day = max(day for first, day in made.items() if first <= version)
        assert Catalog(catalog, version).galaxies(["galaxy_id"])["galaxy_id"].to_pylist() == [f"g{day}"]
    for version in (version for version in made if version >= oldest):
        old, folder = Catalog(catalog, version), tmp_path / str(version)
        folder.mkdir()
        assert (contents(old).galaxies, old.rejects()["galaxy_id"].to_pylist()) == (1, [f"x{made[version]}"])
        assert compare(old, newest, folder, most=1).removed == (0 if made[version] == 250 else 1)
        restore(catalog, version)
        assert galaxies(catalog) == [f"g{made[version]}"]
    with pytest.raises(UsageError, match=rf" {oldest}\b"):
        Catalog(catalog, oldest - 1)
