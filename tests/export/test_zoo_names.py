"""`gax publish --names`: the tables of Galaxy Zoo and Zoobot, against a computation of their definitions."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from conditional_calibration import calibrated_bundle, write_calibrated_part
from published_catalogs import Survey
from typer.testing import CliRunner

from gax_batch import gz2
from gax_batch.analysis.conditional import Conditional
from gax_batch.catalog.schema import GALAXIES
from gax_batch.cli import app
from gax_batch.errors import UsageError
from gax_batch.export import publication
from gax_batch.export.formats import Names
from gax_batch.export.manifest import HatsSettings
from gax_batch.export.selection import Selection, choose_columns
from gax_batch.export.tasks import Tile
from gax_batch.export.zoo_names import COLUMNS, LABELS, columns_named

# Written down from Willett et al. 2013, table 2: the label of each column of Hart et al. 2016, and the
# column of the answer after which its question is asked.
FEATURED, FACE_ON = "t01_smooth_or_features_a02_features_or_disk", "t02_edgeon_a05_no"
SPIRAL, EDGE_ON, SMOOTH = "t04_spiral_a08_spiral", "t02_edgeon_a04_yes", "t01_smooth_or_features_a01_smooth"
EXPECTED = {
    "smooth-or-featured-gz2_smooth": (SMOOTH, None),
    "smooth-or-featured-gz2_featured-or-disk": (FEATURED, None),
    "smooth-or-featured-gz2_artifact": ("t01_smooth_or_features_a03_star_or_artifact", None),
    "disk-edge-on-gz2_yes": (EDGE_ON, FEATURED),
    "disk-edge-on-gz2_no": (FACE_ON, FEATURED),
    "bar-gz2_yes": ("t03_bar_a06_bar", FACE_ON),
    "bar-gz2_no": ("t03_bar_a07_no_bar", FACE_ON),
    "has-spiral-arms-gz2_yes": (SPIRAL, FACE_ON),
    "has-spiral-arms-gz2_no": ("t04_spiral_a09_no_spiral", FACE_ON),
    "bulge-size-gz2_no": ("t05_bulge_prominence_a10_no_bulge", FACE_ON),
    "bulge-size-gz2_just-noticeable": ("t05_bulge_prominence_a11_just_noticeable", FACE_ON),
    "bulge-size-gz2_obvious": ("t05_bulge_prominence_a12_obvious", FACE_ON),
    "bulge-size-gz2_dominant": ("t05_bulge_prominence_a13_dominant", FACE_ON),
    "something-odd-gz2_yes": ("t06_odd_a14_yes", None),
    "something-odd-gz2_no": ("t06_odd_a15_no", None),
    "how-rounded-gz2_round": ("t07_rounded_a16_completely_round", SMOOTH),
    "how-rounded-gz2_in-between": ("t07_rounded_a17_in_between", SMOOTH),
    "how-rounded-gz2_cigar": ("t07_rounded_a18_cigar_shaped", SMOOTH),
    "bulge-shape-gz2_round": ("t09_bulge_shape_a25_rounded", EDGE_ON),
    "bulge-shape-gz2_boxy": ("t09_bulge_shape_a26_boxy", EDGE_ON),
    "bulge-shape-gz2_no-bulge": ("t09_bulge_shape_a27_no_bulge", EDGE_ON),
    "spiral-winding-gz2_tight": ("t10_arms_winding_a28_tight", SPIRAL),
    "spiral-winding-gz2_medium": ("t10_arms_winding_a29_medium", SPIRAL),
    "spiral-winding-gz2_loose": ("t10_arms_winding_a30_loose", SPIRAL),
    "spiral-arm-count-gz2_1": ("t11_arms_number_a31_1", SPIRAL),
    "spiral-arm-count-gz2_2": ("t11_arms_number_a32_2", SPIRAL),
    "spiral-arm-count-gz2_3": ("t11_arms_number_a33_3", SPIRAL),
    "spiral-arm-count-gz2_4": ("t11_arms_number_a34_4", SPIRAL),
    "spiral-arm-count-gz2_more-than-4": ("t11_arms_number_a36_more_than_4", SPIRAL),
    "spiral-arm-count-gz2_cant-tell": ("t11_arms_number_a37_cant_tell", SPIRAL),
}
KEPT = [name for name in GALAXIES.names if not name.startswith("t")]


@pytest.fixture
def survey(tmp_path, monkeypatch):
    monkeypatch.setattr(publication, "load_bundle", lambda _: calibrated_bundle())
    made = Survey(tmp_path)
    made.commit(write_calibrated_part(made.catalog, 0))
    return made


def gax(survey: Survey, form: str, output: str, *more: str):
    flags = ["--catalog", str(survey.folder / "catalog"), "--format", form, "--output", output]
    return CliRunner().invoke(app, ["publish", *flags, *more])


def shares(rows: pa.Table, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Fraction of the volunteers who are asked, and share of all volunteers who are."""
    answer, parent = EXPECTED[label]
    asked = np.ones(len(rows)) if parent is None else rows[f"{parent}_prob"].to_numpy().astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return rows[f"{answer}_prob"].to_numpy() / asked, asked


