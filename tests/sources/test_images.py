import gzip
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from bad_images import BAD, encoded, galaxy
from listings import listed

from gax_batch.errors import FatalError, UsageError
from gax_batch.imaging.cutout import ImageFlag, ImageLimits, decode_cutout
from gax_batch.imaging.decoding import Decoder
from gax_batch.sources import CUTOUT_SCHEMA, MEMBER_SCHEMA, open_source, read_unit


def fill(folder: Path, *names: str, side: int = 106) -> None:
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(galaxy(side, seed=seed), "JPEG" if name.endswith("jpg") else "PNG"))


def read(members: pa.Table, **limits: int) -> pa.Table:
    cutouts = read_unit(members, Decoder(limits=ImageLimits(**limits)))
    assert cutouts.schema.equals(CUTOUT_SCHEMA)
    assert cutouts["source_uri"].equals(members["source_uri"])
    for row in cutouts.select(["cutout", "stage", "reason", "detail"]).to_pylist():
        rejected = [row["stage"], row["reason"], row["detail"]]
        assert all(rejected) if row["cutout"] is None else rejected == [None] * 3
    return cutouts


def reasons(table: pa.Table) -> dict[str, str | None]:
    """By name of the object."""
    names = [uri.rsplit("/", 1)[1] for uri in table["source_uri"].to_pylist()]
    return dict(zip(names, table["reason"].to_pylist(), strict=True))


def test_list_members(tmp_path: Path) -> None:
    fill(tmp_path, "b/2.png", "1.JPG", "c.x.jpeg", "a/3.tif")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "b" / ".hidden.jpg").write_text("no image either")
    source = open_source(str(tmp_path))
    members = listed(source)
    assert members.schema.equals(MEMBER_SCHEMA)
    assert members["galaxy_id"].to_pylist() == ["1", "3", "2", "c.x"]
    assert members["source_uri"].to_pylist() == sorted(members["source_uri"].to_pylist())
    assert members["source_uri"].equals(members["object_uri"])
    first = (tmp_path / "1.JPG").stat()
    assert members["size"][0].as_py() == first.st_size
    assert members["source_version"][0].as_py() == f"{first.st_size}-{first.st_mtime_ns}"
    assert members["row"].null_count == members["ra"].null_count == members["stage"].null_count == 4
    assert source.ignored == 2


def test_limit_takes_the_first(tmp_path: Path) -> None:
    fill(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    assert listed(open_source(str(tmp_path), limit=2))["galaxy_id"].to_pylist() == ["1", "2"]
    with pytest.raises(UsageError, match="limit"):
        open_source(str(tmp_path), limit=0)


def test_fits_cutouts_beside_images(tmp_path: Path) -> None:
    fill(tmp_path, "1.jpg")
    planes = np.stack([np.hypot(*np.mgrid[-50:50, -50:50]) < 20] * 3).astype(np.float32)
    fits.PrimaryHDU(planes).writeto(tmp_path / "2.fits")
    (tmp_path / "3.v2.fits.gz").write_bytes(gzip.compress((tmp_path / "2.fits").read_bytes()))
    (tmp_path / "4.fits").write_bytes(b"SIMPLE  =                    T" + bytes(2880))
    cutouts = read(listed(open_source(str(tmp_path))))
    assert cutouts["galaxy_id"].to_pylist() == ["1", "2", "3.v2", "4"]
    assert cutouts["reason"].to_pylist() == [None, None, None, "truncated"]
    assert cutouts["cutout"][1] == cutouts["cutout"][2]


def test_single_image_and_glob(tmp_path: Path) -> None:
    fill(tmp_path, "1.jpg", "2.png")
    assert len(listed(open_source(f"{tmp_path}/1.jpg"))) == 1
    assert listed(open_source(f"{tmp_path}/*.png"))["galaxy_id"].to_pylist() == ["2"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (None, "/survey"),
        ([], "/survey"),
        (["notes.txt"], r"/survey.*\b1\b.*\.jpg"),
        (["1.jpg", "2.jpg", "3.parquet"], r"/survey/(3\.parquet|1\.jpg)"),
    ],
)
def test_input_that_is_no_survey(tmp_path: Path, names: list[str] | None, message: str) -> None:
    folder = tmp_path / "survey"
    if names is not None:
        folder.mkdir()
        for name in names:
            (folder / name).write_bytes(b"x")
    with pytest.raises(UsageError, match=message) as caught:
        listed(open_source(str(folder)))
    assert "\n" not in str(caught.value)


