"""Frames with positions: which frame, which pixels, and what becomes of galaxies that are on none."""

import io
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import sep
from astropy.io import fits
from astropy.wcs import WCS
from listings import listed
from sky_fields import ARCSEC, header, write_field, write_table

from gax_batch.errors import FatalError, UsageError
from gax_batch.imaging.cutout import ImageFlag, ImageLimits
from gax_batch.imaging.decoding import Decoder
from gax_batch.imaging.wcs import Projection
from gax_batch.sources import framing as module
from gax_batch.sources import open_frames, read_unit

BANDS = ("i", "r", "g")


@pytest.fixture
def survey(tmp_path: Path) -> tuple[Path, str]:
    """Two fields side by side that overlap by a tenth, with a galaxy in each and one in both."""
    frames = tmp_path / "frames"
    frames.mkdir()
    places = {"west": (150.010, 2.001), "east": (149.975, 1.999), "both": (149.9861, 2.0)}
    spots = dict.fromkeys(places.values(), 2.0)
    write_field(frames, "a", spots, ra=150.0)
    write_field(frames, "b", spots, ra=149.97)
    (frames / "notes.txt").write_text("no frame")
    return frames, write_table(tmp_path / "galaxies.csv", places)


def members(survey: tuple[Path, str], **options: int) -> pa.Table:
    return listed(open_frames(str(survey[0]), survey[1], bands=BANDS, **options))


def pixels(cutouts: pa.Table) -> list[npt.NDArray[np.uint8] | None]:
    return [
        None if c is None else np.frombuffer(c, np.uint8).reshape(64, 64, 3)
        for c in cutouts["cutout"].to_pylist()
    ]


def center_of_light(cutout: npt.NDArray[np.uint8]) -> tuple[float, float]:
    light = np.maximum(cutout.sum(axis=2).astype(float) - 60, 0)
    rows, columns = np.mgrid[:64, :64]
    return (light * rows).sum() / light.sum(), (light * columns).sum() / light.sum()


def test_each_galaxy_is_cut_from_the_field_where_it_is_farthest_from_an_edge(survey):
    table = members(survey)
    found = dict(zip(table["galaxy_id"].to_pylist(), table["object_uri"].to_pylist(), strict=True))
    root = f"file://{survey[0]}"
    assert found == {
        "west": f"{root}/a-{{band}}-7.fits",
        "east": f"{root}/b-{{band}}-7.fits",
        "both": f"{root}/a-{{band}}-7.fits",
    }
    assert set(table["source_uri"].to_pylist()) == {f"file://{survey[1]}#galaxy={name}" for name in found}


def test_galaxies_are_centered_in_all_bands_and_have_the_right_size(survey):
    cutouts = read_unit(members(survey), Decoder())
    assert cutouts["reason"].null_count == 3
    for cutout in pixels(cutouts):
        row, column = center_of_light(cutout)
        assert (row, column) == pytest.approx((31.5, 31.5), abs=0.2)
        # A Gaussian of 5 pixels of 0.4 arcsec, in pixels of 0.08 x 5 arcsec: half its height at 5.9 pixels.
        profile = cutout[32, :, 1].astype(float)
        assert 8 <= (profile > profile.max() / 2).sum() <= 24
        assert cutout[32, 32, 0] > cutout[32, 32, 2]


def test_a_radius_is_the_size_of_the_cutout(survey, tmp_path):
    places = {"west": (150.010, 2.001)}
    wide = members((survey[0], write_table(tmp_path / "wide.csv", places, radius=10.0)))
    default = members((survey[0], write_table(tmp_path / "none.csv", places, radius=None)))
    (far,) = pixels(read_unit(wide, Decoder()))
    assert (far > 60).sum() < (pixels(read_unit(members(survey), Decoder()))[2] > 60).sum()
    (same,) = pixels(read_unit(default, Decoder(default_radius=10.0)))
    np.testing.assert_array_equal(far, same)


def test_a_unit_of_two_fields_fetches_each_band_of_them_once(survey, monkeypatch):
    fetched: list[str] = []
    fetch = module.fetch_each

    def counted(objects, handle, *, max_bytes):
        fetched.extend(info.uri for info in objects)
        fetch(objects, handle, max_bytes=max_bytes)

    monkeypatch.setattr(module, "fetch_each", counted)
    read_unit(members(survey), Decoder())
    assert len(fetched) == len(set(fetched)) == 6


