"""FITS cutouts of every shape, and what hostile ones get."""

import bz2
import gzip
import io
import re
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from astropy.io import fits
from fits_images import Fluxes, cube, galaxy, stored

from gax_batch.imaging.cutout import ImageFlag, ImageLimits
from gax_batch.imaging.decoding import Decoder
from gax_batch.imaging.fits import read_bands
from gax_batch.imaging.rgb import PRESETS, to_rgb
from gax_batch.rejects import RejectError

SDSS = PRESETS["sdss-gri"]
LIMITS = ImageLimits()


def extensions(bands: Fluxes, names: dict[str, str], kind: Callable[..., object] = fits.ImageHDU) -> bytes:
    return stored(*(kind(bands[band], name=name) for band, name in names.items()))


def colors_of(data: bytes) -> npt.NDArray[np.float32]:
    return to_rgb(read_bands(data, SDSS, LIMITS)[0], SDSS)


@pytest.fixture(scope="module")
def expected() -> npt.NDArray[np.uint8]:
    return Decoder().decode(stored(cube(galaxy())))[0]


@pytest.mark.parametrize(
    "data",
    [
        stored(cube(galaxy(), "irg", BANDS="irg")),
        stored(cube(galaxy(), "rgi", BANDS="r, g, i")),
        extensions(galaxy(), {"r": "SDSS_r", "i": "sdss-I", "g": "G"}),
        gzip.compress(stored(cube(galaxy()))),
        bz2.compress(stored(cube(galaxy()))),
        stored(fits.PrimaryHDU(galaxy()["g"]), fits.ImageHDU(galaxy()["r"]), fits.ImageHDU(galaxy()["i"])),
        stored(fits.PrimaryHDU(np.stack(list(galaxy().values()))[None])),
    ],
    ids=["BANDS", "BANDS with commas", "EXTNAME", "gzip", "bzip2", "blue to red", "four axes"],
)
def test_every_way_to_store_bands_gives_the_same_cutout(data, expected):
    cutout, flags = Decoder().decode(data)
    np.testing.assert_array_equal(cutout, expected)
    assert flags == 0


def test_doubles_and_packed_tiles_agree(expected):
    doubles = {band: flux.astype(np.float64) for band, flux in galaxy().items()}
    np.testing.assert_array_equal(Decoder().decode(stored(cube(doubles)))[0], expected)
    lossy = extensions(galaxy(), {b: b for b in "gri"}, fits.CompImageHDU)
    assert np.abs(Decoder().decode(lossy)[0].astype(int) - expected).mean() < 1


@pytest.mark.parametrize("dtype", ["u1", "i2", ">i4", "u2"])
def test_scaled_integers_agree(dtype, expected):
    info = np.iinfo(dtype)
    low, high = -0.5, 5.0
    step = (high - low) / min(int(info.max) - int(info.min), 60_000)
    bands = {
        b: (np.rint((f.astype(np.float64) - low) / step) + info.min).astype(dtype)
        for b, f in galaxy().items()
    }
    hdus = []
    for band, counts in bands.items():
        hdu = fits.ImageHDU(counts, name=band)
        if dtype in ("i2", ">i4", "u1"):
            hdu = fits.ImageHDU(counts, name=band)
            hdu.header["BSCALE"], hdu.header["BZERO"] = step, low - info.min * step
        hdus.append(hdu)
    if dtype == "u2":  # unsigned integers take BZERO for their sign: what they count is up to the survey
        assert Decoder().decode(stored(*hdus))[0].shape == (64, 64, 3)
        return
    close = np.abs(Decoder().decode(_raw(hdus))[0].astype(int) - expected)
    assert close.mean() < (4 if dtype == "u1" else 0.5)


def _raw(hdus: list[fits.ImageHDU]) -> bytes:
    """Written with the scale as given, not undone by astropy."""
    buffer = io.BytesIO()
    fits.PrimaryHDU().writeto(buffer)
    for hdu in hdus:
        data = np.ascontiguousarray(hdu.data)
        header = hdu.header.copy()
        body = data.astype(data.dtype.newbyteorder(">")).tobytes()
        buffer.write(header.tostring().encode() + body + bytes(-len(body) % 2880))
    return buffer.getvalue()


def test_north_is_up_as_in_other_images():
    bands = galaxy()
    colors = colors_of(stored(cube(bands)))
    brightest = np.unravel_index(np.argmax(colors.sum(axis=2)), colors.shape[:2])
    row, column = np.unravel_index(np.argmax(bands["i"] + bands["r"] * 1.3 + bands["g"] * 1.9), (128, 128))
    assert brightest == (127 - row, column)


def test_red_light_is_red_and_the_sky_is_dark():
    colors = colors_of(stored(cube(galaxy())))
    center = colors[60:68, 60:68].mean(axis=(0, 1))
    assert center[0] > center[1] > center[2] > 0.2
    assert np.median(colors) < 0.03


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_preset_reads_its_bands(preset):
    bands = PRESETS[preset].bands or ("r",)
    unit = PRESETS[preset].unit
    fluxes = list(galaxy().values())[: len(bands)]
    planes = [fits.ImageHDU(f / unit, name=b) for f, b in zip(fluxes, bands[::-1], strict=True)]
    cutout, flags = Decoder(preset=preset).decode(stored(*planes))
    assert cutout[28:36, 28:36].mean() > 4 * cutout[:8].mean()
    assert (flags == ImageFlag.GRAYSCALE) == (preset == "single")


