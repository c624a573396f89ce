import gzip
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units
from astropy.table import Table
from bad_images import encoded, galaxy
from listings import listed

from gax_batch.errors import UsageError
from gax_batch.sources import open_source
from gax_batch.sources.positions import read_positions

IDS = ["0012", "587722981736054938", "x y"]
RA = [0.5, 170.25, 359.0]
DEC = [-90.0, 1.5, 45.0]


def values(batches: Iterable[pa.Table]) -> dict[str, tuple[float | None, float | None]]:
    return {row["galaxy_id"]: (row["ra"], row["dec"]) for table in batches for row in table.to_pylist()}


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet", "t.fits", "t.vot"])
@pytest.mark.parametrize("key", ["galaxy_id", "GalaxyID", "objid", "ASSET_ID", "id"])
def test_every_format_and_id_column(tmp_path: Path, name: str, key: str) -> None:
    path = tmp_path / name
    columns = {"other": [1, 2, 3], key: IDS, "RA": RA, "Dec": DEC}
    if "csv" in name:
        rows = [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
        text = "\r\n".join([",".join(columns), *rows]).encode()
        path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    elif name.endswith("parquet"):
        pq.write_table(pa.table(columns), path)
    else:
        Table(columns).write(path, format="fits" if name.endswith("fits") else "votable")
    assert values(read_positions(str(path))) == dict(zip(IDS, zip(RA, DEC, strict=True), strict=True))


def test_integer_ids_and_missing_values(tmp_path: Path) -> None:
    path = tmp_path / "t.fits"
    table = Table({"objid": np.array([587722981736054938, 2]), "ra": [1.0, np.nan], "dec": [2.0, np.nan]})
    table["ra"].unit = units.deg
    table.write(path)
    found = values(read_positions(str(path)))
    assert found["587722981736054938"] == (1.0, 2.0)
    assert found["2"] == (None, None)


def test_masked_votable_values_are_null(tmp_path: Path) -> None:
    path = tmp_path / "t.xml"
    table = Table({"id": ["a", "b"], "ra": [1.0, 2.0], "dec": [3.0, 4.0]}, masked=True)
    table["ra"].mask = [False, True]
    table.write(path, format="votable")
    assert values(read_positions(str(path))) == {"a": (1.0, 3.0), "b": (None, 4.0)}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"name,ra,dec\na,1,2\n", "galaxy_id.*name, ra, dec"),
        ("t.csv", b"id,ra\na,1\n", r"galaxy_id.*\bid, ra\b"),
        ("t.csv", b"", r"t\.csv.*galaxy_id"),
        ("t.csv", b"id,ra,dec\na,12:30:00,2\n", r"t\.csv.*\bcsv\b"),
        ("t.parquet", b"PAR1 but not really", r"t\.parquet.*\bparquet\b"),
        ("t.fits", b"SIMPLE", r"t\.fits.*\bfits\b"),
        ("t.vot", b"<html>", r"t\.vot.*\bvotable\b"),
        ("t.txt", b"id,ra,dec\n", r"t\.txt.*\.csv"),
    ],
)
def test_table_that_cannot_be_used(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        list(read_positions(str(path)))
    assert "\n" not in str(caught.value)


def test_missing_table(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"t\.csv"):
        list(read_positions(str(tmp_path / "t.csv")))


def test_minutes_are_not_degrees(tmp_path: Path) -> None:
    path = tmp_path / "t.vot"
    table = Table({"id": ["a"], "ra": [1.0], "dec": [2.0]})
    table["ra"].unit = units.arcmin
    table.write(path, format="votable")
    with pytest.raises(UsageError, match=r"\bra\b.*arcmin"):
        list(read_positions(str(path)))


def test_text_positions_in_parquet(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": ["a"], "ra": ["12h"], "dec": ["2"]}), path)
    with pytest.raises(UsageError, match=r"t\.parquet.*\bra\b.*\bdec\b"):
        list(read_positions(str(path)))


def test_join_to_loose_images(tmp_path: Path) -> None:
    for name in ("1", "2", "3", "4", "5", "6"):
        (tmp_path / f"{name}.png").write_bytes(encoded(galaxy(64)))
    table = tmp_path / "positions.csv"
    table.write_text("id,ra,dec\n1,10,20\n1,10,20\n2,400,0\n3,nan,nan\n4,10,-90.5\n5,10,\n9,1,1\n")
    members = listed(open_source(f"{tmp_path}/*.png"), str(table))
    assert members["ra"].to_pylist() == [10.0, 400.0, None, 10.0, 10.0, None]
    assert members["dec"].to_pylist() == [20.0, 0.0, None, -90.5, None, None]
    bad = "bad_position"
    assert members["reason"].to_pylist() == [None, bad, None, bad, bad, None]
    assert members["stage"].to_pylist() == [None, "plan", None, "plan", "plan", None]
    assert re.search(r"\bra\b.*\b400\.0\b.*\bdec\b.*\b0\.0\b", members["detail"][1].as_py())


def images(folder: Path, *names: str) -> None:
    for name in names:
        (folder / f"{name}.png").write_bytes(encoded(galaxy(64)))


def test_the_id_column_that_matches_the_galaxies_is_used(tmp_path: Path) -> None:
    images(tmp_path, "100", "200", "300")
    table = tmp_path / "mapping.csv"
    table.write_text("asset_id,objid,ra,dec\n100,587722981736054938,1,2\n200,587722981736054939,3,4\n")
    members = listed(open_source(f"{tmp_path}/*.png"), str(table))
    assert members["ra"].to_pylist() == [1.0, 3.0, None]


@pytest.mark.parametrize("key", ["objid", "objID"])
def test_ids_without_digits_do_not_hide_a_column_with_all(tmp_path: Path, key: str) -> None:
    images(tmp_path, "100")
    pq.write_table(
        pa.table({"asset_id": [100], key: [5.87722981736e17], "ra": [1.0], "dec": [2.0]}), tmp_path / "t.pq"
    )
    assert listed(open_source(f"{tmp_path}/*.png"), str(tmp_path / "t.pq"))["ra"].to_pylist() == [1.0]


def test_two_id_columns_that_match_must_agree(tmp_path: Path) -> None:
    images(tmp_path, "1", "2")
    table = tmp_path / "t.csv"
    table.write_text("id,asset_id,ra,dec\n1,1,1,2\n2,2,3,4\n")
    assert listed(open_source(f"{tmp_path}/*.png"), str(table))["ra"].to_pylist() == [1.0, 3.0]
    table.write_text("id,asset_id,ra,dec\n1,2,1,2\n2,1,3,4\n3,3,5,6\n")
    with pytest.raises(UsageError, match=r"\basset_id\b.*\b2\b.*\bid\b.*\b2\b"):
        listed(open_source(f"{tmp_path}/*.png"), str(table))


@pytest.mark.parametrize("second", ["1,3", ",2", "nan,2", ","])
def test_two_positions_of_one_galaxy_are_refused(tmp_path: Path, second: str) -> None:
    (tmp_path / "m31.png").write_bytes(encoded(galaxy(64)))
    table = tmp_path / "positions.csv"
    table.write_text(f"id,ra,dec\nm31,1,2\nm31,{second}\n")
    with pytest.raises(UsageError, match=r"\bm31\b"):
        listed(open_source(str(tmp_path / "*.png")), str(table))


def test_galaxy_without_an_id_has_no_position(tmp_path: Path) -> None:
    pq.write_table(pa.table({"galaxy_id": [None, "a"], "image": [b"x", b"x"]}), tmp_path / "s.parquet")
    pq.write_table(pa.table({"id": [None, "a"], "ra": [1.0, 2.0], "dec": [1.0, 2.0]}), tmp_path / "p.pq")
    members = listed(open_source(str(tmp_path / "s.parquet")), str(tmp_path / "p.pq"))
    assert members["ra"].to_pylist() == [None, 2.0]


def test_large_tables_are_read_in_batches(tmp_path: Path) -> None:
    count = 200_000
    ids = [f"{i:07}" for i in range(count)]
    degrees = np.linspace(0, 90, count)
    pq.write_table(pa.table({"galaxy_id": ids, "ra": degrees, "dec": degrees}), tmp_path / "t.parquet")
    rows = "".join(f"{name},{x},{x}\n" for name, x in zip(ids, degrees, strict=True))
    (tmp_path / "t.csv").write_text(f"galaxy_id,ra,dec\n{rows}")
    for name in ("t.parquet", "t.csv"):
        batches = list(read_positions(str(tmp_path / name)))
        assert len(batches) > 1
        assert pa.concat_tables(batches)["galaxy_id"].to_pylist() == ids


def test_real_positions(shared_data: Path) -> None:
    members = listed(
        open_source(str(shared_data / "gz2" / "images")), str(shared_data / "gz2" / "positions.csv")
    )
    assert len(members) == 748
    assert members["reason"].null_count == 748
    assert members["ra"].null_count == 748 - 114


def test_gzipped_fits(tmp_path: Path) -> None:
    path = tmp_path / "t.fits.gz"
    Table({"id": IDS, "ra": RA, "dec": DEC}).write(path)
    assert list(values(read_positions(str(path)))) == IDS


@pytest.mark.parametrize("encode", [False, True])
def test_ids_that_lost_digits_are_refused(tmp_path: Path, encode: bool) -> None:
    path = tmp_path / "t.parquet"
    ids = pa.array([587722981736054938.0])
    pq.write_table(
        pa.table({"objid": ids.dictionary_encode() if encode else ids, "ra": [1.0], "dec": [2.0]}), path
    )
    with pytest.raises(UsageError, match=r"\bobjid\b.*double"):
        list(read_positions(str(path)))
    Table({"id": [5.8e17], "ra": [1.0], "dec": [2.0]}).write(tmp_path / "t.fits")
    with pytest.raises(UsageError, match=r"\bid\b.*double"):
        list(read_positions(str(tmp_path / "t.fits")))