def test_near_an_edge_the_sky_is_filled_in_and_told(survey, tmp_path):
    head = header(150.0, 2.0, 300)
    head["NAXIS1"] = head["NAXIS2"] = 300
    places = {"edge": (150.0, 2.0 + 148 * ARCSEC / 3600), "beyond": (150.0, 2.0 + 152 * ARCSEC / 3600)}
    _, rows = Projection.of_header(head).pixels(*np.array(list(places.values())).T)
    assert (rows < 299.5).tolist() == [True, False]
    cutouts = read_unit(
        members((survey[0], write_table(tmp_path / "rim.csv", places, radius=3.0))), Decoder()
    )
    found = {row["galaxy_id"]: row for row in cutouts.to_pylist()}
    assert found["beyond"]["reason"] == "off_frame"
    assert found["edge"]["reason"] is None
    assert found["edge"]["flags"] & ImageFlag.MASKED


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("x,10,10,5", "off_frame"),
        ("x,330,-2,5", "off_frame"),
        ("x,,,5", "off_frame"),
        ("x,150,2,0", "bad_position"),
        ("x,150,2,-4", "bad_position"),
        ("x,150,2,4000", "bad_position"),
        (",150,2,5", "bad_id"),
        ("x,400,2,5", "off_frame"),
    ],
)
def test_a_galaxy_that_is_nowhere_is_one_reject(survey, tmp_path, row, reason):
    (tmp_path / "t.csv").write_text(f"galaxy_id,ra,dec,radius\n{row}\nwest,150.010,2.001,5\n")
    cutouts = read_unit(members((survey[0], str(tmp_path / "t.csv"))), Decoder()).to_pylist()
    by_id = {r["galaxy_id"]: r["reason"] for r in cutouts}
    assert by_id.pop("west") is None
    assert list(by_id.values()) == [reason]


def test_a_band_that_is_not_there_rejects_the_galaxies_of_its_field(survey):
    (survey[0] / "a-i-7.fits").unlink()
    cutouts = read_unit(members(survey), Decoder())
    found = dict(zip(cutouts["galaxy_id"].to_pylist(), cutouts["reason"].to_pylist(), strict=True))
    assert found == {"west": "missing_band", "both": "missing_band", "east": None}


def test_a_frame_that_went_or_changed_since_the_listing(survey):
    table = members(survey)
    (survey[0] / "a-r-7.fits").unlink()
    (survey[0] / "b-g-7.fits").write_bytes((survey[0] / "b-g-7.fits").read_bytes() + bytes(2880))
    cutouts = read_unit(table, Decoder())
    found = dict(zip(cutouts["galaxy_id"].to_pylist(), cutouts["reason"].to_pylist(), strict=True))
    assert found == {"west": "missing", "both": "missing", "east": "changed"}


def test_damaged_and_turned_frames(survey):
    path = survey[0] / "a-r-7.fits"
    path.write_bytes(path.read_bytes()[:100_000])
    with fits.open(survey[0] / "b-g-7.fits", mode="update") as hdus:
        hdus[0].header.update(header(149.97, 2.0, 300, turned=10))
    cutouts = read_unit(members(survey), Decoder())
    found = dict(zip(cutouts["galaxy_id"].to_pylist(), cutouts["reason"].to_pylist(), strict=True))
    assert found == {"west": "truncated", "both": "truncated", "east": "wrong_shape"}
    assert "10.0" in str(cutouts["detail"].to_pylist())


def image(head: fits.Header, value: float = 1.0) -> bytes:
    buffer = io.BytesIO()
    fits.PrimaryHDU(np.full((300, 300), value, np.float32), head).writeto(buffer)
    return buffer.getvalue()


def table_only() -> bytes:
    buffer = io.BytesIO()
    columns = fits.ColDefs([fits.Column("a", "J", array=[1])])
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)]).writeto(buffer)
    return buffer.getvalue()


def galactic() -> fits.Header:
    head = header(150.0, 2.0, 300)
    head["CTYPE1"], head["CTYPE2"] = "GLON-TAN", "GLAT-TAN"
    return head


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (b"", "empty_file", ""),
        (b"no FITS file", "not_an_image", "no FITS"),
        (b"BZh9" + bytes(100), "corrupt", ""),
        (image(header(150.0, 2.0, 300))[:400], "truncated", ""),
        (table_only(), "wrong_shape", ""),
        (image(fits.Header()), "corrupt", "a-r-7.fits"),
        (image(galactic()), "corrupt", "GLON"),
        (image(header(150.0, 2.0, 300), np.nan), "not_finite", "NaN"),
        (image(header(160.0, 2.0, 300)), "not_finite", "NaN"),
        (image(header(330.0, -2.0, 300)), "off_frame", ""),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value,
)
def test_one_bad_band_rejects_the_galaxies_of_its_field_alone(survey, data, reason, detail):
    (survey[0] / "a-r-7.fits").write_bytes(data)
    cutouts = read_unit(members(survey), Decoder())
    found = dict(zip(cutouts["galaxy_id"].to_pylist(), cutouts["reason"].to_pylist(), strict=True))
    assert found == {"west": reason, "both": reason, "east": None}
    told = cutouts["detail"].drop_null().to_pylist()
    assert len(told) == 2
    assert all(text and detail in text for text in told)


