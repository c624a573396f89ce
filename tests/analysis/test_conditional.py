"""Conditional fractions and their intervals from the columns of a catalog."""

import numpy as np
import pyarrow as pa
import pytest
from conditional_calibration import CHOICES, calibrated_bundle, calibration, write_calibrated_part
from published_catalogs import Survey, write_part

from gax_batch import gz2
from gax_batch.analysis.conditional import NAMES, NEEDED, Conditional
from gax_batch.catalog.schema import CONDITIONAL_COLUMNS, GALAXIES
from gax_batch.errors import UsageError

SPIRAL = "t04_spiral_a08_spiral"


@pytest.fixture
def fitted():
    return Conditional.of_bundle(calibrated_bundle())


def rows_of(tmp_path, *parts) -> pa.Table:
    survey = Survey(tmp_path)
    survey.commit(*(part(survey.catalog) for part in parts))
    return survey.rows()


def values_of(rows, kind):
    return np.stack([rows[f"{answer}_{kind}"].to_numpy() for answer in gz2.ANSWERS], axis=1)


@pytest.mark.parametrize("models", CHOICES, ids="+".join)
def test_intervals_are_those_of_the_models_that_made_the_rows(models, fitted, tmp_path):
    rows = rows_of(tmp_path, lambda catalog: write_calibrated_part(catalog, 0, models))
    found = fitted.add_to(rows.select(["galaxy_id", *NEEDED]))
    prob, std = values_of(rows, "prob"), values_of(rows, "std")
    np.testing.assert_allclose(values_of(found, "conditional"), gz2.conditional(prob), rtol=1e-6)
    for kind, end in zip(("lo", "hi"), calibration(models).conditional.interval(prob, std, 0.9), strict=True):
        np.testing.assert_array_equal(values_of(found, f"conditional_{kind}"), end)


def test_the_columns_are_described_and_follow_those_that_were_there(fitted, tmp_path):
    rows = rows_of(tmp_path, lambda catalog: write_calibrated_part(catalog, 0))
    found = fitted.add_to(rows)
    assert found.column_names == [*GALAXIES.names, *NAMES]
    assert found.select(NAMES).schema.equals(
        pa.schema([c.field for c in CONDITIONAL_COLUMNS]), check_metadata=True
    )
    assert set(NEEDED) < set(GALAXIES.names)


def test_questions_that_all_are_asked_have_the_catalogs_own_intervals(fitted, tmp_path):
    rows = rows_of(tmp_path, lambda catalog: write_calibrated_part(catalog, 0))
    found = fitted.add_to(rows)
    for question in (q for q in gz2.QUESTIONS if q.parent is None):
        for answer in gz2.ANSWERS[question.columns]:
            for kind in ("lo", "hi"):
                one, other = found[f"{answer}_{kind}"], found[f"{answer}_conditional_{kind}"]
                np.testing.assert_allclose(one.to_numpy(), other.to_numpy(), atol=1e-6)


def test_a_fraction_that_is_not_known_stays_unknown(fitted, tmp_path):
    rows = rows_of(tmp_path, lambda catalog: write_calibrated_part(catalog, 0))
    place = rows.column_names.index(f"{SPIRAL}_prob")
    nulls = pa.array(rows[f"{SPIRAL}_prob"].to_numpy(), pa.float32(), mask=np.arange(len(rows)) < 3)
    found = fitted.add_to(rows.set_column(place, GALAXIES.field(f"{SPIRAL}_prob"), nulls))
    for kind in ("", "_lo", "_hi"):
        column = found[f"{SPIRAL}_conditional{kind}"]
        assert column.is_null().to_pylist() == [True] * 3 + [False] * (len(rows) - 3)


def test_no_rows_have_the_columns_too(fitted):
    assert fitted.add_to(GALAXIES.empty_table()).column_names == [*GALAXIES.names, *NAMES]


def refusal(call, *arguments) -> str:
    with pytest.raises(UsageError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_galaxies_of_another_bundle_are_refused(fitted, tmp_path):
    rows = rows_of(
        tmp_path,
        lambda catalog: write_calibrated_part(catalog, 0),
        lambda catalog: write_part(catalog, 1),
    )
    text = refusal(fitted.add_to, rows)
    assert "bundle-1" in text
    assert "known-1" in text
    assert "--bundle" in text


def test_a_bundle_of_an_earlier_release_is_refused():
    assert "known-1" in refusal(Conditional.of_bundle, calibrated_bundle(conditional=False))


def test_rows_that_no_choice_of_models_makes_are_refused(fitted, tmp_path):
    rows = rows_of(tmp_path, lambda catalog: write_part(catalog, 0, bundle_id="known-1"))
    assert "known-1" in refusal(fitted.add_to, rows)


def test_a_damaged_calibration_is_refused():
    bundle = calibrated_bundle()
    bundle.manifest["calibration"]["combinations"]["bayesian+svr"]["conditional"].pop("scale")
    assert "quantiles" in refusal(Conditional.of_bundle, bundle)