def test_the_catalog_may_be_in_the_input_folder(tmp_path: Path) -> None:
    fill(tmp_path, "1.jpg", "catalogs.png", "catalog/2.jpg")
    (tmp_path / "catalog" / "part.parquet").write_bytes(b"x")
    source = open_source(str(tmp_path), exclude=f"{tmp_path}/catalog/")
    assert listed(source)["galaxy_id"].to_pylist() == ["1", "catalogs"]
    assert source.ignored == 0


@pytest.mark.parametrize("name", ["catalog", "catalog/deep", "catalog/*.jpg", "link"])
def test_an_input_in_the_catalog_is_refused(tmp_path: Path, name: str) -> None:
    fill(tmp_path, "catalog/deep/1.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "catalog" / "deep")
    with pytest.raises(UsageError, match=f"file://{tmp_path}/catalog") as caught:
        open_source(str(tmp_path / name), exclude=f"file://{tmp_path}/catalog")
    assert "\n" not in str(caught.value)


def test_unknown_scheme_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="nope"):
        open_source("nope://x")


def test_ids_are_checked(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.jpg", "b/1.jpg", "c/1.png", " .jpg", "tab\there.jpg", "ngc 6976é.jpg")
    fill(tmp_path, "a/" + "9" * 251 + ".jpg")
    members = listed(open_source(str(tmp_path)))
    found = [uri.removeprefix(f"file://{tmp_path}/") for uri in members["source_uri"].to_pylist()]
    by_name = dict(zip(found, members["reason"].to_pylist(), strict=True))
    assert by_name.pop("a/" + "9" * 251 + ".jpg") is None
    assert by_name == {
        " .jpg": "bad_id",
        "a/1.jpg": None,
        "b/1.jpg": "duplicate_id",
        "c/1.png": "duplicate_id",
        "ngc 6976é.jpg": None,
        "tab\there.jpg": "bad_id",
    }
    duplicate = members.filter(pa.compute.equal(members["reason"], "duplicate_id")).slice(0, 1).to_pylist()[0]
    assert duplicate["stage"] == "plan"
    assert f"file://{tmp_path}/a/1.jpg" in duplicate["detail"]
    cutouts = read(members)  # rejected members pass through
    assert cutouts["reason"].equals(members["reason"])


def test_a_name_that_is_not_utf8_is_one_reject(tmp_path: Path) -> None:
    fill(tmp_path, "caf.jpg", "café.jpg", os.fsdecode(b"caf\xe9.jpg"), os.fsdecode(b"b\xe4d/2.png"))
    (tmp_path / "p.csv").write_text("id,ra,dec\ncaf,1,2\n")
    members = listed(open_source(str(tmp_path)), str(tmp_path / "p.csv"))
    assert sorted(members["galaxy_id"].to_pylist()) == ["2", "caf", "caf\\udce9", "café"]
    cutouts = read(members)
    bad = "bad_id"
    assert reasons(cutouts) == {"caf.jpg": None, "café.jpg": None, "caf\\udce9.jpg": bad, "2.png": bad}
    assert all("UTF-8" in detail for detail in cutouts["detail"].drop_null().to_pylist())


def test_links_that_lead_nowhere_are_missing_images(tmp_path: Path) -> None:
    fill(tmp_path, "good.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    for i in range(9):  # more than the storage's own faults may be
        (tmp_path / f"loop{i}.jpg").symlink_to(tmp_path / f"loop{i}.jpg")
    found = reasons(read(listed(open_source(str(tmp_path)))))
    assert found.pop("good.jpg") is None
    assert list(found.values()) == ["missing"] * 10


def test_read_gives_what_decoding_gives(tmp_path: Path) -> None:
    fill(tmp_path, "1.jpg", "2.png", "3.jpg", side=424)
    (tmp_path / "4.png").write_bytes(encoded(galaxy(50)[..., 0]))
    cutouts = read(listed(open_source(str(tmp_path))))
    for name, cutout, flags in zip(
        ("1.jpg", "2.png", "3.jpg", "4.png"),
        cutouts["cutout"].to_pylist(),
        cutouts["flags"].to_pylist(),
        strict=True,
    ):
        expected, expected_flags = decode_cutout((tmp_path / name).read_bytes())
        assert cutout == expected.tobytes()
        assert flags == expected_flags
    assert cutouts["flags"][3].as_py() == ImageFlag.UPSCALED | ImageFlag.GRAYSCALE


def test_every_bad_file_is_one_reject_among_good_rows(tmp_path: Path) -> None:
    expected: dict[str, str | None] = {}
    for name, (make, reason) in BAD.items():
        stem, suffix = name.split(".")
        unique = f"{stem}_{suffix}.{suffix}"
        (tmp_path / unique).write_bytes(make())
        expected[unique] = reason
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    fill(tmp_path, "good.jpg", "zz.png")
    expected |= {"empty.jpg": "empty_file", "dangling.jpg": "missing", "good.jpg": None, "zz.png": None}
    cutouts = read(listed(open_source(str(tmp_path))))
    assert reasons(cutouts) == expected
    by_reason = dict(zip(cutouts["reason"].to_pylist(), cutouts["stage"].to_pylist(), strict=True))
    assert by_reason["empty_file"] == by_reason["missing"] == "read"
    assert by_reason["truncated"] == by_reason["blank"] == "decode"


def test_objects_that_went_or_changed_after_the_listing(tmp_path: Path) -> None:
    fill(tmp_path, "changed.jpg", "gone.jpg", "large.jpg", "same.jpg")
    (tmp_path / "large.jpg").write_bytes(encoded(galaxy(900), "PNG"))
    members = listed(open_source(str(tmp_path)))
    (tmp_path / "gone.jpg").unlink()
    os.utime(tmp_path / "changed.jpg", ns=(1, 1))
    assert reasons(read(members, bytes=200_000)) == {
        "changed.jpg": "changed",
        "gone.jpg": "missing",
        "large.jpg": "too_many_bytes",
        "same.jpg": None,
    }


def test_too_many_pixels(tmp_path: Path) -> None:
    fill(tmp_path, "1.jpg")
    assert reasons(read(listed(open_source(str(tmp_path))), pixels=100)) == {"1.jpg": "too_many_pixels"}


def test_a_decoder_surprise_is_one_reject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "1.jpg", "2.jpg")
    calls = iter([ZeroDivisionError("a bug of a decoder"), None])

    def decode(self: Decoder, data: bytes) -> object:
        error = next(calls)
        if error is not None:
            raise error
        return decode_cutout(data)

    monkeypatch.setattr(Decoder, "decode", decode)
    cutouts = read(listed(open_source(str(tmp_path))))
    assert cutouts["reason"].to_pylist() == ["corrupt", None]
    assert cutouts["detail"][0].as_py() == "ZeroDivisionError: a bug of a decoder"


def test_storage_that_fails_for_all_is_not_the_galaxies_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, *(f"{i:02}.jpg" for i in range(12)))
    members = listed(open_source(str(tmp_path)))
    opened = Path.open

    def refuse(refused: range) -> None:
        def fail(path: Path, *arguments: str) -> object:
            if path.suffix == ".jpg" and int(path.stem) in refused:
                raise PermissionError(13, "Permission denied", str(path))
            return opened(path, *arguments)

        monkeypatch.setattr(Path, "open", fail)

    refuse(range(3, 5))
    assert read(members)["reason"].to_pylist() == [None] * 3 + ["unreadable"] * 2 + [None] * 7
    refuse(range(12))
    with pytest.raises(FatalError, match=r"\b9\b.*\b12\b.*Permission denied"):
        read(members)
    with pytest.raises(FatalError, match=r"\b1 \w+ 1\b"):
        read(members.slice(0, 1))


