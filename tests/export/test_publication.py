"""`gax publish` as a user types it."""

import importlib.util
import json
import re
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from conditional_calibration import calibrated_bundle, write_calibrated_part
from published_catalogs import SMOOTH, Survey, write_part
from ray_nodes import halve
from typer.testing import CliRunner

from gax_batch.analysis.conditional import NAMES, Conditional
from gax_batch.catalog.schema import CONDITIONAL_COLUMNS
from gax_batch.cli import app
from gax_batch.errors import FatalError, GaxError, UsageError
from gax_batch.export import publication as module


def gax(survey: Survey, form: str, output: Path, *more: str):
    flags = ["--catalog", str(survey.folder / "catalog"), "--format", form, "--output", str(output)]
    return CliRunner().invoke(app, ["publish", *flags, *more])


def mistake(survey: Survey, form: str, output: Path, *more: str) -> str:
    """What a refused command says, in one line."""
    done = gax(survey, form, output, *more)
    assert isinstance(done.exception, UsageError)
    assert "\n" not in str(done.exception)
    return str(done.exception)


def test_a_selection_is_one_file_and_says_how_many_have_no_position(survey, tmp_path):
    output = tmp_path / "some.fits"
    done = gax(survey, "fits", output, "--columns", f"galaxy_id,ra,{SMOOTH}", "--where", f"{SMOOTH} > 0.5")
    assert done.exit_code == 0
    rows = survey.rows()
    chosen = [row for row in rows.select(["ra", SMOOTH]).to_pylist() if row[SMOOTH] > 0.5]
    nowhere = sum(row["ra"] is None for row in chosen)
    assert [str(len(chosen)), str(nowhere)] == re.findall(r"\d+", done.output)[:2]
    assert Table.read(output).colnames == ["galaxy_id", "ra", SMOOTH]


def test_a_file_is_replaced_only_when_told(survey, tmp_path):
    output = tmp_path / "all.ecsv"
    output.write_text("precious")
    assert "--replace" in mistake(survey, "ecsv", output)
    assert output.read_text() == "precious"
    assert gax(survey, "ecsv", output, "--replace").exit_code == 0
    assert len(Table.read(output, format="ascii.ecsv")) == 800


def test_hats_counts_what_it_leaves_out_and_says_when_nothing_changed(survey, tmp_path):
    pytest.importorskip("hats")
    output = tmp_path / "hats"
    first = gax(survey, "hats", output, "--columns", "galaxy_id")
    assert first.exit_code == 0, first.output
    assert {"ra", "dec", "720", "80"} <= set(first.output.split())
    assert json.loads((output / "gax" / "manifest.json").read_text())["snapshot"] == 1
    tiles = {path: path.stat().st_mtime_ns for path in output.glob("galaxies/**/Npix=*.parquet")}
    again = gax(survey, "hats", output, "--columns", "galaxy_id")
    assert again.exit_code == 0
    assert again.output != first.output
    assert tiles == {path: path.stat().st_mtime_ns for path in output.glob("galaxies/**/Npix=*.parquet")}


