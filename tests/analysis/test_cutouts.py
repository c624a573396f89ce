"""Cutouts read again for a catalog's galaxies, also from files that were moved or touched."""

import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalogs import catalog_of
from galaxy_images import write_images

import gax_batch
from gax_batch import storage
from gax_batch.errors import UsageError
from gax_batch.sources import MovedSources
from gax_batch.sources.base import MEMBER_SCHEMA

IDS = ["000003", "000000"]


@pytest.fixture(params=["images", "parquet", "tar"])
def survey(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder of four galaxies."""
    images, folder = tmp_path / "loose", tmp_path / "survey"
    write_images(images, 4)
    files = {path.stem: path.read_bytes() for path in sorted(images.iterdir())}
    (folder / "deep").mkdir(parents=True)
    if request.param == "images":
        for name, data in files.items():
            (folder / "deep" / f"{name}.jpg").write_bytes(data)
    elif request.param == "parquet":
        shard = pa.table({"galaxy_id": list(files), "image": list(files.values())})
        pq.write_table(shard, folder / "deep" / "s.parquet")
    else:
        with tarfile.open(folder / "deep" / "s.tar", "w") as shard:
            for path in sorted(images.iterdir()):
                shard.add(path, path.name)
    return folder


@pytest.fixture
def catalog(survey, options) -> str:
    return catalog_of(survey, options)


def test_moved_files_are_read_where_they_are_now(survey, catalog, tmp_path):
    before = gax_batch.open_catalog(catalog).cutouts(IDS)
    shutil.copytree(survey, tmp_path / "elsewhere" / "now")
    shutil.rmtree(survey)
    with pytest.raises(UsageError, match="sources="):
        gax_batch.open_catalog(catalog).cutouts(IDS)
    snapshot = gax_batch.open_catalog(catalog, sources=str(tmp_path / "elsewhere" / "now"))
    np.testing.assert_array_equal(snapshot.cutouts(IDS), before)


def test_touched_files_are_accepted_only_if_the_user_says_so_and_the_size_is_the_same(survey, catalog):
    before = gax_batch.open_catalog(catalog).cutouts(IDS)
    files = [path for path in survey.rglob("*") if path.is_file()]
    for path in files:
        os.utime(path, ns=(1, 1))
    with pytest.raises(UsageError, match="changed"):
        gax_batch.open_catalog(catalog).cutouts(IDS)
    snapshot = gax_batch.open_catalog(catalog, sources=str(survey))
    np.testing.assert_array_equal(snapshot.cutouts(IDS), before)
    for path in files:
        path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(UsageError, match="changed"):
        snapshot.cutouts(IDS)


def test_each_band_of_a_set_is_found_and_accepted_by_itself(tmp_path):
    for band in "gr":
        (tmp_path / f"field-{band}.fits").write_bytes(b"12345")
    row = {
        "source_uri": "s3://t.csv#galaxy=1",
        "object_uri": "s3://old/field-{band}.fits",
        "source_version": "5-1|6-2|rest",
    }
    members = pa.Table.from_pylist([row], MEMBER_SCHEMA)
    moved = MovedSources("s3://old", f"file://{tmp_path}", ("r", "g"))
    assert moved.relocate(members["object_uri"]).to_pylist() == [f"file://{tmp_path}/field-{{band}}.fits"]
    assert moved.relocate(pa.chunked_array([["s3://older/x"]])).to_pylist() == ["s3://older/x"]
    there = members.set_column(
        MEMBER_SCHEMA.get_field_index("object_uri"),
        MEMBER_SCHEMA.field("object_uri"),
        moved.relocate(members["object_uri"]),
    )
    version = storage.stat(f"{tmp_path}/field-r.fits").version
    # The file of band g has another size than when it was cataloged.
    assert moved.accept(there)["source_version"].to_pylist() == [f"{version}|6-2|rest"]
