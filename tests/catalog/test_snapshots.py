import deltalake
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table as AstropyTable
from astropy.table import vstack
from catalogs import META, galaxies, local, rejects, visible_rejects
from deltalake import DeltaTable
from listings import new_folder

from gax_batch.catalog import delta, layout
from gax_batch.catalog import parts as module
from gax_batch.catalog.history import restore
from gax_batch.catalog.layout import PartName
from gax_batch.catalog.parts import find_finished
from gax_batch.catalog.schema import GALAXIES
from gax_batch.catalog.snapshots import KNOWN_SCHEMA, Catalog, read_run_record, write_run_record
from gax_batch.errors import FatalError, UsageError
from gax_batch.planning.plan import Plan, make_plan
from gax_batch.rejects import PASSING
from gax_batch.sources.base import MEMBER_SCHEMA
from gax_batch.storage import WRITE_TEST


def test_a_catalog_that_does_not_exist_is_empty_and_stays_so(catalog):
    opened = Catalog(catalog)
    assert opened.version is None
    assert opened.units() == {}
    assert list(opened.members()) == []
    assert len(opened.galaxies()) == len(opened.rejects()) == 0
    assert not local(catalog).exists()


def test_nothing_of_a_run_is_visible_before_its_commit(catalog, make_part):
    part = make_part("u", ["a"], ["x"])
    assert Catalog(catalog).version is None
    Catalog(catalog).commit([part], run_id="run-1", metadata=META)
    assert galaxies(catalog) == ["a"]
    assert rejects(catalog) == visible_rejects(catalog) == ["x"]


def test_a_snapshot_accounts_for_galaxies_and_rejects(catalog, make_part):
    part = make_part("u", ["a", "b"], ["x"], stage="plan", reason="duplicate_id")
    other = make_part("v", [], ["y"])
    opened = Catalog(catalog)
    version = opened.commit([part, other], run_id="run-1", metadata=META)
    assert opened.version == version == Catalog(catalog).version
    assert opened.units() == {p.unit_id: ("settings", p.fingerprint) for p in (part, other)}
    members = pa.concat_tables(opened.members())
    assert members.schema == KNOWN_SCHEMA
    rows = {m["galaxy_id"]: m for m in members.to_pylist()}
    assert rows["b"] == {
        "source_uri": "s3://survey/b.jpg",
        "source_version": "v-b",
        "galaxy_id": "b",
        "ra": 1.0,
        "dec": -1.0,
        "unit_id": part.unit_id,
        "rejected": False,
        "plan_reason": None,
        "attempts": None,
        "retry": False,
    }
    assert rows["x"]["rejected"]
    assert {k: rows[k]["plan_reason"] for k in "abxy"} == {
        "a": None,
        "b": None,
        "x": "duplicate_id",
        "y": None,
    }


def test_a_units_new_part_replaces_its_old_one_and_old_snapshots_remain(catalog, make_part):
    first = Catalog(catalog).commit(
        [make_part("u", ["a", "b"], ["x"]), make_part("v", ["c"])], run_id="run-1", metadata=META
    )
    second = Catalog(catalog).commit(
        [make_part("u", ["a"], ["b"], version="2"), make_part("w", ["d"])], run_id="run-2", metadata=META
    )
    assert second > first
    assert galaxies(catalog) == ["a", "c", "d"]
    assert rejects(catalog) == visible_rejects(catalog) == ["b"]
    old = DeltaTable(str(local(catalog) / "galaxies"), version=first).to_pyarrow_table()
    assert sorted(old["galaxy_id"].to_pylist()) == ["a", "b", "c"]


def test_the_same_commit_again_changes_nothing(catalog, make_part):
    parts = [make_part("u", ["a"], ["x"]), make_part("v", ["c"])]
    planned_from = Catalog(catalog)
    version = Catalog(catalog).commit(parts, run_id="run-1", metadata=META)
    assert planned_from.commit(parts, run_id="run-1", metadata=META) == version
    assert Catalog(catalog).commit(parts, run_id="run-1", metadata=META) == version


