"""One file of a selection: astropy reads it back with units, descriptions and where it came from."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from astropy import units
from astropy.io import fits, votable
from astropy.table import Table
from published_catalogs import SMOOTH, Survey

from gax_batch.catalog.schema import COLUMNS, GALAXIES
from gax_batch.errors import FatalError, UsageError
from gax_batch.export import tables as module
from gax_batch.export.formats import Format
from gax_batch.export.records import write_fits, write_votable
from gax_batch.export.selection import Selection, choose_columns, described
from gax_batch.export.tables import PublishedTable, publish_table
from gax_batch.export.votable import TableProvenance, Text

ASTROPY = {
    Format.PARQUET: "parquet.votable",
    Format.VOTABLE: "votable",
    Format.FITS: "fits",
    Format.ECSV: "ascii.ecsv",
}


def publish(survey: Survey, form: Format, **selection: Any) -> tuple[PublishedTable, Path]:
    path = survey.folder / f"out.{form}"
    chosen = Selection(choose_columns(selection.get("columns", ())), selection.get("where"))
    provenance = replace(survey.provenance(), where=chosen.where)
    done = publish_table(survey.root, survey.keys, chosen, provenance, form, f"file://{path}")
    return done, path


def plain(column: Any, kind: pa.DataType) -> list[Any]:
    """An astropy column's values in plain Python; None for what is missing."""
    if pa.types.is_string(kind):
        return [value.decode() if isinstance(value, bytes) else str(value) for value in column]
    values = np.ma.filled(np.ma.asarray(column).astype(float), np.nan)
    return [None if np.isnan(value) else value for value in values.tolist()]


@pytest.mark.parametrize("form", ASTROPY)
def test_astropy_reads_every_value_back(form, survey, monkeypatch):
    monkeypatch.setattr(module, "ROW_GROUP_ROWS", 300)
    done, path = publish(survey, form)
    assert done == PublishedTable(rows=800, without_position=80)
    read = Table.read(path, format=ASTROPY[form])
    rows = survey.rows()
    assert read.colnames == GALAXIES.names
    for field in GALAXIES:
        expected = rows[field.name].to_pylist()
        assert plain(read[field.name], field.type) == expected, field.name


@pytest.mark.parametrize("form", ASTROPY)
def test_units_stay_with_their_columns(form, survey):
    _, path = publish(survey, form, columns=["galaxy_id,ra,dec", "*_smooth_prob"])
    read = Table.read(path, format=ASTROPY[form])
    assert read.colnames == ["galaxy_id", "ra", "dec", SMOOTH]
    assert (read["ra"].unit, read["dec"].unit, read[SMOOTH].unit) == (units.deg, units.deg, None)
    if form is not Format.FITS:  # astropy knows no description in FITS; TOPCAT reads TCOMM
        assert read["dec"].description == "declination, ICRS"


@pytest.mark.parametrize("form", [Format.PARQUET, Format.VOTABLE])
def test_a_votable_says_what_every_column_is_and_where_rows_come_from(form, survey):
    _, path = publish(survey, form, where=f"{SMOOTH} > 0.5 AND gz2_class <> '<&>'")
    text = path.read_bytes()
    if form is Format.PARQUET:
        keys = pq.read_metadata(path).metadata
        assert keys[b"IVOA.VOTable-Parquet.version"] == b"1.0"
        text = keys[b"IVOA.VOTable-Parquet.content"]
    document = votable.parse(io.BytesIO(text), verify="exception")
    table = document.get_first_table()
    assert [(f.name, f.ucd) for f in table.fields] == [(c.name, c.ucd) for c in COLUMNS]
    assert [field.description for field in table.fields] == [column.description for column in COLUMNS]
    infos = {info.name: info.value for info in document.resources[0].infos}
    assert infos == {
        "catalog": survey.catalog,
        "snapshot": "1",
        "bundle_id": "bundle-0 bundle-1",
        "selection": f"{SMOOTH} > 0.5 AND gz2_class <> '<&>'",
        "published": "2026-01-02T03:04:05",
        "creator": infos["creator"],
    }
    assert infos["creator"].startswith("gax-batch ")


