"""`gax pack`: the same cutouts in shards, made once."""

import csv
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from galaxy_images import write_images
from listings import listed

from gax_batch.errors import UsageError
from gax_batch.imaging.decoding import Decoder
from gax_batch.runner import pack as module
from gax_batch.runner.pack import PackedSurvey, pack_survey
from gax_batch.runner.settings import PackSettings, check_settings
from gax_batch.sources import open_source, read_unit


@pytest.fixture
def survey(tmp_path: Path) -> Path:
    write_images(tmp_path / "images", 20)
    (tmp_path / "images" / "000003.jpg").write_bytes(b"no image")
    (tmp_path / "positions.csv").write_text("id,ra,dec\n000001,10,20\n")
    return tmp_path


def settings_of(survey: Path, **flags: object) -> PackSettings:
    values = {
        "input": str(survey / "images"),
        "output": str(survey / "packed"),
        "unit_size": 8,
        "positions": str(survey / "positions.csv"),
    }
    return check_settings(PackSettings, values | flags)


def pack(
    survey: Path, processes: int = 1, replace: bool = False, originals: bool = False, **flags: object
) -> PackedSurvey:
    options = {"processes": processes, "replace": replace, "originals": originals}
    return pack_survey(settings_of(survey, **flags), **options)


def state(survey: Path) -> dict[str, tuple[int, bytes]]:
    files = (p for p in (survey / "packed").rglob("*") if p.is_file())
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in files}


def test_packed_cutouts_are_those_of_the_survey(survey):
    done = pack(survey, processes=2)
    assert done == PackedSurvey(shards=3, written=3, removed=0, failed=0, rejects={"not_an_image": 1})
    loose = read_unit(listed(open_source(str(survey / "images"))), Decoder())
    packed = read_unit(listed(open_source(str(survey / "packed"))), Decoder()).sort_by("galaxy_id")
    good = loose.filter(loose["reason"].is_null())
    assert packed["galaxy_id"].equals(good["galaxy_id"])
    assert packed["cutout"].equals(good["cutout"])
    assert dict(zip(packed["galaxy_id"].to_pylist(), packed["ra"].to_pylist(), strict=True))["000001"] == 10.0
    shards = [pq.read_table(path) for path in sorted((survey / "packed").glob("*.parquet"))]
    uris = {uri for shard in shards for uri in shard["source_uri"].to_pylist()}
    assert uris == set(good["source_uri"].to_pylist())


def test_what_cannot_be_packed_is_a_line_of_a_table(survey):
    pack(survey)
    (table,) = (survey / "packed" / "rejects").iterdir()
    (row,) = csv.DictReader(io.StringIO(table.read_text()))
    assert (row["galaxy_id"], row["stage"], row["reason"]) == ("000003", "decode", "not_an_image")


def test_what_is_packed_is_not_packed_again(survey, monkeypatch):
    pack(survey)
    before = state(survey)
    monkeypatch.setattr(module, "read_unit", None)
    assert pack(survey).written == 0
    assert state(survey) == before


def test_an_interrupted_packing_goes_on(survey):
    pack(survey)
    before = state(survey)
    lost = next((survey / "packed").glob("*.parquet"))
    lost.unlink()
    assert pack(survey).written == 1
    after = state(survey)
    assert {name: content for name, (_, content) in after.items()} == {
        name: content for name, (_, content) in before.items()
    }


def test_a_survey_that_changed_needs_a_word(survey):
    pack(survey)
    before = state(survey)
    write_images(survey / "images", 1, first=99)
    with pytest.raises(UsageError, match="--replace"):
        pack(survey)
    assert state(survey) == before
    done = pack(survey, replace=True)
    assert (done.written, done.removed) == (1, 1)
    members = listed(open_source(str(survey / "packed")))
    assert len(members) == len(set(members["galaxy_id"].to_pylist())) == 20


def test_other_settings_make_other_shards(survey):
    pack(survey)
    with pytest.raises(UsageError, match="--replace"):
        pack(survey, crop=0.9)


def test_shards_wait_for_a_storage_that_fails(survey, monkeypatch):
    def vanishing(members, decoder):
        (survey / "images" / "000000.jpg").unlink(missing_ok=True)
        return read_unit(members, decoder)

    monkeypatch.setattr(module, "read_unit", vanishing)
    done = pack(survey)
    assert (done.written, done.failed, done.rejects) == (2, 1, {"missing": 1, "not_an_image": 1})
    assert len(list((survey / "packed").glob("*.parquet"))) == 2


def test_an_output_with_other_things_is_refused(survey):
    (survey / "packed").mkdir()
    (survey / "packed" / "mine.txt").write_text("precious")
    with pytest.raises(UsageError, match=r"packed.*mine\.txt"):
        pack(survey)


def test_originals_are_the_images_and_give_the_same_rows(survey):
    done = pack(survey, originals=True)
    assert done == PackedSurvey(shards=3, written=3, removed=0, failed=0, rejects={})
    shards = pa.concat_tables(pq.read_table(path) for path in (survey / "packed").glob("*.parquet"))
    files = {path.stem: path.read_bytes() for path in (survey / "images").iterdir()}
    assert dict(zip(shards["galaxy_id"].to_pylist(), shards["image"].to_pylist(), strict=True)) == files
    loose = read_unit(listed(open_source(str(survey / "images"))), Decoder())
    packed = read_unit(listed(open_source(str(survey / "packed"))), Decoder()).sort_by("galaxy_id")
    same = ["galaxy_id", "flags", "stage", "reason", "detail", "cutout"]
    assert packed.select(same).equals(loose.select(same))
    assert packed["ra"].to_pylist()[1] == 10.0
    assert pack(survey, originals=True).written == 0


def test_a_file_as_large_as_a_raw_cutout_is_still_a_file(survey):
    (survey / "images" / "000003.jpg").write_bytes(bytes(range(256)) * 48)
    pack(survey, originals=True)
    packed = read_unit(listed(open_source(str(survey / "packed"))), Decoder()).sort_by("galaxy_id")
    assert packed["reason"].to_pylist()[3] == "not_an_image"


def test_originals_that_do_not_fit_into_memory_at_once(survey, monkeypatch):
    pack(survey, originals=True)
    before = {name: pq.read_table(io.BytesIO(data)) for name, (_, data) in state(survey).items()}
    monkeypatch.setattr(module, "_GROUP_BYTES", 6_000)
    for path in (survey / "packed").iterdir():
        path.unlink()
    pack(survey, originals=True)
    shards = {path.name: pq.ParquetFile(path) for path in (survey / "packed").iterdir()}
    assert max(shard.metadata.num_row_groups for shard in shards.values()) > 3
    assert {name: shard.read() for name, shard in shards.items()} == before


def test_what_cannot_be_read_is_no_original(survey):
    (survey / "images" / "000005.jpg").write_bytes(b"")
    assert pack(survey, originals=True, max_image_bytes=100).rejects == {
        "empty_file": 1,
        "too_many_bytes": 18,
    }


def test_what_has_no_image_files_has_no_originals(survey):
    pack(survey)
    for options in ({"unit_size": 8}, {"unit_size": 8, "processes": 2}):
        with pytest.raises(UsageError, match="--originals"):
            pack(
                survey, input=str(survey / "packed"), output=str(survey / "again"), originals=True, **options
            )
    with pytest.raises(UsageError, match="--originals"):
        pack(survey, originals=True, frames=True)


def test_cutouts_and_originals_do_not_mix(survey):
    pack(survey)
    with pytest.raises(UsageError, match="--replace"):
        pack(survey, originals=True)