def test_a_late_repetition_of_a_commit_does_not_bring_its_old_part_back(catalog, make_part):
    parts = [make_part("u", ["a"], ["x"]), make_part("v", ["c"])]
    Catalog(catalog).commit([make_part("w", ["d"])], run_id="run-0", metadata=META)
    planned_from = Catalog(catalog)
    Catalog(catalog).commit(parts, run_id="run-1", metadata=META)
    later = Catalog(catalog).commit([make_part("u", ["b"], version="2")], run_id="run-2", metadata=META)
    with pytest.raises(UsageError, match=rf"\b1\b.*{catalog}/galaxies"):
        planned_from.commit(parts, run_id="run-1", metadata=META)
    assert Catalog(catalog).version == later
    assert galaxies(catalog) == ["b", "c", "d"]
    assert visible_rejects(catalog) == []


def test_a_run_may_commit_more_than_once(catalog, make_part):
    Catalog(catalog).commit([make_part("u", ["a"])], run_id="run-1", metadata=META)
    Catalog(catalog).commit([make_part("v", ["b"])], run_id="run-1", metadata=META)
    assert galaxies(catalog) == ["a", "b"]


def test_no_parts_make_no_snapshot(catalog, make_part):
    version = Catalog(catalog).commit([make_part("u", ["a"])], run_id="run-1", metadata=META)
    assert Catalog(catalog).commit([], run_id="run-2", metadata=META) == version


def test_the_commit_says_who_made_it_and_the_table_what_it_is(catalog, make_part):
    Catalog(catalog).commit([make_part("u", ["a"])], run_id="run-1", metadata={"bundle_id": "b", "rows": 1})
    table = DeltaTable(str(local(catalog) / "galaxies"))
    entry = table.history(1)[0]
    assert {k: v for k, v in entry.items() if k.startswith("gax.")} == {
        "gax.run_id": "run-1",
        "gax.bundle_id": "b",
        "gax.rows": 1,
        "gax.galaxies": 1,
        "gax.galaxies_added": 1,
        "gax.galaxies_removed": 0,
        "gax.units_added": 1,
        "gax.units_removed": 0,
    }
    assert table.metadata().configuration == delta.PROPERTIES
    assert table.metadata().name == "gax galaxies"
    assert table.metadata().partition_columns == []
    protocol = table.protocol()
    assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2)
    assert not protocol.reader_features
    fields = {field.name: field for field in table.schema().fields}
    assert fields["ra"].metadata["comment"] == GALAXIES.field("ra").metadata[b"comment"].decode()
    assert fields["ra"].metadata["unit"] == "deg"


def test_common_readers_open_the_tables(catalog, make_part):
    parts = [make_part("u", ["a", "b"], ["x"]), make_part("v", ["c"]), make_part("w", [], ["y"])]
    Catalog(catalog).commit(parts, run_id="run-1", metadata=META)
    root = str(local(catalog) / "galaxies")
    table = DeltaTable(root)
    names = GALAXIES.names

    frame = table.to_pandas()
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == names
    assert sorted(frame["galaxy_id"]) == ["a", "b", "c"]

    assert pl.read_delta(root).columns == names
    assert pl.scan_delta(root).filter(pl.col("ra") > 0).select("galaxy_id").collect()[
        "galaxy_id"
    ].to_list() == ["b"]

    files = table.file_uris()
    query = "select galaxy_id, ra from read_parquet(?) where ra is not null"
    assert duckdb.execute(query, [files]).fetchall() == [("b", 1.0)]

    read = vstack([AstropyTable.read(file, format="parquet") for file in files])
    assert read.colnames == names
    assert sorted(read["galaxy_id"]) == ["a", "b", "c"]
    assert isinstance(table.to_pyarrow_dataset().to_table(), pa.Table)