def test_fits_is_what_topcat_calls_fits_plus(survey):
    _, path = publish(survey, Format.FITS)
    with fits.open(path) as hdus:
        hdus.verify("exception")
        primary, table = hdus
        assert primary.header["VOTMETA"] is True
        text = primary.data.tobytes()
        document = votable.parse(io.BytesIO(text), verify="exception")
        assert [f.name for f in document.get_first_table().fields] == table.columns.names
        for number, column in enumerate(COLUMNS, 1):
            assert table.header[f"TUCD{number}"] == column.ucd
            assert table.header[f"TCOMM{number}"] == column.description
        assert table.header["CATALOG"] == survey.catalog
        assert (table.header["SNAPSHOT"], table.header["DATE"]) == ("1", "2026-01-02T03:04:05")


def test_ecsv_is_read_without_its_header_as_well(survey):
    _, path = publish(survey, Format.ECSV, columns=["galaxy_id", "ra", "source_uri"])
    lines = path.read_bytes().splitlines(keepends=True)
    data = b"".join(line for line in lines if not line.startswith(b"#"))
    assert (
        pa_csv.read_csv(io.BytesIO(data))["galaxy_id"].to_pylist() == survey.rows()["galaxy_id"].to_pylist()
    )


def test_csv_is_what_pandas_polars_and_pyarrow_read_without_options(survey):
    pd, pl = pytest.importorskip("pandas"), pytest.importorskip("polars")
    _, path = publish(survey, Format.CSV)
    rows = survey.rows()
    frames = [pd.read_csv(path), pl.read_csv(path, infer_schema_length=None)]
    for frame in frames:
        assert list(frame.columns) == GALAXIES.names
        assert frame["galaxy_id"].to_list() == rows["galaxy_id"].to_pylist()
        read = np.asarray(frame[SMOOTH].to_numpy(), np.float32)
        np.testing.assert_array_equal(read, rows[SMOOTH].to_numpy())
        ra = np.asarray(frame["ra"].to_numpy(), float)
        np.testing.assert_array_equal(ra, rows["ra"].to_numpy())
    assert pa_csv.read_csv(path)["flags"].to_pylist() == rows["flags"].to_pylist()


@pytest.mark.parametrize("form", ASTROPY)
def test_nothing_selected_is_a_table_without_rows(form, survey):
    done, path = publish(survey, form, where="ra < 0", columns=["galaxy_id", "ra", "flags"])
    assert done == PublishedTable(0, 0)
    read = Table.read(path, format=ASTROPY[form])
    assert (len(read), read.colnames) == (0, ["galaxy_id", "ra", "flags"])


@pytest.mark.parametrize("form", ASTROPY)
def test_what_cannot_be_written_leaves_the_old_file(form, survey, monkeypatch):
    _, path = publish(survey, form)
    before = path.read_bytes()
    survey.catalog_part(0).unlink()
    with pytest.raises(FatalError, match=survey.keys[0]):
        publish(survey, form)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir() if p.name.startswith(".")] == []


NAMES = ["plain", "Ångström", "星雲𝄞", None]


def test_a_votable_holds_any_text(tmp_path):
    columns = described(["galaxy_id", "flags"])
    batch = pa.table({"galaxy_id": NAMES, "flags": pa.array([1, 2, 3, 4], pa.int32())})
    buffer = io.BytesIO()
    texts = {"galaxy_id": Text(8, ascii=False)}
    write_votable(buffer, columns, [batch], TableProvenance("file:///c", 1), 4, texts)
    read = votable.parse(io.BytesIO(buffer.getvalue()), verify="exception").get_first_table().to_table()
    assert [str(value) for value in read["galaxy_id"]] == [name or "" for name in NAMES]


def test_fits_refuses_text_that_it_cannot_hold():
    columns = described(["galaxy_id"])
    with pytest.raises(UsageError, match=r"galaxy_id.*FITS.*--columns") as caught:
        write_fits(
            io.BytesIO(), columns, [], TableProvenance("file:///c", 1), 0, {"galaxy_id": Text(8, ascii=False)}
        )
    assert "\n" not in str(caught.value)


def test_the_width_of_text_is_that_of_its_longest_value():
    column = pa.chunked_array([["a", None], ["Ångström", "星𝄞"]])
    assert module._widest(Text(3), column) == Text(8, ascii=False)
    assert module._widest(Text(3), pa.chunked_array([["abcd", None]])) == Text(4)
    assert module._widest(Text(), pa.chunked_array([pa.array([None], pa.string())])) == Text(2)
    assert module._widest(Text(), pa.chunked_array([["𝄞𝄞"]])).width >= 4
