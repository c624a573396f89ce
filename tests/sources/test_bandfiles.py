"""FITS cutouts of one file per band: which files are one galaxy, and the fate of each fault."""

import bz2
import gzip
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from astropy.io import fits
from fits_images import cube, galaxy, stored
from listings import listed

from gax_batch.errors import FatalError, UsageError
from gax_batch.imaging.cutout import ImageFlag, ImageLimits
from gax_batch.imaging.decoding import Decoder
from gax_batch.sources import open_band_files, read_unit

BANDS = ("i", "r", "g")


def band_file(flux: npt.NDArray[np.float32]) -> bytes:
    return stored(fits.PrimaryHDU(flux))


def write_galaxy(folder: Path, pattern: str = "7-{band}.fits", bands: str = "gri") -> None:
    for band in bands:
        path = folder / pattern.format(band=band)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(band_file(galaxy()[band]))


def members(folder: Path, **options: int) -> pa.Table:
    return listed(open_band_files(str(folder), bands=BANDS, **options))


@pytest.fixture(scope="module")
def expected() -> bytes:
    """The same galaxy as one file of three planes."""
    return Decoder().decode(stored(cube(galaxy())))[0].tobytes()


@pytest.mark.parametrize(
    ("pattern", "galaxy_id"),
    [
        ("7-{band}.fits", "7"),
        ("sub/7_{band}.fit", "7"),
        ("{band}_7.v2.fts", "7.v2"),
        ("cutout.{band}.7.FITS", "cutout.7"),
        ("g-7-{band}.fits", "g-7"),
    ],
)
def test_files_that_differ_in_the_band_are_one_galaxy(tmp_path, expected, pattern, galaxy_id):
    write_galaxy(tmp_path, pattern)
    table = members(tmp_path)
    assert table["galaxy_id"].to_pylist() == [galaxy_id]
    assert table["source_uri"].to_pylist() == [f"file://{tmp_path}/{pattern}"]
    assert table["size"].to_pylist() == [sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file())]
    cutouts = read_unit(table, Decoder())
    assert cutouts["reason"].to_pylist() == [None]
    assert cutouts["cutout"].to_pylist() == [expected]


@pytest.mark.parametrize(
    ("suffix", "packed"),
    [(".gz", gzip.compress), (".bz2", bz2.compress), (".fz", None)],
    ids=["gzip", "bzip2", "fpack"],
)
def test_packed_files_are_the_same_galaxy(tmp_path, expected, suffix, packed):
    for band, flux in galaxy().items():
        tiles = fits.CompImageHDU(flux, compression_type="GZIP_2", quantize_level=0)
        data = stored(tiles) if packed is None else packed(band_file(flux))
        (tmp_path / f"7-{band}.fits{suffix}").write_bytes(data)
    table = members(tmp_path)
    assert table["galaxy_id"].to_pylist() == ["7"]
    assert read_unit(table, Decoder())["cutout"].to_pylist() == [expected]


def test_a_change_of_one_band_is_another_version_of_that_galaxy_alone(tmp_path):
    write_galaxy(tmp_path, "7-{band}.fits")
    write_galaxy(tmp_path, "8-{band}.fits")
    before = members(tmp_path)["source_version"].to_pylist()
    os.utime(tmp_path / "7-r.fits", ns=(1, 1))
    after = members(tmp_path)["source_version"].to_pylist()
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, True]
    assert after[0].split("|")[0::2] == before[0].split("|")[0::2]


