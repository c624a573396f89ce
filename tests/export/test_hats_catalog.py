"""A catalog on the sky: valid HATS, the snapshot's rows, and only what has changed is written."""

import json
import logging
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from published_catalogs import FIELD, PER_PART, SMOOTH, Survey, write_part

from gax_batch.catalog.schema import ADDED_COLUMNS, COLUMNS, GALAXIES
from gax_batch.errors import FatalError, UsageError
from gax_batch.export.selection import Selection

pytest.importorskip("hats")

POSITIONED = PER_PART * 9 // 10

# nested-pandas calls pandas with a keyword that pandas 3.1 is about to drop.
LSDB_ON_PANDAS_3 = pytest.mark.filterwarnings("ignore:The inplace keyword:pandas.errors.Pandas4Warning")


def is_strictly_valid(survey: Survey, caplog: Any) -> bool:
    """What the library says of the collection and of each catalog in it, and no complaint."""
    from hats.io.validation import is_valid_catalog

    caplog.clear()
    with caplog.at_level(logging.WARNING):
        valid = is_valid_catalog(survey.output, strict=True)
    complaints = {record.getMessage() for record in caplog.records}
    return valid and complaints <= {"Looking for catalog - found collection."}


def tiles(survey: Survey, folder: str = "galaxies") -> dict[str, pa.Table]:
    files = sorted((survey.output / folder / "dataset").rglob("Npix=*.parquet"))
    return {path.relative_to(survey.output).as_posix(): pq.ParquetFile(path).read() for path in files}


def published_rows(survey: Survey) -> pa.Table:
    return pa.concat_tables(tiles(survey).values()).sort_by("galaxy_id")


def positioned(survey: Survey) -> pa.Table:
    rows = survey.rows()
    return rows.filter(rows["ra"].is_valid()).sort_by("galaxy_id")


def assert_is_the_snapshot(survey: Survey, caplog: Any) -> None:
    assert published_rows(survey).drop_columns("_healpix_29").equals(positioned(survey))
    assert is_strictly_valid(survey, caplog)
    assert not list(survey.output.glob("gax/staging/*"))


def written(before: dict[str, tuple[int, bytes]], after: dict[str, tuple[int, bytes]]) -> set[str]:
    return {key for key, (time, _) in after.items() if before.get(key, (None,))[0] != time}


def test_the_rows_are_the_snapshots_and_those_without_a_position_are_counted(survey, caplog):
    done = survey.publish()
    assert (done.rows, done.without_position) == (4 * POSITIONED, 4 * (PER_PART - POSITIONED))
    assert done.tiles == len(tiles(survey)) > 4
    assert_is_the_snapshot(survey, caplog)


def test_tiles_are_sorted_hold_no_more_than_the_threshold_and_describe_their_columns(survey):
    from hats.pixel_math.spatial_index import compute_spatial_index

    survey.publish()
    for key, rows in tiles(survey).items():
        assert len(rows) <= survey.settings.pixel_threshold
        index = rows["_healpix_29"].to_numpy()
        assert (np.diff(index) >= 0).all()
        ra, dec = rows["ra"].to_numpy(), rows["dec"].to_numpy()
        np.testing.assert_array_equal(index, compute_spatial_index(ra, dec))
        order, pixel = (int(number) for number in re.findall(r"N(?:order|pix)=(\d+)", key))
        assert set(index >> 2 * (29 - order)) == {pixel}
        assert rows.schema.names == ["_healpix_29", *GALAXIES.names]
        for column in COLUMNS:
            metadata = rows.schema.field(column.name).metadata
            assert metadata[b"ucd"].decode() == column.ucd
            assert metadata.get(b"unit", b"").decode() == column.unit
            assert metadata[b"comment"].decode() == column.description


def test_properties_say_what_it_is_and_where_it_comes_from(survey):
    import hats

    survey.publish()
    collection = hats.read_hats(survey.output)
    found = collection.main_catalog
    info = found.catalog_info
    assert (info.total_rows, info.ra_column, info.dec_column) == (4 * POSITIONED, "ra", "dec")
    assert (info.healpix_column, info.healpix_order) == ("_healpix_29", 29)
    said = info.extra_dict()
    assert (said["gax_catalog"], said["gax_snapshot"]) == (survey.catalog, "1")
    assert said["gax_bundle_id"] == "bundle-0 bundle-1"
    assert b"IVOA.VOTable-Parquet.content" in found.schema.metadata
    margin = hats.read_hats(survey.output / "galaxies_30arcs")
    assert (margin.catalog_info.margin_threshold, margin.catalog_info.primary_catalog) == (30.0, "galaxies")