def test_the_labels_are_those_of_the_tree_and_none_is_left_out():
    assert {label: answer for answer, label in LABELS.items()} == {
        label: answer for label, (answer, _) in EXPECTED.items()
    }
    assert set(gz2.ANSWERS) - set(LABELS) == {name for name in gz2.ANSWERS if name.startswith("t08_")}
    assert len({column.name for column in COLUMNS}) == len(COLUMNS) == 4 * len(EXPECTED)


def test_zoobots_table_has_every_fraction_its_interval_and_the_share_asked(survey):
    path = survey.folder / "zoobot.parquet"
    done = gax(survey, "parquet", str(path), "--names", "zoobot")
    assert done.exit_code == 0, done.output
    found, rows = pq.read_table(path), survey.rows()
    assert found.column_names == [*KEPT, *columns_named(Names.ZOOBOT)]
    full = Conditional.of_bundle(calibrated_bundle()).add_to(rows)
    for label, (answer, _) in EXPECTED.items():
        fraction, asked = shares(rows, label)
        some = asked > 1e-3
        np.testing.assert_allclose(found[f"{label}_fraction"].to_numpy()[some], fraction[some], atol=1e-4)
        np.testing.assert_allclose(found[f"{label}_proportion-asked"].to_numpy(), asked, atol=1e-5)
        for ours, theirs in (("lo", "lower"), ("hi", "upper")):
            same = full[f"{answer}_conditional_{ours}"].to_numpy()
            np.testing.assert_array_equal(found[f"{label}_90pc-{theirs}"].to_numpy(), same)


def test_the_friendly_table_has_fractions_where_half_of_the_volunteers_are_asked(survey):
    path = survey.folder / "gz.vot"
    done = gax(survey, "votable", str(path), "--names", "gz")
    assert done.exit_code == 0, done.output
    found, rows = Table.read(path, format="votable"), survey.rows()
    assert found.colnames == [*KEPT, *columns_named(Names.GZ)]
    hidden = 0
    for label in EXPECTED:
        fraction, asked = shares(rows, label)
        sure = abs(asked - 0.5) > 1e-4
        values = np.ma.filled(found[f"{label}_fraction"], np.nan)
        expected = np.where(asked >= 0.5, fraction, np.nan)
        np.testing.assert_allclose(values[sure], expected[sure], atol=1e-4)
        hidden += int(np.isnan(values).sum())
    assert hidden > 0


def test_columns_are_chosen_by_their_new_names_or_with_the_old_ones():
    assert choose_columns(["galaxy_id,bar-gz2*_fraction"], names=Names.GZ) == (
        "galaxy_id", "bar-gz2_yes_fraction", "bar-gz2_no_fraction",
    )  # fmt: skip
    assert choose_columns(["ra"], names=Names.GZ) == ("ra", *columns_named(Names.GZ))
    with pytest.raises(UsageError, match="bar-gz2"):
        choose_columns(["bar-gz2_yes"], names=Names.ZOOBOT)
    with pytest.raises(UsageError):
        choose_columns(["bar-gz2_yes_90pc-lower"], names=Names.GZ)


def test_a_collection_of_other_names_is_replaced_only_when_told(survey):
    pytest.importorskip("hats")
    output = str(survey.folder / "hats")
    more = (
        "--columns",
        "galaxy_id,ra,dec,bar-gz2_yes_fraction",
        "--margin",
        "0",
        "--pixel-threshold",
        "1000",
    )
    assert gax(survey, "hats", output, "--names", "gz", *more).exit_code == 0
    refused = gax(survey, "hats", output, "--names", "zoobot", *more)
    assert isinstance(refused.exception, UsageError)
    assert "--names" in str(refused.exception)
    assert gax(survey, "hats", output, "--names", "zoobot", *more, "--replace").exit_code == 0


def test_tiles_without_such_names_keep_the_digests_of_earlier_releases():
    tile = Tile(False, 3, 7)
    plain = HatsSettings(Selection(("galaxy_id", "ra", "dec")), 1000, 10.0)
    assert plain.digest(tile, "f") == "4602388e1556d1ad4841ee8478f32426"
    named = [HatsSettings(Selection(("ra",), None, None, names), 1000, 10.0) for names in (None, *Names)]
    assert len({settings.digest(tile, "f") for settings in named}) == 3
