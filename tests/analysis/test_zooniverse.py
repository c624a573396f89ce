"""`gax select`: images read again from every kind of source, and a manifest as Zooniverse's tools read it."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archives import write_tar
from catalogs import catalog_of
from galaxy_images import galaxy_image, jpeg_bytes, write_images
from message_facts import numbers_in
from PIL import Image
from sky_fields import write_field, write_table
from typer.testing import CliRunner

from gax_batch.analysis.cutouts import PLAN_GONE
from gax_batch.analysis.zooniverse import MANIFEST, select_subjects
from gax_batch.cli import app
from gax_batch.errors import UsageError
from gax_batch.imaging.decoding import Decoder
from gax_batch.imaging.rgb import PRESETS
from gax_batch.sources import open_frames
from gax_batch.system.messages import redirect_messages

COUNT = 12


def chosen(catalog: str, output: Path, count: int = COUNT, **asked: object):
    lines: list[str] = []
    given = {"by": "mutual_info", "question": None, "diverse": False} | asked
    with redirect_messages(lines.append):
        subjects = select_subjects(catalog, count=count, output=str(output), **given)
    with (output / MANIFEST).open(newline="") as file:
        return list(csv.DictReader(file)), lines, subjects


@pytest.fixture
def loose(options, tmp_path):
    write_images(tmp_path / "images", COUNT)
    return catalog_of(tmp_path / "images", options)


def test_images_are_copied_and_listed(loose, tmp_path):
    rows, lines, _ = chosen(loose, tmp_path / "votes", 5, question="t04_spiral")
    assert len(rows) == 5
    for rank, row in enumerate(rows, 1):
        original = tmp_path / "images" / f"{row['subject_id']}.jpg"
        assert (tmp_path / "votes" / row["image"]).read_bytes() == original.read_bytes()
        assert (row["#rank"], row["#by"], row["#question"]) == (str(rank), "mutual_info", "t04_spiral")
        assert row["#ra"] == "none"
        assert 0 <= float(row["#t04_spiral_a08_spiral_prob"]) <= 1
    assert [float(row["#score"]) for row in rows] == sorted((float(r["#score"]) for r in rows), reverse=True)
    files = {path.name for path in (tmp_path / "votes").iterdir()}
    assert files == {MANIFEST, *(row["image"] for row in rows)}
    selected, written = lines
    assert numbers_in(selected) == ["12", "5"]
    assert "mutual_info" in selected
    assert numbers_in(written, tmp_path) == ["5"]
    assert MANIFEST in written
    assert f"{tmp_path}/votes" in written


def test_the_manifest_is_what_zooniverses_tools_take(loose, tmp_path):
    """By the rules of panoptes-cli's upload-subjects and of the Project Builder's upload form."""
    rows, _, _ = chosen(loose, tmp_path / "votes")
    for row in rows:
        exist = [name for name, cell in row.items() if (tmp_path / "votes" / cell).exists()]
        assert exist == ["image"]
        named = [
            name for name, cell in row.items() if re.search(r"[^/\\:,]+\.(jpe?g|png|gif|svg)", cell, re.I)
        ]
        assert named == ["image"]
        assert (tmp_path / "votes" / row["image"]).stat().st_size < 1_000 * 1024
        assert not set("/\\:,") & set(row["image"])
    visible = [name for name in rows[0] if not name.startswith("#")]
    assert visible == ["subject_id", "image"]


def test_the_same_command_gives_the_same_bytes(loose, tmp_path):
    for name in ("one", "two"):
        chosen(loose, tmp_path / name, 8, diverse=True)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("one", "two"))
    assert one == two
    assert len(one) == 9


def test_fewer_galaxies_are_all_and_said_so(loose, tmp_path):
    rows, lines, _ = chosen(loose, tmp_path / "votes", 100)
    assert len(rows) == COUNT
    assert {"12", "100"} <= set(numbers_in(lines[0]))


def test_sources_that_are_gone_or_changed_are_reported(loose, tmp_path):
    (tmp_path / "images" / "000003.jpg").unlink()
    galaxy_image(99).save(tmp_path / "images" / "000004.jpg")
    rows, lines, subjects = chosen(loose, tmp_path / "votes")
    assert {row["subject_id"] for row in rows} == {f"{i:06d}" for i in range(COUNT)} - {"000003", "000004"}
    assert subjects.reasons == {"missing": 1, "changed": 1}
    assert any("000003" in line and "missing" in line for line in lines)
    assert any("000004" in line and "changed" in line for line in lines)


def test_all_sources_gone_is_a_report_too(loose, tmp_path):
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    rows, lines, subjects = chosen(loose, tmp_path / "votes")
    assert rows == []
    assert subjects.reasons == {"missing": COUNT}
    assert "7" in numbers_in(lines[-1], tmp_path)


def write_shard(folder: Path, count: int = COUNT) -> None:
    folder.mkdir()
    ids = [f"s{i}" for i in range(count)]
    pq.write_table(
        pa.table({"galaxy_id": ids, "image": [jpeg_bytes(i) for i in range(count)]}), folder / "a.parquet"
    )


def write_pixels(folder: Path) -> None:
    """A shard of raw tensors, as `gax pack` makes them."""
    folder.mkdir()
    pixels = [Decoder().decode(jpeg_bytes(i))[0].tobytes() for i in range(COUNT)]
    pq.write_table(
        pa.table({"galaxy_id": [f"s{i}" for i in range(COUNT)], "image": pixels}), folder / "a.parquet"
    )


def write_tar_shard(folder: Path) -> None:
    folder.mkdir()
    write_tar(folder / "a.tar", *((f"s{i}.jpg", jpeg_bytes(i)) for i in range(COUNT)))


@pytest.mark.parametrize("make", [write_shard, write_tar_shard])
def test_images_of_shards_are_copied(options, tmp_path, make):
    make(tmp_path / "survey")
    rows, _, _ = chosen(catalog_of(tmp_path / "survey", options), tmp_path / "votes", 7)
    assert len(rows) == 7
    for row in rows:
        number = int(row["subject_id"].removeprefix("s"))
        assert (tmp_path / "votes" / row["image"]).read_bytes() == jpeg_bytes(number)


def test_pixels_are_shown_as_enlarged_png(options, tmp_path):
    write_pixels(tmp_path / "survey")
    rows, _, _ = chosen(catalog_of(tmp_path / "survey", options), tmp_path / "votes", 3)
    for row in rows:
        image = Image.open(tmp_path / "votes" / row["image"])
        assert (image.format, image.size) == ("PNG", (256, 256))
        cutout, _ = Decoder().decode(jpeg_bytes(int(row["subject_id"].removeprefix("s"))))
        smaller = np.asarray(image.resize((64, 64), Image.Resampling.BOX), int)
        assert np.abs(smaller - cutout).mean() < 2


def test_images_that_zooniverse_does_not_show_become_png(options, tmp_path):
    (tmp_path / "survey").mkdir()
    for i in range(3):
        galaxy_image(i).save(tmp_path / "survey" / f"t{i}.tif")
    rows, _, _ = chosen(catalog_of(tmp_path / "survey", options), tmp_path / "votes")
    assert {row["image"] for row in rows} == {
        f"{i + 1}-{row['subject_id']}.png" for i, row in enumerate(rows)
    }


def test_a_shard_that_is_gone_does_not_keep_the_others(options, tmp_path):
    write_shard(tmp_path / "survey", 3)
    (tmp_path / "survey" / "a.parquet").rename(tmp_path / "survey" / "b.parquet")
    table = pa.table({"galaxy_id": ["x", "y"], "image": [jpeg_bytes(20), jpeg_bytes(21)]})
    pq.write_table(table, tmp_path / "survey" / "c.parquet")
    catalog = catalog_of(tmp_path / "survey", options)
    (tmp_path / "survey" / "b.parquet").unlink()
    rows, _, subjects = chosen(catalog, tmp_path / "votes")
    assert {row["subject_id"] for row in rows} == {"x", "y"}
    assert subjects.reasons == {"missing": 3}


@pytest.mark.parametrize("make", [write_shard, write_tar_shard])
def test_a_vacuumed_plan_is_not_needed_for_shards(options, tmp_path, make):
    make(tmp_path / "survey")
    catalog = catalog_of(tmp_path / "survey", options)
    shutil.rmtree(Path(catalog) / "runs")
    rows, _, _ = chosen(catalog, tmp_path / "votes")
    assert len(rows) == COUNT


def test_galaxies_on_frames_are_cut_out_again_while_the_plan_is_there(options, tmp_path):
    (tmp_path / "frames").mkdir()
    spots = {"f0": (150.0, 2.0), "f1": (150.01, 2.01)}
    write_field(tmp_path / "frames", "field", dict.fromkeys(spots.values(), 1.0))
    table = write_table(tmp_path / "galaxies.csv", spots)
    source = open_frames(str(tmp_path / "frames"), table, bands=PRESETS["sdss-gri"].bands)
    catalog = catalog_of(tmp_path / "frames", options, source=source)
    rows, _, _ = chosen(catalog, tmp_path / "votes")
    assert {row["subject_id"] for row in rows} == {"f0", "f1"}
    shutil.rmtree(Path(catalog) / "runs")
    rows, _, subjects = chosen(catalog, tmp_path / "again")
    assert rows == []
    assert list(subjects.lost.values()) == [PLAN_GONE] * 2


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"by": "mutual"}, "'mutual_info'"),
        ({"question": "t04_spirl"}, "'t04_spiral'"),
        ({"by": "ood", "question": "t04"}, "--question"),
    ],
)
def test_unknown_words_are_refused_before_anything_is_written(loose, tmp_path, asked, words):
    with pytest.raises(UsageError, match=words):
        chosen(loose, tmp_path / "votes", **asked)
    assert not (tmp_path / "votes").exists()


def test_an_output_in_use_is_refused(loose, tmp_path):
    with pytest.raises(UsageError, match=re.escape(f"{tmp_path}/images")):
        chosen(loose, tmp_path / "images")


def test_the_command_selects(loose, tmp_path):
    arguments = ["--catalog", loose, "--by", "entropy", "-n", "4", "--output", str(tmp_path / "votes")]
    done = CliRunner().invoke(app, ["select", *arguments])
    assert done.exit_code == 0, done.output
    assert "4" in numbers_in(done.output, tmp_path)
    assert MANIFEST in done.output
    assert json.dumps(sorted(p.suffix for p in (tmp_path / "votes").iterdir())).count(".jpg") == 4