def test_empty_unit(tmp_path: Path) -> None:
    assert len(read(MEMBER_SCHEMA.empty_table())) == 0


def test_order_and_bytes_do_not_depend_on_the_unit(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{i}.png" for i in range(7)))
    members = listed(open_source(str(tmp_path)))
    whole = read(members)
    parts = pa.concat_tables([read(members.slice(0, 3)), read(members.slice(3))])
    assert whole.equals(parts)
    backwards = np.arange(7)[::-1]
    assert read(members.take(backwards)).equals(whole.take(backwards))


def test_any_fsspec_storage() -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe({"/loose/1.png": encoded(galaxy(106)), "/loose/2.png": b"", "/loose/3.png": b"no image"})
    try:
        members = listed(open_source("memory://loose"))
        memory.rm("/loose/1.png")
        memory.pipe("/loose/4.png", encoded(galaxy(106)))
        members = pa.concat_tables([members, listed(open_source("memory://loose/4.png"))])
        assert reasons(read(members)) == {
            "1.png": "missing",
            "2.png": "empty_file",
            "3.png": "not_an_image",
            "4.png": None,
        }
    finally:
        memory.rm("/loose", recursive=True)


def test_large_folders_are_listed_in_seconds() -> None:
    from time import process_time

    from gax_batch.sources.images import ImageSource
    from gax_batch.storage import ObjectInfo

    objects = [ObjectInfo(f"s3://survey/{i:07}.jpg", 14_000, f"{i:032x}") for i in range(100_000)]
    start = process_time()
    batches = list(ImageSource(objects).list_members())
    assert process_time() - start < 3
    assert len(batches) > 1
    assert sum(len(batch) for batch in batches) == 100_000