class TestRedoneInTheSameWay:
    """A unit done again from the same members with the same settings, because a plan said so."""

    def plan(self, catalog: str, **options: bool) -> Plan:
        """Compare the catalog with two galaxies, `a` and `b`, as they have always been listed."""
        rows = [
            {
                "galaxy_id": name,
                "ra": 1.0 if name == "b" else None,
                "dec": -1.0 if name == "b" else None,
                "source_uri": f"s3://survey/{name}.jpg",
                "source_version": f"v-{name}",
                "object_uri": f"s3://survey/{name}.jpg",
            }
            for name in "ab"
        ]
        opened = Catalog(catalog)
        return make_plan(
            [pa.Table.from_pylist(rows, schema=MEMBER_SCHEMA)],
            opened.members(),
            opened.units(),
            settings_fingerprint="settings",
            unit_size=10,
            folder=new_folder(),
            **options,
        )

    @pytest.mark.parametrize("reason", sorted(PASSING))
    def test_a_reject_for_a_passing_fault_heals(self, catalog, make_part, reason):
        (unit,) = self.plan(catalog).units
        ids = {"unit_id": unit.unit_id, "fingerprint": unit.fingerprint}
        old = make_part("u", ["a"], ["b"], reason=reason, **ids)
        Catalog(catalog).commit([old], run_id="run-1", metadata=META)
        assert (galaxies(catalog), visible_rejects(catalog)) == (["a"], ["b"])

        (again,) = self.plan(catalog).units
        assert (again.unit_id, again.fingerprint, again.reason) == (*ids.values(), "retried")
        assert find_finished(catalog, "settings", [tuple(ids.values())])[unit.unit_id].unread == 1
        new = make_part("u", ["a", "b"], run_id="run-2", **ids)
        assert find_finished(catalog, "settings", [tuple(ids.values())]) == {unit.unit_id: new}
        version = Catalog(catalog).commit([new], run_id="run-2", metadata=META)
        assert galaxies(catalog) == ["a", "b"]
        assert rejects(catalog) == visible_rejects(catalog) == []
        assert Catalog(catalog).commit([new], run_id="run-2", metadata=META) == version
        assert self.plan(catalog).units == []

    def test_a_forced_part_replaces_the_equal_one(self, catalog, make_part):
        (unit,) = self.plan(catalog).units
        ids = {"unit_id": unit.unit_id, "fingerprint": unit.fingerprint}
        parts = [make_part("u", ["a", "b"], run_id=run, **ids) for run in ("run-1", "run-2")]
        planned_from = Catalog(catalog)
        Catalog(catalog).commit(parts[:1], run_id="run-1", metadata=META)
        (forced,) = self.plan(catalog, full=True).units
        assert (forced.unit_id, forced.fingerprint, forced.reason) == (*ids.values(), "forced")

        opened = Catalog(catalog)
        version = opened.commit(parts[1:], run_id="run-2", metadata=META)
        assert galaxies(catalog) == ["a", "b"]
        assert set(Catalog(catalog).galaxies()["run_id"].to_pylist()) == {"run-2"}
        for repeated in (opened, Catalog(catalog)):
            assert repeated.commit(parts[1:], run_id="run-2", metadata=META) == version
        # Nor does a late repetition of the first run bring the first part back.
        assert planned_from.commit(parts[:1], run_id="run-1", metadata=META) == version
        assert set(Catalog(catalog).galaxies()["run_id"].to_pylist()) == {"run-2"}
        assert self.plan(catalog).units == []


class Crash(BaseException):
    pass


@pytest.mark.parametrize("decided", [False, True], ids=["before", "after"])
def test_a_commit_that_was_cut_off_shows_nothing_or_all_of_it_to_plain_tools(
    catalog, make_part, monkeypatch, decided
):
    before = [make_part("u", ["a"], ["x"]), make_part("v", ["b"])]
    Catalog(catalog).commit(before, run_id="run-1", metadata=META)
    after = [make_part("u", [], ["a"], version="2"), make_part("w", ["c"], ["z"])]
    original = DeltaTable.create_write_transaction

    def cut_off(*args, **named):
        if decided:
            original(*args, **named)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(DeltaTable, "create_write_transaction", cut_off)
        with pytest.raises(Crash):
            Catalog(catalog).commit(after, run_id="run-2", metadata=META)
    good, bad = (["b", "c"], ["a", "z"]) if decided else (["a", "b"], ["x"])
    table = DeltaTable(str(local(catalog) / "galaxies")).to_pyarrow_table()
    assert galaxies(catalog) == sorted(table["galaxy_id"].to_pylist()) == good
    assert rejects(catalog) == visible_rejects(catalog) == bad
    assert not list(local(catalog).glob("rejects/_delta_log"))

    Catalog(catalog).commit(after, run_id="run-2", metadata=META)
    assert galaxies(catalog) == ["b", "c"]
    assert rejects(catalog) == visible_rejects(catalog) == ["a", "z"]