def properties(survey: Survey, key: str) -> dict[str, str]:
    lines = (survey.output / key).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def test_the_properties_are_those_of_catalogs_that_are_published(survey):
    survey.publish()
    sizes = [path.stat().st_size for path in survey.output.rglob("Npix=*.parquet")]
    largest = max(path.stat().st_size for path in survey.output.glob("galaxies/**/Npix=*.parquet"))
    found = properties(survey, "galaxies/hats.properties")
    assert int(found["hats_max_bytes"]) == largest
    collection = properties(survey, "collection.properties")
    assert int(collection["hats_estsize"]) == sum(sizes) // 1024 > 0
    assert (collection["default_margin"], collection["all_margins"]) == ("galaxies_30arcs",) * 2
    assert not {"obs_title", "obs_copyright", "bib_reference"} & {*found, *collection}  # nothing is invented


def test_what_the_author_says_is_kept_in_the_words_of_the_standard(survey, monkeypatch, caplog):
    said = {
        "title": "Rings | of <SDSS>",
        "reference": "https://doi.org/10.1093/mnras/stt1458",
        "license": "CC BY 4.0",
    }
    provenance = replace(survey.provenance(), **said)
    monkeypatch.setattr(survey, "provenance", lambda: provenance)
    survey.publish()
    for key in ("collection.properties", "galaxies/hats.properties"):
        found = properties(survey, key)
        assert (found["obs_title"], found["obs_copyright"]) == (said["title"], said["license"])
        assert found["bib_reference_url"].replace("\\", "") == said["reference"]
    text = (survey.output / "README.md").read_text()
    assert "# Rings \\| of &lt;SDSS>" in text
    assert {said["reference"], said["license"]} <= {cell.strip() for cell in text.split("|")}
    assert is_strictly_valid(survey, caplog)


@LSDB_ON_PANDAS_3
def test_lsdb_reads_the_fractions_by_default_and_everything_when_asked(survey):
    lsdb = pytest.importorskip("lsdb")
    survey.publish()
    catalog = lsdb.open_catalog(survey.output)
    short = ["galaxy_id", "ra", "dec", "gz2_class", "gz2_class_margin", "ood_score", "flags"]
    probs = [name for name in GALAXIES.names if name.endswith("_prob")]
    assert sorted(catalog.columns) == sorted([*short, *probs])
    assert sorted(catalog.margin.columns) == sorted(catalog.columns)
    assert sorted(lsdb.open_catalog(survey.output, columns="all").columns) == sorted(GALAXIES.names)


def test_a_selection_without_those_columns_is_read_whole(survey, caplog):
    names = ("source_uri", "run_id")
    survey.publish(selection=Selection((*names, "ra", "dec")))
    found = properties(survey, "galaxies/hats.properties")["hats_cols_default"]
    assert found.split() == ["ra", "dec"]
    assert is_strictly_valid(survey, caplog)


def test_the_readme_describes_every_column_and_another_one_stays(survey):
    survey.publish()
    text = (survey.output / "README.md").read_text()
    for column in COLUMNS:
        assert column.name in text
        assert column.description.replace("<", "&lt;") in text
    assert f"{4 * POSITIONED}" in text
    (survey.output / "README.md").write_text("precious")
    survey.commit(write_part(survey.catalog, 9))
    survey.publish()
    assert (survey.output / "README.md").read_text() == "precious"


@LSDB_ON_PANDAS_3
def test_lsdb_searches_a_cone(survey):
    lsdb = pytest.importorskip("lsdb")
    survey.publish()
    found = lsdb.open_catalog(survey.output).cone_search(*FIELD, 1800).compute(progress_bar=False)
    rows = positioned(survey)
    there = SkyCoord(rows["ra"].to_numpy() * units.deg, rows["dec"].to_numpy() * units.deg)
    inside = there.separation(SkyCoord(*FIELD, unit="deg")).arcsec <= 1800
    assert 0 < inside.sum() < len(rows)
    assert sorted(found["galaxy_id"]) == sorted(rows.filter(pa.array(inside))["galaxy_id"].to_pylist())


@LSDB_ON_PANDAS_3
def test_lsdb_crossmatches_across_the_borders_of_tiles(survey):
    """Each galaxy moved by 20 arcsec is found again, also where that takes it into the next tile."""
    lsdb = pytest.importorskip("lsdb")
    import pandas as pd

    survey.publish()
    rows = positioned(survey)
    there = SkyCoord(rows["ra"].to_numpy() * units.deg, rows["dec"].to_numpy() * units.deg)
    moved = there.directional_offset_by(np.arange(len(rows)) * units.deg, 20 * units.arcsec)
    frame = pd.DataFrame({"name": rows["galaxy_id"].to_pylist(), "ra": moved.ra.deg, "dec": moved.dec.deg})
    left = lsdb.from_dataframe(frame, catalog_name="moved", margin_threshold=None)
    matches = left.crossmatch(
        lsdb.open_catalog(survey.output),
        radius_arcsec=25,
        n_neighbors=5,
        suffixes=("_moved", "_ours"),
        suffix_method="overlapping_columns",
    ).compute(progress_bar=False)
    pairs = set(zip(matches["name"], matches["galaxy_id"], strict=True))
    assert {(name, name) for name in rows["galaxy_id"].to_pylist()} <= pairs


