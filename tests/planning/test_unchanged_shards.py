"""Shards that a plan passes over, since they are in the catalog as they are."""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalogs import run_units
from galaxy_images import jpeg_bytes
from listings import new_folder

from gax_batch.catalog import layout
from gax_batch.catalog.compaction import compact
from gax_batch.catalog.snapshots import Catalog
from gax_batch.cluster import unit
from gax_batch.models import DEFAULT_DRAWS, DEFAULT_PASSES
from gax_batch.planning.difference import PlanCounts
from gax_batch.planning.plan import Plan
from gax_batch.runner.preparation import plan_run
from gax_batch.runner.settings import RunSettings, load_settings
from gax_batch.sources import parquet
from gax_batch.storage import ObjectInfo

FINGERPRINT = "0123456789abcdef"


class Survey:
    """Shards in a folder, and the catalog of them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.listed = folder / "shards", []
        self.folder.mkdir()
        self._catalog = str(folder / "catalog")
        original = parquet.list_rows

        def noted(info: ObjectInfo, *limits: object) -> Iterator[pa.Table]:
            self.listed.append(info)
            return original(info, *limits)

        monkeypatch.setattr(parquet, "list_rows", noted)

    def write(self, name: str, ids: Sequence[str]) -> None:
        images = [jpeg_bytes(zlib.crc32((name + i).encode()) % 1000) for i in ids]
        pq.write_table(pa.table({"galaxy_id": list(ids), "image": images}), self.folder / f"{name}.parquet")

    def settings(self, **flags: object) -> RunSettings:
        values = {"input": str(self.folder), "catalog": self._catalog, "unit_size": 8}
        return load_settings(None, values | flags)

    def plan(self, **flags: object) -> Plan:
        self.listed.clear()
        settings = self.settings(**flags)
        return plan_run(settings, Catalog(self._catalog), FINGERPRINT, new_folder())

    def night(self, **flags: object) -> PlanCounts:
        plan, catalog = self.plan(**flags), Catalog(self._catalog)
        options = unit.UnitOptions(catalog.uri, FINGERPRINT, "bundle", "run", self.settings().decoder)
        parts = [result.part for result in run_units(plan, options)]
        version = (catalog.version or 0) + 1
        catalog.commit(parts, run_id=f"run-{version}", metadata={}, removed=plan.removed)
        return plan.counts

    @property
    def origins(self) -> set[str]:
        return {name.origin for name in Catalog(self._catalog).parts()}

    @property
    def rejects(self) -> list[tuple[str, str]]:
        rows = Catalog(self._catalog).rejects().to_pylist()
        return sorted((row["galaxy_id"], row["reason"]) for row in rows)


@pytest.fixture
def survey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Survey:
    """Three shards of five galaxies, `a0` to `c4`, cataloged."""
    made = Survey(tmp_path, monkeypatch)
    for name in "abc":
        made.write(name, [f"{name}{i}" for i in range(5)])
    assert made.night().new == 15
    return made


def test_an_unchanged_survey_opens_no_shard(survey):
    plan = survey.plan()
    assert survey.listed == []
    assert (plan.units, plan.counts.unchanged, plan.counts.listed, plan.counts.vanished) == ([], 15, 15, 0)


def test_only_new_and_changed_shards_are_opened(survey):
    survey.write("d", ["d0", "d1"])
    survey.write("b", ["b0", "b1", "b2", "b3", "b5"])
    plan = survey.plan()
    assert sorted(info.uri[-9:] for info in survey.listed) == ["b.parquet", "d.parquet"]
    counts = plan.counts
    assert (counts.new, counts.changed, counts.unchanged, counts.vanished) == (2, 5, 10, 0)
    survey.night()
    assert survey.plan().counts.unchanged == 17
    assert survey.listed == []


def test_a_shard_that_vanished_is_counted(survey):
    (survey.folder / "a.parquet").unlink()
    assert survey.plan().counts.vanished == 5
    assert survey.plan(prune=True).removed
    assert survey.night(prune=True).vanished == 5
    assert survey.plan().counts.listed == 10


def test_an_id_that_a_settled_galaxy_has_is_found(survey):
    survey.write("d", ["b3", "d0"])
    assert survey.night().new == 2
    assert survey.rejects == [("b3", "duplicate_id")]
    # Whether it stays a duplicate depends on another shard, so its own does not settle it.
    assert layout.MANY_ORIGINS in survey.origins
    survey.plan()
    assert [info.uri[-9:] for info in survey.listed] == ["d.parquet"]
    (survey.folder / "b.parquet").unlink()
    survey.night(prune=True)
    assert survey.rejects == []


def test_an_id_between_those_of_a_settled_unit_opens_nothing_more(survey):
    survey.write("d", ["b3x"])
    assert survey.plan().counts.new == 1
    assert len(survey.listed) == 1


@pytest.mark.parametrize("flags", [{"full": True}, {"limit": 15}, {"positions": "positions.csv"}])
def test_what_may_touch_any_row_looks_at_every_row(survey, flags):
    (survey.folder.parent / "positions.csv").write_text("galaxy_id,ra,dec\na0,1,2\n")
    if "positions" in flags:
        flags = {"positions": str(survey.folder.parent / "positions.csv")}
    plan = survey.plan(**flags)
    assert len({info.uri for info in survey.listed}) == 3
    assert plan.counts.listed == 15


def test_a_shard_of_several_units_is_looked_at(tmp_path, monkeypatch):
    survey = Survey(tmp_path, monkeypatch)
    survey.write("a", [f"a{i}" for i in range(10)])
    survey.night()
    assert survey.origins == {layout.MANY_ORIGINS}
    assert survey.plan().counts.unchanged == 10
    assert len(survey.listed) == 1


class TestSeveralShardsOfAUnit:
    """A unit of several shards is settled as a whole."""

    @pytest.fixture
    def packed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Survey:
        """Three shards of five galaxies in one unit."""
        made = Survey(tmp_path, monkeypatch)
        for name in "abc":
            made.write(name, [f"{name}{i}" for i in range(5)])
        assert made.night(unit_size=100).new == 15
        assert made.origins == {layout.SEVERAL_ORIGINS}
        return made

    def test_an_unchanged_survey_opens_no_shard(self, packed):
        packed.write("d", ["d0"])
        plan = packed.plan(unit_size=100)
        assert [info.uri[-9:] for info in packed.listed] == ["d.parquet"]
        assert (plan.counts.new, plan.counts.unchanged, plan.counts.vanished) == (1, 15, 0)

    def test_a_changed_shard_redoes_the_unit_with_the_rows_of_all(self, packed):
        (unit_id,) = Catalog(packed.settings().catalog).units()
        packed.write("b", ["b0", "b1", "b2", "b3"])
        plan = packed.plan(unit_size=100)
        assert [(unit.unit_id, unit.members) for unit in plan.units] == [(unit_id, 14)]
        assert (plan.counts.changed, plan.counts.unchanged, plan.counts.vanished) == (4, 10, 1)
        packed.night(unit_size=100)
        assert packed.plan().counts.unchanged == 14
        assert packed.listed == []

    def test_a_shard_that_vanished_makes_the_others_be_listed(self, packed):
        (packed.folder / "a.parquet").unlink()
        counts = packed.plan().counts
        assert (counts.unchanged, counts.vanished) == (10, 5)
        assert packed.night(prune=True).vanished == 5
        assert packed.plan().counts.unchanged == 10
        assert packed.listed == []

    def test_compaction_keeps_the_shards_settled(self, packed):
        packed.write("d", ["d0", "d1"])
        packed.night(unit_size=100)
        packed.write("e", ["e0", "e1"])
        packed.night(unit_size=100)
        assert compact(packed.settings().catalog, 100, passes=DEFAULT_PASSES, draws=DEFAULT_DRAWS).after == 1
        assert packed.origins == {layout.SEVERAL_ORIGINS}
        assert packed.plan().counts.unchanged == 19
        assert packed.listed == []

    def test_compaction_leaves_units_of_unsettled_cutouts_to_themselves(self, packed):
        packed.write("d", ["b3", "d0"])
        packed.night(unit_size=100)
        assert compact(packed.settings().catalog, 100, passes=DEFAULT_PASSES, draws=DEFAULT_DRAWS).after == 2
        packed.plan()
        assert [info.uri[-9:] for info in packed.listed] == ["d.parquet"]