def test_masked_pixels_become_sky_and_are_told():
    bands = galaxy()
    for flux in bands.values():
        flux[:20] = np.nan
    cutout, flags = Decoder().decode(stored(cube(bands)))
    assert flags == ImageFlag.MASKED
    assert cutout[28:36, 28:36].mean() > 100
    counts = np.random.default_rng(1).integers(5, 9, (120, 120)).astype(np.int16)
    counts[50:70, 50:70] = 300
    counts[0] = -99
    hdu = fits.PrimaryHDU(counts)
    hdu.header["BLANK"] = -99
    cutout, flags = Decoder(preset="single").decode(stored(hdu))
    assert flags == ImageFlag.MASKED | ImageFlag.GRAYSCALE
    assert cutout[31, 31, 0] > 240
    assert np.median(cutout) < 60


@pytest.mark.parametrize(
    "cards",
    [
        {"BUNIT": "furlong / fortnight"},
        {"CTYPE1": "RA---XYZ", "CTYPE2": "DEC--XYZ", "CUNIT1": "furlong"},
        {"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN", "CRVAL1": 1e300},
        {"CD1_1": 0.0, "CD2_2": 0.0},
    ],
    ids=str,
)
def test_neither_unit_nor_coordinates_of_a_cutout_matter(cards, expected):
    np.testing.assert_array_equal(Decoder().decode(stored(cube(galaxy(), **cards)))[0], expected)


def nan(fraction: float) -> bytes:
    bands = galaxy()
    for flux in bands.values():
        flux[: round(128 * fraction)] = np.nan
    return stored(cube(bands))


GOOD = stored(cube(galaxy()))
HUGE = fits.Header([("SIMPLE", True), ("BITPIX", 8), ("NAXIS", 2), ("NAXIS1", 10**6), ("NAXIS2", 10**6)])


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (GOOD[:4000], "truncated", ""),
        (GOOD[: len(GOOD) // 2], "truncated", ""),
        (GOOD[:1000], "truncated", ""),
        (GOOD[:400], "truncated", ""),
        (gzip.compress(GOOD)[:-100], "truncated", r"\b\d+\b"),
        (bz2.compress(GOOD)[:-100], "truncated", r"\b\d+\b"),
        (b"\x1f\x8b" + bytes(100), "corrupt", ""),
        (gzip.compress(b"no FITS file", mtime=0), "not_an_image", "no FITS"),
        (gzip.compress(bytes(70_000_000)), "too_many_bytes", "67108864"),
        (
            GOOD[:2880].replace(b"END" + b" " * 77, b" " * 80) + b" " * 5_000_000,
            "too_many_bytes",
            "4194304",
        ),
        (HUGE.tostring().encode(), "too_many_pixels", "64000000"),
        (stored(fits.PrimaryHDU()), "wrong_shape", ""),
        (stored(fits.PrimaryHDU(galaxy()["g"])), "missing_band", "i, r, g"),
        (
            extensions(galaxy(), {"g": "g", "r": "r", "i": "z"}),
            "missing_band",
            r"\bi\b.*g, r, z.*--preset legacy-grz",
        ),
        (
            stored(*(fits.ImageHDU(f[: 110 + i], name=b) for i, (b, f) in enumerate(galaxy().items()))),
            "wrong_shape",
            "128 x 110 and 128 x 111",
        ),
        (nan(1), "not_finite", ""),
        (nan(0.75), "masked", "75%"),
        (stored(cube({b: np.zeros((80, 80), np.float32) for b in "gri"})), "blank", r"\[\d+, \d+, \d+\]"),
        (stored(fits.BinTableHDU(np.rec.array([(1,)], dtype=[("a", "i4")]))), "wrong_shape", ""),
    ],
)
def test_a_file_that_cannot_be_used_says_why(data, reason, detail):
    with pytest.raises(RejectError) as caught:
        Decoder().decode(data)
    assert caught.value.reject.reason == reason
    assert re.search(detail, caught.value.reject.detail)


def test_tiles_whose_packing_is_damaged_are_a_reject():
    """astropy raises a class of its own for them, which it keeps private."""
    counts = np.rint(galaxy(64)["g"]).astype(np.int16)
    data = bytearray(
        stored(fits.PrimaryHDU(), fits.CompImageHDU(counts, name="g", compression_type="RICE_1"))
    )
    with fits.open(io.BytesIO(data), disable_image_compression=True) as hdus:
        table = hdus[1]
        start = table.fileinfo()["datLoc"] + table.header["NAXIS1"] * table.header["NAXIS2"]
        packed = table.header["PCOUNT"]
    data[start : start + packed] = b"\xff" * packed
    with fits.open(io.BytesIO(data)) as hdus, pytest.raises(Exception, match="decompression") as caught:
        _ = hdus[1].data
    assert not isinstance(caught.value, OSError | ValueError)
    with pytest.raises(RejectError) as rejected:
        read_bands(bytes(data), SDSS, LIMITS)
    assert rejected.value.reject.reason == "corrupt"