class TestFormat2:
    """A catalog of the format that had a second table, of rejects, and part names without their number."""

    @pytest.fixture
    def of_format_2(self, catalog, make_part, monkeypatch) -> int:
        def without_number(*words):
            return PartName(*words[:5])

        with monkeypatch.context() as patch:
            patch.setattr(module, "PartName", without_number)
            patch.setattr(delta, "PROPERTIES", {delta.FORMAT_KEY: "2"})
            parts = [make_part("u", ["a", "b"], ["x", "y"]), make_part("v", ["c"])]
            version = Catalog(catalog).commit(parts, run_id="older", metadata=META)
        log = local(catalog) / "rejects" / "_delta_log" / "00000000000000000000.json"
        log.parent.mkdir()
        log.write_text("{}")
        return version

    def test_it_is_read_and_accounted_for(self, catalog, of_format_2):
        opened = Catalog(catalog)
        assert {name.rejects for name in opened.parts()} == {None}
        assert (galaxies(catalog), rejects(catalog)) == (["a", "b", "c"], ["x", "y"])
        assert sorted(opened.planned().values()) == [1, 4]
        assert sum(map(len, opened.members())) == 5

    def test_the_next_commit_makes_it_one_of_this_format(self, catalog, make_part, of_format_2):
        Catalog(catalog).commit([make_part("u", ["a"], ["b"], version="2")], run_id="newer", metadata=META)
        table = DeltaTable(str(local(catalog) / "galaxies"))
        assert table.metadata().configuration == delta.PROPERTIES
        assert (galaxies(catalog), rejects(catalog)) == (["a", "c"], ["b"])
        assert visible_rejects(catalog) == ["b"]
        # A reader of the old table would see rejects of long ago for ever.
        assert not list((local(catalog) / "rejects" / "_delta_log").iterdir())
        restore(catalog, of_format_2)
        assert (galaxies(catalog), rejects(catalog)) == (["a", "b", "c"], ["x", "y"])
        assert visible_rejects(catalog) == ["x", "y"]


