"""A catalog of a release that did not have all columns yet: read, continued, and its history kept."""

import pyarrow as pa
import pytest
from catalogs import META, galaxies, local, rejects
from deltalake import DeltaTable

from gax_batch.catalog import parts, schema, snapshots
from gax_batch.catalog.history import log_lines, restore
from gax_batch.catalog.schema import ADDED_COLUMNS, GALAXIES, galaxies_table
from gax_batch.catalog.snapshots import Catalog

OLDER = pa.schema([field for field in GALAXIES if field.name not in ADDED_COLUMNS])


@pytest.fixture
def older_release(catalog, cutouts, model_columns, make_part) -> int:
    """A snapshot of the galaxies `a b` and the reject `x`, as the older release committed it."""
    columns = {name: values for name, values in model_columns(2).items() if name not in ADDED_COLUMNS}
    labels = {"unit_id": "0" * 16, "run_id": "older"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "GALAXIES", OLDER)
        patch.setattr(parts, "GALAXIES", OLDER)
        patch.setattr(snapshots, "GALAXIES", OLDER)
        rows = galaxies_table(cutouts(["a", "b"]), columns, bundle_id="bundle", **labels)
        bad = schema.rejects_table(cutouts(["x"], reason="truncated"), **labels)
        part = parts.write_unit(
            catalog, "settings", rows, bad, unit_id=labels["unit_id"], fingerprint="f" * 16, planned=3
        )
        return Catalog(catalog).commit([part], run_id="older", metadata=META)


def columns_for_everyone(catalog: str) -> set[str]:
    return {field.name for field in DeltaTable(str(local(catalog) / "galaxies")).schema().fields}


def test_every_added_column_can_be_null():
    assert all(GALAXIES.field(name).nullable for name in ADDED_COLUMNS)


def test_an_older_catalog_is_read_with_nulls(catalog, older_release):
    opened = Catalog(catalog)
    assert opened.galaxies().schema.equals(GALAXIES, check_metadata=True)
    (rows,) = opened.batches(["gz2_class_margin", "galaxy_id"])
    assert rows.to_pydict() == {"gz2_class_margin": [None, None], "galaxy_id": ["a", "b"]}
    assert not ADDED_COLUMNS & columns_for_everyone(catalog)


def test_the_next_commit_adds_the_columns_for_every_reader(catalog, older_release, make_part):
    Catalog(catalog).commit([make_part("v", ["c"])], run_id="newer", metadata=META)
    assert columns_for_everyone(catalog) == set(GALAXIES.names)
    table = DeltaTable(str(local(catalog) / "galaxies")).to_pyarrow_table()
    margins = dict(zip(table["galaxy_id"].to_pylist(), table["gz2_class_margin"].to_pylist(), strict=True))
    assert margins == {"a": None, "b": None, "c": 0.25}
    count = len(Catalog(catalog).history())
    Catalog(catalog).commit([make_part("w", ["d"])], run_id="newest", metadata=META)
    assert len(Catalog(catalog).history()) == count + 1


def test_every_snapshot_keeps_its_galaxies_and_rejects(catalog, older_release, make_part):
    units = list(Catalog(catalog).units())
    redone = make_part("u", ["a", "b", "x"], unit_id=units[0], version="2")
    Catalog(catalog).commit([redone], run_id="newer", metadata=META)
    entries = Catalog(catalog).history()
    assert [(e.facts.get("galaxies"), e.facts.get("galaxies_added")) for e in entries] == [
        (3, 3),
        (2, 0),
        (2, 2),
        (None, None),
    ]
    assert "newer" in log_lines(entries)[2]
    for version in (older_release, older_release + 1):
        then = Catalog(catalog, version)
        assert sorted(then.galaxies(["galaxy_id"])["galaxy_id"].to_pylist()) == ["a", "b"]
        assert then.rejects()["galaxy_id"].to_pylist() == ["x"]
    restore(catalog, older_release)
    assert (galaxies(catalog), rejects(catalog)) == (["a", "b"], ["x"])


def test_a_run_that_opened_the_older_catalog_commits_after_another_added_the_columns(
    catalog, older_release, make_part
):
    ours = Catalog(catalog)
    Catalog(catalog).commit([make_part("v", ["c"])], run_id="theirs", metadata=META)
    ours.commit([make_part("w", ["d"])], run_id="ours", metadata=META)
    assert galaxies(catalog) == ["a", "b", "c", "d"]
