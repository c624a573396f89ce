import pytest
from published import SMOOTH, Survey

from gax_batch.catalog.schema import GALAXIES
from gax_batch.errors import UsageError
from gax_batch.publish.selection import Selection, choose_columns, described


def test_names_and_globs_come_once_in_the_order_asked_for():
    chosen = choose_columns(["dec, galaxy_id", "t01*_prob,dec"])
    assert chosen[:2] == ("dec", "galaxy_id")
    assert chosen[2:] == tuple(n for n in GALAXIES.names if n.startswith("t01") and n.endswith("_prob"))
    assert choose_columns([]) == tuple(GALAXIES.names)


@pytest.mark.parametrize(
    ("pattern", "meant"), [("galaxyid", "galaxy_id"), ("smoth", SMOOTH), ("zz*", "galaxy_id, ..., run_id")]
)
def test_an_unknown_name_gets_the_nearest_right_one(pattern, meant):
    with pytest.raises(UsageError, match=f"{pattern[:2]}.*{meant}"):
        choose_columns(["ra", pattern])


def test_what_is_read_are_the_galaxies_that_fulfill_the_expression(survey: Survey):
    selection = Selection(("galaxy_id", "ra"), f"{SMOOTH} > 0.75 AND dec > 2")
    tables = list(selection.read(survey.root, survey.keys, more=("bundle_id", "ra")))
    assert len(tables) == len(survey.keys)
    assert {tuple(table.column_names) for table in tables} == {("galaxy_id", "ra", "bundle_id")}
    found = [name for table in tables for name in table["galaxy_id"].to_pylist()]
    expected = [
        row["galaxy_id"]
        for row in survey.rows().select(["galaxy_id", "dec", SMOOTH]).to_pylist()
        if row[SMOOTH] > 0.75 and row["dec"] is not None and row["dec"] > 2
    ]
    assert 0 < len(found) < 200
    assert found == expected


def test_described_columns_have_unit_ucd_and_meaning():
    ra, smooth = described(["ra", SMOOTH])
    assert (ra.unit, ra.ucd) == ("deg", "pos.eq.ra;meta.main")
    assert smooth.description
