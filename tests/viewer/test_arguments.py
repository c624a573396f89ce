"""What astronomers type first in a notebook: it works, or one line names the fix."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from published_catalogs import SMOOTH, Survey, write_part

import gax_batch
from gax_batch.analysis.conditional import NAMES
from gax_batch.catalog.schema import GALAXIES
from gax_batch.errors import UsageError
from gax_batch.viewer.arguments import columns_of, ids_of, uri_of

STEM = SMOOTH.removesuffix("_prob")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    survey = Survey(tmp_path_factory.mktemp("typed"))
    survey.commit(write_part(survey.catalog, 0, bundle_id="bundle-a"), write_part(survey.catalog, 1))
    return survey.folder / "catalog"


@pytest.fixture(scope="module")
def snapshot(place):
    return gax_batch.open_catalog(place)


def mistake(call) -> str:
    with pytest.raises(UsageError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_catalog_is_opened_by_a_path(place):
    assert gax_batch.open_catalog(place).uri == gax_batch.open_catalog(str(place)).uri
    assert "int" in mistake(lambda: gax_batch.open_catalog(5))


def test_a_catalog_that_is_not_there_is_looked_for_around_the_place(place):
    assert f"file://{place}?" in mistake(lambda: gax_batch.open_catalog(place.parent))
    assert f"file://{place}?" in mistake(lambda: gax_batch.open_catalog(place / "galaxies"))
    nowhere = place.parent / "nothing" / "here"
    assert str(nowhere) in mistake(lambda: gax_batch.open_catalog(nowhere))


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ("587722981742084144", ["587722981742084144"]),
        (587722981742084144, ["587722981742084144"]),
        ([587722981742084144, "b"], ["587722981742084144", "b"]),
        (np.array([3, 5]), ["3", "5"]),
        (np.array(["a", "b"]), ["a", "b"]),
        (pa.array(["a", "b"]), ["a", "b"]),
        (pa.chunked_array([[1], [2]]), ["1", "2"]),
        (("a", "a"), ["a", "a"]),
        ([], []),
    ],
)
def test_identifiers_are_text_or_integers_one_or_several(ids, expected):
    assert ids_of(ids) == expected


@pytest.mark.parametrize("ids", [1.5, [5.8e17], None, [None], [b"a"], [["a"]], True])
def test_other_identifiers_are_refused(ids):
    assert "galaxy_id" in mistake(lambda: ids_of(ids))


def test_one_galaxy_needs_no_list(snapshot):
    assert snapshot.galaxies("g0-1", "ra").column_names == ["ra"]
    assert snapshot.galaxies("g1-7", ["galaxy_id"])["galaxy_id"].to_pylist() == ["g1-7"]
    assert snapshot.plot is not None
    said = mistake(lambda: snapshot.galaxies([7]))
    assert "7" in said
    assert "'g0-0'" in said  # what an identifier looks like


def test_columns_are_names_or_globs_one_or_several(snapshot):
    assert snapshot.to_arrow("galaxy_id").column_names == ["galaxy_id"]
    probs = [name for name in GALAXIES.names if name.startswith("t01") and name.endswith("_prob")]
    assert snapshot.to_arrow(["ra", "t01*_prob"]).column_names == ["ra", *probs]
    assert snapshot.to_pandas("ra,dec").columns.tolist() == ["ra", "dec"]
    assert snapshot.to_arrow([]).column_names == []
    assert columns_of(None) == GALAXIES.names


def test_a_column_without_its_suffix_gets_its_names():
    said = mistake(lambda: columns_of([STEM]))
    assert {f"{STEM}_{kind}" for kind in ("prob", "std", "lo", "hi", "svr")} <= set(
        said.replace(",", " ").replace(";", " ").split()
    )
    assert f"{STEM}_*" in said
    assert "--columns" not in said


def test_other_columns_are_refused_with_a_hint():
    assert "galaxy_id" in mistake(lambda: columns_of(["galaxyid"]))
    assert "conditional" in mistake(lambda: columns_of([NAMES[0]]))
    assert "int" in mistake(lambda: columns_of([3]))
    assert "int" in mistake(lambda: columns_of(3))
    assert "int" in mistake(lambda: uri_of(3))


@pytest.mark.parametrize(
    ("where", "fix"),
    [
        ('gz2_class = "Er"', "single quotes: 'Er'"),
        (f"{STEM} > 0.5", SMOOTH),
        ("ra > 1; drop table rows", "statement"),
        ("select * from galaxies", "gz2_class = 'Er'"),
        ("ra >", "gz2_class = 'Er'"),
    ],
)
def test_a_condition_that_is_wrong_names_the_fix(where, fix, snapshot):
    said = mistake(lambda: snapshot.to_arrow(["galaxy_id"], where=where))
    assert fix in said
    assert "json" not in said.lower()


def test_a_snapshot_shows_itself_its_columns_and_its_first_rows(snapshot, place):
    shown = snapshot._repr_html_()
    assert {str(place), "400"} <= set(
        shown.replace("file://", " ").replace("<", " ").replace(">", " ").split()
    )
    assert snapshot.columns == GALAXIES.names
    assert snapshot.head().shape == (5, len(GALAXIES))
    assert snapshot.head(3, "galaxy_id")["galaxy_id"].tolist() == ["g0-0", "g0-1", "g0-2"]
    assert len(snapshot.head(0)) == 0
    assert len(snapshot.head(10_000, "ra")) == 400
    some = snapshot.head(4, ["ra", SMOOTH], where=f"{SMOOTH} > 0.9")
    assert (some[SMOOTH] > 0.9).all()
    assert len(some) == 4


def test_what_is_shown_is_escaped():
    from gax_batch.viewer.frames import html_table

    assert "<b>" not in html_table({"catalog": "file:///<b>"})


def test_an_astropy_table_knows_its_snapshot_and_bundles(snapshot):
    table = snapshot.to_astropy(["ra"])
    assert table.colnames == ["ra"]
    assert table.meta == {"catalog": snapshot.uri, "snapshot": 1, "bundle_id": "bundle-1 bundle-a"}