def test_the_same_snapshot_again_writes_nothing(survey):
    survey.publish()
    before = survey.files()
    done = survey.publish()
    assert (done.written, done.removed, survey.calls) == (0, 0, {})
    assert survey.files() == before


def test_a_new_snapshot_rewrites_only_the_tiles_that_changed(survey, caplog):
    far = (40.0, -30.0)
    survey.commit(*(write_part(survey.catalog, number, place=far) for number in (10, 11)))
    survey.publish()
    before = survey.files()
    survey.commit(write_part(survey.catalog, 10, place=far, seed=1))
    done = survey.publish()
    assert survey.calls["count"] == 1
    assert_is_the_snapshot(survey, caplog)
    changed = {key for key in written(before, survey.files()) if key.startswith("galaxies/dataset/Norder")}
    there = {key for key, rows in tiles(survey).items() if (rows["dec"].to_numpy() < 0).any()}
    assert changed == there
    assert 0 < len(changed) < done.tiles


def test_tiles_that_grow_too_large_are_split_and_the_old_ones_removed(survey, caplog):
    survey.publish()
    before = set(tiles(survey))
    survey.commit(*(write_part(survey.catalog, number) for number in range(4, 8)))
    done = survey.publish()
    assert done.removed > 0
    assert len(tiles(survey)) > len(before)
    assert not before <= set(tiles(survey))
    assert_is_the_snapshot(survey, caplog)


def test_what_was_published_twice_is_what_is_published_at_once(survey, tmp_path):
    survey.publish()
    survey.commit(write_part(survey.catalog, 1, seed=1), write_part(survey.catalog, 9))
    survey.publish()
    by_night = {key: data for key, (_, data) in survey.files().items() if not key.startswith("gax/")}
    survey.output.rename(tmp_path / "before")
    survey.publish()
    at_once = {key: data for key, (_, data) in survey.files().items() if not key.startswith("gax/")}
    assert by_night == at_once


@pytest.mark.parametrize("step", ["count", "scatter", "gather"])
@pytest.mark.parametrize("calls", [0, 3])
def test_an_interrupted_publication_is_repaired(step, calls, survey, caplog, monkeypatch):
    monkeypatch.setattr("gax_batch.export.hats_catalog.COUNT_PARTS", 1)
    monkeypatch.setattr("gax_batch.export.hats_catalog.SCATTER_ROWS", 1)
    monkeypatch.setattr("gax_batch.export.hats_catalog.SAVE_SECONDS", 0.0)
    survey.publish()
    survey.commit(*(write_part(survey.catalog, number, seed=1) for number in range(4)))
    with pytest.raises(KeyboardInterrupt):
        survey.publish(fail_after=(step, calls))
    done = survey.publish()
    if (step, calls) == ("gather", 3):
        assert survey.calls["gather"] < done.tiles * 2  # what was finished is not done again
    assert_is_the_snapshot(survey, caplog)


@pytest.mark.parametrize("name", ["write_catalog", "write_collection"])
def test_a_publication_cut_off_before_its_metadata_is_repaired(name, survey, caplog, monkeypatch):
    survey.publish()
    survey.commit(*(write_part(survey.catalog, number) for number in range(4, 8)))

    def cut(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"gax_batch.export.hats_catalog.{name}", cut)
        with pytest.raises(KeyboardInterrupt):
            survey.publish()
    survey.publish()
    assert "gather" not in survey.calls
    assert_is_the_snapshot(survey, caplog)


def test_after_an_interruption_the_older_snapshot_can_be_published_again(survey, caplog):
    """Files that the broken publication replaced are not taken for those of the older snapshot."""
    survey.publish()
    expected = published_rows(survey)
    older = survey.keys
    survey.commit(*(write_part(survey.catalog, number, seed=1) for number in range(4)))
    with pytest.raises(KeyboardInterrupt):
        survey.publish(fail_after=("gather", 5))
    survey.keys_override = older
    survey.publish()
    assert published_rows(survey).equals(expected)
    assert is_strictly_valid(survey, caplog)


@pytest.mark.parametrize(
    "lost",
    [
        "_metadata",
        "Npix=*.parquet",
        "hats.properties",
        "partition_info.csv",
        "collection.properties",
        "README.md",
    ],
)
def test_lost_files_are_written_again(lost, survey, caplog):
    survey.publish()
    next(survey.output.rglob(lost)).unlink()
    survey.publish()
    assert_is_the_snapshot(survey, caplog)


