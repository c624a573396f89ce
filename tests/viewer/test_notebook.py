"""`gax_batch.open_catalog`: its examples, and what it refuses."""

import doctest
import importlib.util
import subprocess
import sys
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from conditional_calibration import calibrated_bundle, write_calibrated_part
from fake_engine import known_draws
from published_catalogs import SMOOTH, Survey, write_part

import gax_batch
from gax_batch import gz2
from gax_batch.analysis.conditional import NAMES, Conditional
from gax_batch.catalog.schema import COLUMNS
from gax_batch.catalog.snapshots import Catalog
from gax_batch.errors import UsageError
from gax_batch.imaging.decoding import Decoder
from gax_batch.viewer import notebook
from gax_batch.viewer.tree import BAR


@pytest.fixture
def options(options):
    return replace(options, keep_draws=True)


@pytest.fixture
def snapshot(stored_unit, tmp_path, monkeypatch):
    mpl.use("agg")
    part, options = stored_unit
    Catalog(options.catalog).commit([part], run_id=options.run_id, metadata={})
    monkeypatch.chdir(tmp_path)
    return gax_batch.open_catalog("catalog")


@pytest.mark.parametrize("module", [gax_batch, notebook])
def test_the_examples_run(snapshot, module):
    done = doctest.testmod(module)
    assert done.attempted > 2
    assert done.failed == 0


def test_importing_the_package_stays_light():
    script = "import sys, gax_batch; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    slow = {"pyarrow", "numpy", "matplotlib", "astropy", "gax_batch.viewer.notebook"}
    assert not slow & set(done.stdout.split())


def test_cutouts_are_those_of_the_files_in_the_order_asked(snapshot, tmp_path):
    ids = ["000004", "000000", "000003"]
    pixels = snapshot.cutouts(ids)
    for name, cutout in zip(ids, pixels, strict=True):
        expected, _ = Decoder().decode((tmp_path / "images" / f"{name}.jpg").read_bytes())
        np.testing.assert_array_equal(cutout, expected)


def test_a_cutout_may_be_asked_for_twice(snapshot):
    first, _, again = snapshot.cutouts(["000004", "000000", "000004"])
    np.testing.assert_array_equal(first, again)
    assert first.any()


def test_what_is_not_there_is_said_in_a_line(snapshot, tmp_path):
    with pytest.raises(UsageError, match=r"1 \D*2 .*\b1 .*nobody"):
        snapshot.cutouts(["000001", "nobody"])
    with pytest.raises(UsageError, match=r"\bsize\b"):
        snapshot.to_arrow(["galaxy_id", "size"])
    (tmp_path / "images" / "000001.jpg").unlink()
    with pytest.raises(UsageError, match=r"000001.*missing"):
        snapshot.cutouts(["000003", "000001"])
    with pytest.raises(UsageError, match="images/none"):
        gax_batch.open_catalog(str(tmp_path / "images" / "none"))


def test_draws_are_those_that_were_kept(snapshot):
    draws = snapshot.draws(["000004", "000001", "000004"])
    rows = snapshot.galaxies(["000004", "000001"]).to_pylist()
    prob = np.array([[row[f"{answer}_prob"] for answer in gz2.ANSWERS] for row in rows], np.float32)
    np.testing.assert_allclose(draws[:2], known_draws(prob), atol=6e-4)
    np.testing.assert_array_equal(draws[0], draws[2])


def test_conditional_fractions_are_those_of_the_bundle_that_made_the_catalog(tmp_path, monkeypatch):
    survey = Survey(tmp_path)
    survey.commit(*(write_calibrated_part(survey.catalog, number) for number in range(2)))
    bundles = {None: calibrated_bundle(), "older": calibrated_bundle(conditional=False)}
    monkeypatch.setattr(notebook, "load_bundle", bundles.get)
    opened = gax_batch.open_catalog(survey.catalog)
    expected = Conditional.of_bundle(calibrated_bundle()).add_to(survey.rows())
    found = opened.conditional()
    assert found.equals(expected.select(["galaxy_id", *NAMES]), check_metadata=False)
    assert found.schema.field(NAMES[1]).metadata[b"ucd"] == b"src.morph.type;stat.min"
    spirals = opened.conditional(["t04"], where=f"{SMOOTH} < 0.3")
    assert spirals.column_names == ["galaxy_id", *(name for name in NAMES if name.startswith("t04_"))]
    assert 0 < len(spirals) < len(expected)
    with pytest.raises(UsageError, match="t04_spiral"):
        opened.conditional(["t04_spirals"])
    with pytest.raises(UsageError, match="known-1"):
        opened.conditional(bundle="older")


# LSDB and nested-pandas use an option and a keyword that pandas 3 is about to drop.
@pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The 'mode.chained_assignment' option:DeprecationWarning")
def test_lsdb_has_the_galaxies_with_a_position(snapshot, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r" 4 "):
        snapshot.to_lsdb(["galaxy_id"])
    survey = Survey(tmp_path / "sky")
    survey.commit(write_part(survey.catalog, 0))
    placed = gax_batch.open_catalog(survey.catalog)
    found = placed.to_lsdb(["galaxy_id", SMOOTH], where=f"{SMOOTH} > 0.5").compute(progress_bar=False)
    expected = placed.to_pandas(["galaxy_id", "ra", SMOOTH], where=f"{SMOOTH} > 0.5").dropna(subset="ra")
    assert sorted(found["galaxy_id"]) == sorted(expected["galaxy_id"])
    assert list(found.columns) == ["galaxy_id", SMOOTH, "ra", "dec"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pip install 'gax-batch\[export\]'"):
        placed.to_lsdb()


def test_every_column_reaches_astropy_with_unit_and_description(snapshot):
    table = snapshot.to_astropy()
    assert table.colnames == [column.name for column in COLUMNS]
    for column in COLUMNS:
        assert table[column.name].description == column.description
        assert str(table[column.name].unit or "") == column.unit
    assert table["ra"].mask.all()
    prob = f"{gz2.ANSWERS[0]}_prob"
    np.testing.assert_array_equal(table[prob], snapshot.to_arrow([prob])[prob].to_numpy())


def test_the_tree_is_drawn_from_the_rows_numbers(snapshot):
    row = snapshot.galaxies(["000001"]).to_pylist()[0]
    axes = snapshot.plot("000001")
    ends = [line.get_xdata() for line in axes.lines if line.get_gid() == "fraction"]
    assert len(ends) == gz2.N_ANSWERS
    fractions = sorted((stop - start) / BAR for start, stop in ends)
    assert fractions == pytest.approx(sorted(row[f"{answer}_prob"] for answer in gz2.ANSWERS), abs=1e-9)
    labels = [text.get_text().strip() for text in axes.texts]
    questions = [gz2.in_words(name) for name in gz2.QUESTION_NAMES]
    assert sorted(label[:-1] for label in labels if label.endswith("?")) == sorted(questions)
    assert axes.get_title().startswith("000001")
