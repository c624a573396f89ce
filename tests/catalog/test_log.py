"""The log of a catalog's table: nothing but `vacuum` ends a snapshot."""

import pytest
from catalogs import META, age, commit_nothing, galaxies, local
from deltalake import DeltaTable

from gax_batch.catalog import delta
from gax_batch.catalog.diff import compare
from gax_batch.catalog.history import contents, restore
from gax_batch.catalog.log import changes
from gax_batch.catalog.snapshots import Catalog
from gax_batch.errors import UsageError

# One below the interval at which delta-rs writes a checkpoint and deletes what is older than 30 days.
ALMOST_A_CHECKPOINT = 98


@pytest.fixture(params=["new", "older"])
def long_log(request, catalog, make_part, monkeypatch) -> int:
    """A catalog of many commits, 45 days old, of this release or of one that set no properties."""
    with monkeypatch.context() as patch:
        if request.param == "older":
            patch.setattr(delta, "PROPERTIES", {delta.FORMAT_KEY: "2"})
        first = Catalog(catalog).commit([make_part("u", ["a"])], run_id="r1", metadata=META)
    commit_nothing(catalog, ALMOST_A_CHECKPOINT)
    age(catalog, 45)
    return first


def test_old_snapshots_outlive_checkpoints(catalog, make_part, long_log, tmp_path):
    for version in "234":
        Catalog(catalog).commit([make_part("u", ["b"], version=version)], run_id="r", metadata=META)
    newest = Catalog(catalog)
    assert newest.version > 100
    assert list((local(catalog) / "galaxies" / "_delta_log").glob("*.checkpoint.parquet"))
    DeltaTable(str(local(catalog) / "galaxies")).cleanup_metadata()
    for version in (long_log, ALMOST_A_CHECKPOINT):
        assert contents(Catalog(catalog, version)).galaxies == 1
    assert compare(Catalog(catalog, long_log), newest, tmp_path, most=1).added == 1
    restore(catalog, long_log)
    assert galaxies(catalog) == ["a"]
    assert Catalog(catalog).oldest() == 0


def test_a_snapshot_whose_log_an_earlier_release_lost_is_refused_with_the_oldest_there_is(
    catalog, make_part, monkeypatch
):
    monkeypatch.setattr(delta, "PROPERTIES", {delta.FORMAT_KEY: "2"})
    Catalog(catalog).commit([make_part("u", ["a"])], run_id="r1", metadata=META)
    commit_nothing(catalog, ALMOST_A_CHECKPOINT)
    age(catalog, 45)
    table = DeltaTable(str(local(catalog) / "galaxies"))
    table.create_checkpoint()
    table.cleanup_metadata()
    oldest = Catalog(catalog).oldest()
    assert oldest == ALMOST_A_CHECKPOINT
    for use in (Catalog, restore):
        with pytest.raises(UsageError, match=rf" 2\b.* {oldest}\b") as caught:
            use(catalog, 2)
        assert "\n" not in str(caught.value)
    assert len(Catalog(catalog, oldest).galaxies()) == 1


def test_the_properties_are_set_once(catalog, make_part, long_log):
    Catalog(catalog).commit([make_part("v", ["b"])], run_id="r2", metadata=META)
    version = Catalog(catalog).version
    assert Catalog(catalog).commit([make_part("w", ["c"])], run_id="r3", metadata=META) == version + 1
    found = DeltaTable(str(local(catalog) / "galaxies")).metadata().configuration
    assert found == delta.PROPERTIES


def test_changes_are_what_commits_did(catalog, make_part):
    parts = [make_part("u", ["a"], version=version) for version in "12"]
    for part in parts:
        Catalog(catalog).commit([part], run_id=part.key, metadata=META)
    root = f"{catalog}/galaxies"
    first, second = changes(root, 0, 2)
    assert (first.version, first.added, first.removed) == (1, {parts[0].key}, frozenset())
    assert (second.version, second.added, second.removed) == (2, {parts[1].key}, {parts[0].key})