def test_a_torn_tile_is_written_again(survey, caplog):
    survey.publish()
    path = next((survey.output / "galaxies").rglob("Npix=*.parquet"))
    path.write_bytes(path.read_bytes()[:-10])
    assert survey.publish().written == 1
    assert_is_the_snapshot(survey, caplog)


def test_other_columns_galaxies_and_margins_replace_what_was_there(survey, caplog):
    survey.publish()
    selection = Selection(("galaxy_id", "ra", "dec", SMOOTH), f"{SMOOTH} > 0.5")
    survey.publish(selection=selection, margin_arcsec=10.0, replace_it=True)
    rows = positioned(survey)
    chosen = rows.filter(pa.array([value > 0.5 for value in rows[SMOOTH].to_pylist()]))
    assert published_rows(survey).drop_columns("_healpix_29").equals(chosen.select(selection.columns))
    assert {path.name for path in survey.output.iterdir()} - {"galaxies_30arcs"} == {
        "README.md", "collection.properties", "galaxies", "galaxies_10arcs", "gax",
    }  # fmt: skip
    assert not [path for path in survey.output.glob("galaxies_30arcs/**/*") if path.is_file()]
    assert is_strictly_valid(survey, caplog)


@pytest.mark.parametrize(
    "changes",
    [{"columns": ("galaxy_id", "ra", "dec")}, {"where": f"{SMOOTH} > 0.5"}],
    ids=["columns", "galaxies"],
)
def test_another_selection_is_replaced_only_when_told(survey, changes):
    survey.publish()
    before = survey.files()
    other = replace(survey.settings.selection, **changes)
    with pytest.raises(UsageError, match=r"--replace") as caught:
        survey.publish(selection=other)
    assert "\n" not in str(caught.value)
    assert survey.files() == before
    survey.publish(selection=other, replace_it=True)
    survey.publish(selection=other)
    assert survey.publish(selection=other).written == 0


def test_columns_that_a_newer_release_adds_are_no_other_selection(survey):
    names = tuple(name for name in survey.settings.selection.columns if name not in ADDED_COLUMNS)
    survey.publish(selection=Selection(names))
    assert survey.publish().written > 0
    assert set(published_rows(survey).column_names) >= ADDED_COLUMNS


def test_without_margins_or_with_empty_ones_it_is_valid_too(survey, caplog):
    survey.publish(margin_arcsec=0.0)
    assert is_strictly_valid(survey, caplog)
    survey.publish(margin_arcsec=0.001)
    assert tiles(survey, "galaxies_0.001arcs") == {}
    assert is_strictly_valid(survey, caplog)


def test_a_place_that_holds_something_else_is_left_alone(survey):
    survey.output.mkdir()
    (survey.output / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match=r"thesis\.txt"):
        survey.publish()
    assert [path.name for path in survey.output.iterdir()] == ["thesis.txt"]


def test_what_somebody_put_beside_it_stays(survey):
    survey.publish()
    (survey.output / "galaxies" / "README.md").write_text("precious")
    survey.commit(write_part(survey.catalog, 9))
    survey.publish()
    assert (survey.output / "galaxies" / "README.md").read_text() == "precious"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"catalog": "file:///elsewhere"}, "file:///elsewhere"),
        ({"format": 99}, "gax-batch"),
        ({"tiles": 3}, r"manifest\.json"),
    ],
)
def test_a_publication_that_is_not_this_ones_is_refused(change, words, survey):
    survey.publish()
    path = survey.output / "gax" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    before = survey.files()
    with pytest.raises(UsageError, match=words) as caught:
        survey.publish()
    assert "\n" not in str(caught.value)
    assert survey.files() == before


def test_a_catalog_without_positions_is_refused(tmp_path):
    survey = Survey(tmp_path)
    survey.commit(write_part(survey.catalog, 0))
    with pytest.raises(UsageError, match=r"\b20\b.*--positions"):
        survey.publish(selection=Selection(("galaxy_id", "ra", "dec"), "ra IS NULL"))
    assert not survey.output.exists()


def test_a_damaged_catalog_leaves_the_publication_as_it_was(survey):
    survey.publish()
    before, old = survey.files(), survey.keys
    survey.commit(write_part(survey.catalog, 9))
    (new,) = set(survey.keys) - set(old)
    survey.catalog_part(survey.keys.index(new)).write_bytes(b"torn")
    with pytest.raises(FatalError, match=new):
        survey.publish()
    assert survey.files() == before


def test_nothing_secret_is_written(survey, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2-secret")
    survey.publish()
    assert not any(b"hunter2-secret" in data for _, data in survey.files().values())