class TestOpening:
    def test_what_an_interrupted_first_run_leaves_is_no_obstacle(self, catalog, make_part):
        part = make_part("u", ["a"])
        write_run_record(catalog, "run-0", {"status": "running"})
        (local(catalog) / WRITE_TEST).touch()
        assert Catalog(catalog).version is None
        Catalog(catalog).commit([part], run_id="run-1", metadata=META)
        assert galaxies(catalog) == ["a"]

    @pytest.mark.parametrize("name", ["thesis.tex", "galaxies.csv", "_delta_log/00000000000000000000.json"])
    def test_a_folder_with_other_things_is_refused(self, catalog, name):
        file = local(catalog) / name
        file.parent.mkdir(parents=True)
        file.write_text("{}")
        with pytest.raises(UsageError, match=name):
            Catalog(catalog)

    def test_a_file_is_refused(self, catalog):
        local(catalog).write_text("not a folder")
        with pytest.raises(UsageError):
            Catalog(catalog)

    def test_another_delta_table_is_refused(self, catalog):
        deltalake.write_deltalake(local(catalog) / "galaxies", pa.table({"a": [1]}))
        with pytest.raises(UsageError, match=f"{catalog}/galaxies"):
            Catalog(catalog)

    def test_a_newer_format_is_refused(self, catalog, make_part, monkeypatch):
        Catalog(catalog).commit([make_part("u", ["a"])], run_id="run-1", metadata=META)
        monkeypatch.setattr(delta, "FORMAT_VERSION", 2)
        with pytest.raises(UsageError, match=r"\b3\b.* 2\b.*gax-batch"):
            Catalog(catalog)

    def test_a_broken_log_is_refused_on_one_line(self, catalog, make_part):
        Catalog(catalog).commit([make_part("u", ["a"])], run_id="run-1", metadata=META)
        log = local(catalog) / "galaxies" / layout.DELTA_LOG
        (log / "00000000000000000001.json").write_text('{"add": {"path"')
        with pytest.raises(UsageError, match=f"{catalog}/galaxies") as caught:
            Catalog(catalog)
        assert "\n" not in str(caught.value)

    def test_files_of_other_programs_are_refused(self, catalog, make_part):
        Catalog(catalog).commit([make_part("u", ["a"]), make_part("v", ["b"])], run_id="run-1", metadata=META)
        DeltaTable(str(local(catalog) / "galaxies")).optimize.compact()
        with pytest.raises(UsageError, match=r"galaxies.*\.parquet"):
            Catalog(catalog)

    @pytest.mark.parametrize("table", ["galaxies", "rejects"])
    @pytest.mark.parametrize(
        "spoil",
        [
            pytest.param(lambda file: file.unlink(), id="lost"),
            pytest.param(lambda file: file.write_bytes(b""), id="empty"),
            pytest.param(lambda file: file.write_bytes(file.read_bytes()[:-100]), id="torn"),
            pytest.param(lambda file: pq.write_table(pa.table({"a": [1]}), file), id="another table"),
        ],
    )
    def test_a_lost_or_torn_part_is_to_be_mended_before_a_plan(self, catalog, make_part, table, spoil):
        part = make_part("u", ["a"], ["x"])
        Catalog(catalog).commit([part], run_id="run-1", metadata=META)
        spoil(local(catalog) / table / part.key)
        with pytest.raises(UsageError, match=f"{table}/{part.key}") as caught:
            list(Catalog(catalog).members())
        assert "\n" not in str(caught.value)
        with pytest.raises(FatalError, match=part.key):
            getattr(Catalog(catalog), table)()

    @pytest.mark.parametrize("uri", ["s3://bucket/our survey", "s3://bucket/50%", "/surveys/50%25"])
    def test_names_that_delta_cannot_store_are_refused(self, uri):
        with pytest.raises(UsageError, match=uri):
            Catalog(uri)

    @pytest.mark.parametrize("name", ["our survey", "ünïcode", "a+b=c", "#1", "it's"])
    def test_other_names_of_folders_work(self, tmp_path, make_part, name):
        root = f"file://{tmp_path / name}"
        Catalog(root).commit([make_part("u", ["a"], ["x"], root=root)], run_id="run-1", metadata=META)
        assert galaxies(root) == ["a"]
        assert rejects(root) == ["x"]


def test_a_run_record_comes_back_and_is_replaced_whole(catalog):
    write_run_record(catalog, "run-1", {"status": "running", "counts": {"planned": 3}})
    write_run_record(catalog, "run-1", {"status": "complete", "name": "Hänsel"})
    assert read_run_record(catalog, "run-1") == {"status": "complete", "name": "Hänsel"}
    assert [p.name for p in (local(catalog) / "runs" / "run-1").iterdir()] == ["run.json"]


def test_many_snapshots_make_checkpoints_and_stay_readable(catalog, make_part, monkeypatch):
    part = make_part("u", ["a"])
    Catalog(catalog).commit([part], run_id="run-1", metadata=META)
    DeltaTable(str(local(catalog) / "galaxies")).create_checkpoint()
    Catalog(catalog).commit([make_part("v", ["b"])], run_id="run-2", metadata=META)
    assert galaxies(catalog) == ["a", "b"]
    again = Catalog(catalog).commit([part], run_id="run-1", metadata=META)
    assert again == Catalog(catalog).version