def test_mistakes_are_one_line_and_write_nothing(survey, tmp_path):
    output = tmp_path / "out"
    before = sorted(tmp_path.rglob("*"))
    assert "galaxy_id" in mistake(survey, "csv", output, "--columns", "galaxyid")
    assert re.search(r"decc.*\bdec\b", mistake(survey, "votable", output, "--where", "decc > 1"))
    assert "read_text" in mistake(survey, "hats", output, "--where", "read_text('/etc/passwd') = ''")
    assert "--margin 3000" in mistake(survey, "hats", output, "--margin", "3000")
    assert str(tmp_path / "catalog" / "hats") in mistake(survey, "hats", tmp_path / "catalog" / "hats")
    around = mistake(survey, "hats", tmp_path)
    assert f"{tmp_path} " in around
    assert "catalog/" not in around  # an output that holds something else is refused by what it holds
    assert str(tmp_path / "nowhere") in mistake(Survey(tmp_path / "nowhere"), "csv", output)
    assert gax(survey, "tsv", output).exit_code == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_is_no_file(survey, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("precious")
    assert str(tmp_path / "folder") in mistake(survey, "csv", tmp_path / "folder", "--replace")
    assert (tmp_path / "folder" / "thesis.txt").read_text() == "precious"


def test_without_the_library_hats_says_what_to_install(survey, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert "gax-batch[export]" in mistake(survey, "hats", tmp_path / "hats")


def test_an_output_that_cannot_be_written_is_one_line(survey, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gax_batch.storage.upload", full)
    done = gax(survey, "csv", tmp_path / "x.csv")
    assert isinstance(done.exception, FatalError)
    assert str(tmp_path / "x.csv") in str(done.exception)
    assert "No space left on device" in str(done.exception)


def test_tasks_that_are_more_than_one_run_on_ray():
    with ExitStack() as stack:
        run = module._Cluster(stack)
        assert list(run(halve, [4])) == [2]
        assert not run._started
        assert sorted(run(halve, list(range(0, 80, 2)))) == list(range(40))
        assert run._started
        with pytest.raises(GaxError, match="3 is odd") as caught:
            list(run(halve, [2, 3, 4]))
        assert type(caught.value) is UsageError
        assert "\n" not in str(caught.value)


@pytest.fixture
def calibrated(tmp_path, monkeypatch):
    """A catalog of the bundle `known-1`, which is at hand whatever is asked for."""
    monkeypatch.setattr(module, "load_bundle", lambda uri: calibrated_bundle(conditional=uri != "older"))
    made = Survey(tmp_path / "calibrated")
    made.commit(*(write_calibrated_part(made.catalog, number) for number in range(2)))
    return made


@pytest.mark.parametrize(("form", "read_as"), [("votable", "votable"), ("ecsv", "ascii.ecsv")])
def test_conditional_fractions_are_published_with_their_descriptions(form, read_as, calibrated, tmp_path):
    output = tmp_path / "some"
    done = gax(calibrated, form, output, "--conditional", "--columns", "galaxy_id")
    assert done.exit_code == 0, done.output
    read = Table.read(output, format=read_as)
    assert read.colnames == ["galaxy_id", *NAMES]
    expected = Conditional.of_bundle(calibrated_bundle()).add_to(calibrated.rows())
    for column in CONDITIONAL_COLUMNS:
        np.testing.assert_array_equal(read[column.name], expected[column.name].to_numpy())
        assert read[column.name].description == column.description
        assert read[column.name].meta["ucd"] == column.ucd


def test_a_hats_collection_gets_conditional_fractions_when_they_are_asked_for(calibrated, tmp_path):
    pytest.importorskip("hats")
    output, place = tmp_path / "hats", ("--pixel-threshold", "1000", "--margin", "0")
    plain = gax(calibrated, "hats", output, *place, "--columns", "galaxy_id")
    assert plain.exit_code == 0, plain.output
    more = ("--columns", f"galaxy_id,{NAMES[0]}", "--conditional")
    assert "--replace" in mistake(calibrated, "hats", output, *place, *more)
    again = gax(calibrated, "hats", output, *place, *more, "--replace")
    assert again.exit_code == 0, again.output
    tiles = [pq.read_table(path, partitioning=None) for path in output.glob("galaxies/**/Npix=*.parquet")]
    found = pa.concat_tables(tiles).sort_by("galaxy_id")
    expected = Conditional.of_bundle(calibrated_bundle()).add_to(calibrated.rows()).sort_by("galaxy_id")
    expected = expected.filter(expected["ra"].is_valid())
    np.testing.assert_array_equal(found[NAMES[0]].to_numpy(), expected[NAMES[0]].to_numpy())


def test_conditional_fractions_need_the_bundle_of_the_catalog(survey, calibrated, tmp_path):
    output = tmp_path / "none.csv"
    assert "--bundle" in mistake(survey, "csv", output, "--conditional")
    assert "known-1" in mistake(calibrated, "csv", output, "--conditional", "--bundle", "older")
    assert not output.exists()


def test_an_older_snapshot_can_be_published(survey, tmp_path):
    older = sorted(survey.rows()["galaxy_id"].to_pylist())
    survey.commit(write_part(survey.catalog, 9))
    assert gax(survey, "ecsv", tmp_path / "old.ecsv", "--version", "1").exit_code == 0
    read = Table.read(tmp_path / "old.ecsv", format="ascii.ecsv")
    assert sorted(read["galaxy_id"]) == older
    assert read.meta["snapshot"] == "1"
    assert " 99" in mistake(survey, "csv", tmp_path / "x.csv", "--version", "99")