def test_a_frame_without_light_and_one_that_is_mostly_masked(survey):
    for band in BANDS:
        with fits.open(survey[0] / f"a-{band}-7.fits", mode="update") as hdus:
            hdus[0].data[:] = 0
        with fits.open(survey[0] / f"b-{band}-7.fits", mode="update") as hdus:
            hdus[0].data[:, :290] = np.nan
    cutouts = read_unit(members(survey), Decoder())
    found = dict(zip(cutouts["galaxy_id"].to_pylist(), cutouts["reason"].to_pylist(), strict=True))
    assert found == {"west": "blank", "both": "blank", "east": "not_finite"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ""),
        (image(header(150.0, 2.0, 300))[:400], ""),
        (table_only(), ""),
        (image(fits.Header()), ""),
        (image(galactic()), "GLON.*GLAT"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value,
)
def test_a_frame_that_is_nowhere_ends_the_command_in_one_line(survey, data, words):
    (survey[0] / "a-g-7.fits").write_bytes(data)
    with pytest.raises(UsageError, match=rf"a-g-7\.fits.*{words}") as caught:
        members(survey)
    assert "\n" not in str(caught.value)


def test_frames_that_are_too_large(survey):
    cutouts = read_unit(members(survey), Decoder(limits=ImageLimits(pixels=80_000)))
    assert set(cutouts["reason"].to_pylist()) == {"too_many_pixels"}


def test_input_without_usable_frames(survey, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=str(tmp_path / "empty")):
        members((tmp_path / "empty", survey[1]))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "picture.fits").write_bytes(b"x")
    with pytest.raises(UsageError, match="i, r, g"):
        members((tmp_path / "other", survey[1]))
    fits.writeto(tmp_path / "other" / "x-g.fits", np.zeros((9, 9), np.float32))
    with pytest.raises(UsageError, match=r"x-g\.fits"):
        members((tmp_path / "other", survey[1]))


def test_a_galaxy_that_is_listed_twice_is_refused(survey, tmp_path):
    (tmp_path / "t.csv").write_text("id,ra,dec\nw,150.010,2.001\nw,150.010,2.001\n")
    with pytest.raises(UsageError, match=r"t\.csv#galaxy=w"):
        members((survey[0], str(tmp_path / "t.csv")))


def test_limit_takes_the_first_galaxies_of_the_table(survey):
    assert members(survey, limit=2)["galaxy_id"].to_pylist() == ["east", "west"]


def test_a_changed_radius_and_a_changed_frame_are_another_version(survey, tmp_path):
    before = members(survey)["source_version"].to_pylist()
    places = {"west": (150.010, 2.001), "east": (149.975, 1.999), "both": (149.9861, 2.0)}
    write_table(Path(survey[1]), places, radius=6.0)
    after = members(survey)["source_version"].to_pylist()
    assert not set(before) & set(after)
    (survey[0] / "b-g-7.fits").touch()
    again = members(survey)["source_version"].to_pylist()
    assert [a == b for a, b in zip(after, again, strict=True)] == [True, False, True]


def test_storage_that_refuses_frames_is_fatal_for_the_unit(survey, monkeypatch):
    table = members(survey)

    def refuse(*_: object, **__: object) -> None:
        raise FatalError("the storage failed for 3 of 3 objects")

    monkeypatch.setattr(module, "fetch_each", refuse)
    with pytest.raises(FatalError, match="3 of 3"):
        read_unit(table, Decoder())


def test_a_field_that_the_storage_refuses_costs_no_galaxy_of_another(survey, monkeypatch):
    table, fetch = members(survey), module.fetch_each

    def refuse(objects, handle, *, max_bytes):
        if "/b-" in objects[0].uri:
            raise FatalError("the storage failed for 3 of 3 objects")
        fetch(objects, handle, max_bytes=max_bytes)

    monkeypatch.setattr(module, "fetch_each", refuse)
    reasons = {row["galaxy_id"]: row["reason"] for row in read_unit(table, Decoder()).to_pylist()}
    assert reasons == {"west": None, "both": None, "east": "unreadable"}


def test_real_frames_give_centered_galaxies(shared_data, tmp_path):
    frames = shared_data / "frames"
    with warnings.catch_warnings(), fits.open(frames / "ngc6976_sdss_r.fits.bz2") as hdus:
        warnings.simplefilter("ignore")  # of an old keyword in the header
        image, wcs = hdus[0].data.astype(np.float32), WCS(hdus[0].header)
    found = sep.extract(image, 0.05, minarea=400)
    ra, dec = wcs.all_pix2world(found["x"], found["y"], 0)
    places = {f"g{i}": place for i, place in enumerate(zip(ra, dec, strict=True))}
    cutouts = read_unit(members((frames, write_table(tmp_path / "t.csv", places, radius=30.0))), Decoder())
    good = [p for p in pixels(cutouts) if p is not None]
    assert len(good) >= 3
    for cutout in good:
        middle = cutout[28:36, 28:36].astype(float).mean()
        assert middle > 4 * np.median(cutout)
