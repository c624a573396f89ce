import pyarrow as pa
import pyarrow.compute as pc
import pytest
from conditional_calibration import calibrated_bundle, write_calibrated_part
from published_catalogs import SMOOTH, Survey

from gax_batch.analysis.conditional import NAMES, Conditional
from gax_batch.catalog.schema import GALAXIES
from gax_batch.errors import UsageError
from gax_batch.export.selection import Selection, choose_columns, described


def test_names_and_globs_come_once_in_the_order_asked_for():
    chosen = choose_columns(["dec, galaxy_id", "t01*_prob,dec"])
    assert chosen[:2] == ("dec", "galaxy_id")
    assert chosen[2:] == tuple(n for n in GALAXIES.names if n.startswith("t01") and n.endswith("_prob"))
    assert choose_columns([]) == tuple(GALAXIES.names)


def test_conditional_fractions_are_all_chosen_or_those_that_are_named():
    assert choose_columns([], conditional=True) == (*GALAXIES.names, *NAMES)
    assert choose_columns(["galaxy_id"], conditional=True) == ("galaxy_id", *NAMES)
    named = tuple(name for name in NAMES if name.startswith("t04"))
    assert choose_columns(["galaxy_id,t04*_conditional*"], conditional=True) == ("galaxy_id", *named)
    with pytest.raises(UsageError):
        choose_columns(["t04*_conditional"])


def test_conditional_fractions_are_read_with_the_columns_asked_for(tmp_path):
    survey = Survey(tmp_path)
    survey.commit(*(write_calibrated_part(survey.catalog, number) for number in range(2)))
    fitted = Conditional.of_bundle(calibrated_bundle())
    selection = Selection(("galaxy_id", NAMES[4], "ra"), f"{SMOOTH} > 0.3", fitted)
    tables = list(selection.read(survey.root, survey.keys, more=("bundle_id",)))
    assert {tuple(table.column_names) for table in tables} == {("galaxy_id", NAMES[4], "ra", "bundle_id")}
    expected = fitted.add_to(survey.rows())
    chosen = expected.filter(pc.greater(expected[SMOOTH], 0.3))
    found = pa.concat_tables(tables)
    assert 0 < len(found) < len(expected)
    assert found.select(["galaxy_id", NAMES[4]]).equals(chosen.select(["galaxy_id", NAMES[4]]))


def test_the_text_of_a_selection_names_its_columns_and_not_the_calibration():
    selection = Selection(("ra", NAMES[0]), None, Conditional.of_bundle(calibrated_bundle()))
    assert NAMES[0] in repr(selection)
    assert repr(Selection(("ra",))) == repr(Selection(("ra",), None, selection.conditional))


@pytest.mark.parametrize(
    ("pattern", "meant"), [("galaxyid", "galaxy_id"), ("smoth", SMOOTH), ("zz*", "galaxy_id.*run_id")]
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