def test_a_missing_band_is_a_reject_until_it_comes(tmp_path, expected):
    write_galaxy(tmp_path, "7-{band}.fits", "gi")
    write_galaxy(tmp_path, "8-{band}.fits", "r")
    write_galaxy(tmp_path, "9-{band}.fits")
    table = members(tmp_path)
    assert table["reason"].to_pylist() == ["missing_band", "missing_band", None]
    assert table["stage"].to_pylist() == ["plan", "plan", None]
    lacking = [re.findall(r"\b[irg]\b", detail) for detail in table["detail"].to_pylist()[:2]]
    assert lacking == [["r"], ["i", "g"]]
    assert read_unit(table, Decoder())["reason"].to_pylist() == ["missing_band", "missing_band", None]
    write_galaxy(tmp_path, "7-{band}.fits", "r")
    later = members(tmp_path).slice(0, 1)
    assert later["source_version"][0] != table["source_version"][0]
    assert read_unit(later, Decoder())["cutout"].to_pylist() == [expected]


def nan(fraction: float) -> npt.NDArray[np.float32]:
    flux = galaxy()["r"].copy()
    flux[: round(fraction * len(flux))] = np.nan
    return flux


GOOD = band_file(galaxy()["r"])


@pytest.mark.parametrize(
    ("data", "stage", "reason", "detail"),
    [
        (b"", "read", "empty_file", r"7-r\.fits"),
        (bytes(300_000), "read", "too_many_bytes", r"7-r\.fits.*\b300000\b.*\b200000\b"),
        (GOOD[:4000], "decode", "truncated", r"\br\b"),
        (GOOD[:400], "decode", "truncated", r"\br\b"),
        (gzip.compress(GOOD)[:-100], "decode", "truncated", r"\br\b"),
        (b"\xff\xd8\xff no FITS", "decode", "not_an_image", r"\br\b"),
        (stored(fits.PrimaryHDU()), "decode", "wrong_shape", r"\br\b"),
        (
            stored(fits.BinTableHDU(np.rec.array([(1,)], dtype=[("a", "i4")]))),
            "decode",
            "wrong_shape",
            r"\br\b",
        ),
        (band_file(galaxy()["r"][:100]), "decode", "wrong_shape", "128 x 100.*128 x 128"),
        (band_file(galaxy(300)["r"])[:180_000], "decode", "too_many_pixels", r"\br\b.*300 x 300"),
        (band_file(nan(1)), "decode", "not_finite", "NaN"),
        (band_file(nan(0.75)), "decode", "masked", "75%"),
    ],
)
def test_one_bad_band_rejects_its_galaxy_alone(tmp_path, data, stage, reason, detail):
    write_galaxy(tmp_path, "7-{band}.fits")
    write_galaxy(tmp_path, "8-{band}.fits")
    (tmp_path / "7-r.fits").write_bytes(data)
    limits = ImageLimits(bytes=200_000, pixels=3 * 128 * 128)
    bad, good = read_unit(members(tmp_path), Decoder(limits=limits)).to_pylist()
    assert (bad["stage"], bad["reason"]) == (stage, reason)
    assert re.search(detail, bad["detail"])
    assert good["reason"] is None


def test_a_galaxy_that_is_the_same_everywhere_is_blank(tmp_path):
    for band in BANDS:
        (tmp_path / f"7-{band}.fits").write_bytes(band_file(np.zeros((80, 80), np.float32)))
    assert read_unit(members(tmp_path), Decoder())["reason"].to_pylist() == ["blank"]


def test_masked_pixels_of_one_band_are_filled_and_told(tmp_path):
    write_galaxy(tmp_path)
    (tmp_path / "7-r.fits").write_bytes(band_file(nan(0.1)))
    cutouts = read_unit(members(tmp_path), Decoder())
    assert cutouts["flags"].to_pylist() == [ImageFlag.MASKED]


@pytest.mark.parametrize(
    ("happens", "reason"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: os.utime(path, ns=(1, 1)), "changed"),
        (lambda path: (path.unlink(), path.symlink_to(path)), "missing"),
    ],
    ids=["went", "changed", "link to itself"],
)
def test_a_band_that_is_another_since_the_listing(tmp_path, happens: Callable[[Path], object], reason):
    write_galaxy(tmp_path, "7-{band}.fits")
    write_galaxy(tmp_path, "8-{band}.fits")
    table = members(tmp_path)
    happens(tmp_path / "7-g.fits")
    cutouts = read_unit(table, Decoder())
    assert cutouts["reason"].to_pylist() == [reason, None]
    assert "7-g.fits" in cutouts["detail"][0].as_py()


