"""Merging small units."""

import re

import pytest
from catalogs import META, galaxies, local, rejects, visible_rejects
from typer.testing import CliRunner

from gax_batch.catalog import compaction
from gax_batch.catalog.compaction import compact
from gax_batch.catalog.history import restore
from gax_batch.catalog.snapshots import Catalog
from gax_batch.cli import app
from gax_batch.errors import UsageError
from gax_batch.models import DEFAULT_DRAWS, DEFAULT_PASSES
from gax_batch.system.machine import MIB


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
        done = compact(catalog, 10, passes=DEFAULT_PASSES, draws=DEFAULT_DRAWS)
        assert (done.before, done.after) == (6, 3)
        assert Catalog(catalog).galaxies().sort_by("galaxy_id") == before
        assert rejects(catalog) == visible_rejects(catalog) == bad
        assert sorted(Catalog(catalog).planned().values()) == [6, 9, 9]

    def test_again_there_is_nothing_to_merge_and_no_snapshot(self, catalog, nights):
        version = compact(catalog, 10, passes=DEFAULT_PASSES, draws=DEFAULT_DRAWS).version
        # Groups of 9 and 6 do not fit into 10, and only the 6 is small.
        assert compact(catalog, 10, passes=DEFAULT_PASSES, draws=DEFAULT_DRAWS).version == version

    def test_units_of_other_settings_are_not_mixed(self, catalog, make_part):
        parts = [make_part("u", ["a"]), make_part("v", ["b"], settings="other")]
        Catalog(catalog).commit(parts, run_id="r", metadata=META)
        assert compact(catalog, 10, passes=DEFAULT_PASSES, draws=DEFAULT_DRAWS).after == 2

    def test_a_plan_knows_the_merged_unit_as_the_one_to_redo(self, catalog, nights):
        compact(catalog, 1000, passes=DEFAULT_PASSES, draws=DEFAULT_DRAWS)
        opened = Catalog(catalog)
        units = {unit for table in opened.members() for unit in table["unit_id"].to_pylist()}
        assert units == set(opened.units())

    def test_the_snapshot_before_it_can_be_restored(self, catalog, nights):
        compact(catalog, 1000, passes=DEFAULT_PASSES, draws=DEFAULT_DRAWS)
        restore(catalog, nights)
        assert len(Catalog(catalog).units()) == 6
        assert len(galaxies(catalog)) == 19
        assert len(visible_rejects(catalog)) == 5

    def test_a_unit_that_no_run_could_hold_is_refused_before_anything_is_merged(
        self, catalog, nights, monkeypatch
    ):
        monkeypatch.setattr(compaction, "available_bytes", lambda: 100 * MIB)
        parts = len(list(local(catalog).rglob("*.parquet")))
        with pytest.raises(UsageError, match="100 MiB"):
            compact(catalog, 1000, passes=DEFAULT_PASSES, draws=DEFAULT_DRAWS)
        assert len(list(local(catalog).rglob("*.parquet"))) == parts
        # The catalog has a unit of nine already: somebody held it.
        assert compact(catalog, 10, passes=DEFAULT_PASSES, draws=DEFAULT_DRAWS).after == 3

    def test_a_unit_never_has_more_cutouts_than_a_run_may_ask_for(self, catalog, nights, monkeypatch):
        monkeypatch.setattr(compaction, "MAX_UNIT_SIZE", 10)
        compact(catalog, 10**6, passes=DEFAULT_PASSES, draws=DEFAULT_DRAWS)
        assert sorted(Catalog(catalog).planned().values()) == [6, 9, 9]
        done = CliRunner().invoke(app, ["catalog", "compact", "--catalog", catalog, "--unit-size", "65537"])
        assert done.exit_code == 2


def test_the_command_says_what_it_did(catalog, make_part):
    for i in range(2):
        Catalog(catalog).commit([make_part(f"u{i}", [f"a{i}"])], run_id=f"r{i}", metadata=META)
    done = CliRunner().invoke(app, ["catalog", "compact", "--catalog", catalog])
    assert re.findall(r"\d+", done.output) == ["2", "1", "3"]