def test_the_first_bad_band_is_told_whatever_comes_first(tmp_path):
    write_galaxy(tmp_path)
    table = members(tmp_path)
    (tmp_path / "7-g.fits").unlink()
    os.utime(tmp_path / "7-r.fits", ns=(1, 1))
    assert read_unit(table, Decoder())["reason"].to_pylist() == ["changed"]


def test_storage_that_refuses_a_band_of_all_is_not_the_galaxies_fault(tmp_path, monkeypatch):
    for number in range(12):
        write_galaxy(tmp_path, f"{number:02}-{{band}}.fits")
    table = members(tmp_path)
    opened = Path.open

    def refuse(path: Path, *arguments: str) -> object:
        if path.name.endswith("-r.fits"):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(FatalError, match=r"\b9\b.*\b36\b.*Permission denied"):
        read_unit(table, Decoder())


def test_two_ways_of_packing_are_two_listings_of_one_galaxy(tmp_path):
    write_galaxy(tmp_path, "7-{band}.fits")
    write_galaxy(tmp_path, "7-{band}.fit")
    assert members(tmp_path)["reason"].to_pylist() == [None, "duplicate_id"]


def test_odd_names(tmp_path):
    write_galaxy(tmp_path)
    (tmp_path / "{band}-r.fits").write_bytes(GOOD)
    (tmp_path / os.fsdecode(b"caf\xe9-r.fits")).write_bytes(GOOD)
    write_galaxy(tmp_path, "{band}.fits")
    (tmp_path / ".7-r.fits").write_bytes(GOOD)
    (tmp_path / "8-z.fits").write_bytes(GOOD)
    (tmp_path / "notes.txt").write_text("no cutout")
    source = open_band_files(str(tmp_path), bands=BANDS)
    table = listed(source)
    assert source.ignored == 3
    rejected = dict(zip(table["reason"].to_pylist(), table["detail"].to_pylist(), strict=True))
    assert table["reason"].to_pylist().count("bad_id") == 3
    assert rejected[None] is None
    details = " ".join(table["detail"].drop_null().to_pylist())
    for part in ("not UTF-8; rename it", "stands for a band; rename the file", "galaxy_id is ''"):
        assert part in details
    assert read_unit(table, Decoder())["reason"].equals(table["reason"])


def test_limit_takes_the_first_galaxies_with_all_their_bands(tmp_path):
    for number in (3, 1, 2):
        write_galaxy(tmp_path, f"{number}-{{band}}.fits")
    table = members(tmp_path, limit=2)
    assert table["galaxy_id"].to_pylist() == ["1", "2"]
    assert table["reason"].null_count == 2


def test_input_without_a_band_in_any_name(tmp_path):
    (tmp_path / "7.fits").write_bytes(GOOD)
    with pytest.raises(UsageError, match=r"i, r, g.*--preset"):
        members(tmp_path)


def test_any_storage_and_order_give_the_same(tmp_path, expected):
    import fsspec

    memory = fsspec.filesystem("memory")
    for number in (1, 2, 3):
        memory.pipe({f"/bands/{number}-{band}.fits": band_file(flux) for band, flux in galaxy().items()})
    try:
        table = listed(open_band_files("memory://bands", bands=BANDS))
        memory.rm("/bands/2-i.fits")
        cutouts = read_unit(table.take([2, 0, 1]), Decoder())
        assert cutouts["reason"].to_pylist() == [None, None, "missing"]
        assert cutouts["cutout"].to_pylist()[:2] == [expected] * 2
    finally:
        memory.rm("/bands", recursive=True)
