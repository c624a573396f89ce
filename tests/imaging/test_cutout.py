import io
from pathlib import Path

import numpy as np
import pytest
from bad_images import BAD, encoded, galaxy
from PIL import Image

from gax_batch.imaging.cutout import (
    Cutout,
    ImageFlag,
    ImageLimits,
    cutout_from_array,
    decode_cutout,
    decode_window,
)
from gax_batch.imaging.defaults import GZ2_CROP
from gax_batch.rejects import RejectError, Stage


def block_means(pixels: Cutout, factor: int) -> Cutout:
    rows, columns = pixels.shape[0] // factor, pixels.shape[1] // factor
    means = pixels.reshape(rows, factor, columns, factor, -1).mean(axis=(1, 3))
    return np.floor(means + 0.5).astype(np.uint8)


def sampled_means(pixels: Cutout, crop: float, oversampling: int = 16) -> np.ndarray:
    """Area averages of the central square by brute force: many nearest samples in each output pixel."""
    height, width = pixels.shape[:2]
    span = crop * min(height, width)
    offsets = (np.arange(64 * oversampling) + 0.5) / (64 * oversampling) * span
    rows = ((height - span) / 2 + offsets).astype(int)
    columns = ((width - span) / 2 + offsets).astype(int)
    samples = pixels[rows][:, columns].astype(float)
    return samples.reshape(64, oversampling, 64, oversampling, -1).mean(axis=(1, 3))


def reason_of(data: bytes, **options: ImageLimits) -> str:
    with pytest.raises(RejectError) as caught:
        decode_cutout(data, **options)
    assert caught.value.reject.stage is Stage.DECODE
    assert caught.value.reject.detail
    return str(caught.value.reject.reason)


@pytest.mark.parametrize("name", BAD)
def test_bad_image_is_rejected_for_the_right_reason(name: str) -> None:
    make, reason = BAD[name]
    assert reason_of(make()) == reason


def test_no_bytes_and_too_many() -> None:
    assert reason_of(b"") == "empty_file"
    data = encoded(galaxy())
    assert reason_of(data, limits=ImageLimits(bytes=len(data) - 1)) == "too_many_bytes"
    assert reason_of(data, limits=ImageLimits(pixels=128 * 128 - 1)) == "too_many_pixels"
    decode_cutout(data, limits=ImageLimits(bytes=len(data), pixels=128 * 128))


@pytest.mark.parametrize("prefix", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\x00", b"MM\x00*"])
def test_noise_behind_a_good_start_is_a_reject(prefix: bytes) -> None:
    noise = np.random.default_rng(7)
    for size in (0, 1, 7, 50, 3000):
        assert reason_of(prefix + noise.bytes(size)) in {
            "truncated",
            "corrupt",
            "zero_pixels",
            "too_many_pixels",
        }


def test_lossless_image_is_averaged_exactly() -> None:
    pixels = galaxy(424)
    cutout, flags = decode_cutout(encoded(pixels))
    assert cutout.shape == (64, 64, 3)
    assert cutout.dtype == np.uint8
    assert cutout.flags.c_contiguous
    assert flags == 0
    np.testing.assert_array_equal(cutout, block_means(pixels[84:340, 84:340], 4))


@pytest.mark.parametrize(("width", "height"), [(107, 107), (150, 220), (301, 300), (512, 512), (700, 999)])
def test_any_size_is_averaged_over_areas(width: int, height: int) -> None:
    pixels = galaxy(width, height)
    cutout, _ = decode_cutout(encoded(pixels))
    difference = np.abs(cutout - sampled_means(pixels, GZ2_CROP))
    assert difference.mean() < 0.6


@pytest.mark.parametrize("side", [424, 425, 512, 640, 848, 1000, 1696])
def test_scaled_jpeg_decoding_agrees_with_averaging_all_pixels(side: int) -> None:
    data = encoded(galaxy(side), "JPEG", quality=92)
    scaled, _ = decode_cutout(data)
    full, _ = cutout_from_array(np.asarray(Image.open(io.BytesIO(data))))
    assert np.abs(scaled.astype(int) - full).mean() < 1


def test_scaled_decoding_of_real_cutouts(shared_data: Path) -> None:
    differences = []
    for path in sorted((shared_data / "kaggle" / "images").glob("*.jpg"))[::200]:
        scaled, _ = decode_cutout(path.read_bytes())
        full, _ = cutout_from_array(np.asarray(Image.open(path)))
        differences.append(np.abs(scaled.astype(int) - full).mean())
    assert len(differences) > 20
    assert max(differences) < 1


def test_final_cutout_is_taken_as_it_is() -> None:
    pixels = galaxy(64)
    cutout, flags = decode_cutout(encoded(pixels))
    np.testing.assert_array_equal(cutout, pixels)
    assert flags == 0


def test_crop_of_everything() -> None:
    pixels = galaxy(128)
    np.testing.assert_array_equal(decode_cutout(encoded(pixels), crop=1.0)[0], block_means(pixels, 2))


def test_the_center_of_a_long_image_is_used() -> None:
    pixels = galaxy(424)
    canvas = np.full((424, 1000, 3), 200, np.uint8)
    canvas[:, 288:712] = pixels
    np.testing.assert_array_equal(decode_cutout(encoded(canvas))[0], decode_cutout(encoded(pixels))[0])


def test_small_image_is_enlarged_and_flagged() -> None:
    for side in (10, 63, 105):
        cutout, flags = decode_cutout(encoded(galaxy(side)))
        assert cutout.shape == (64, 64, 3)
        assert flags == ImageFlag.UPSCALED
    assert decode_cutout(encoded(galaxy(106)))[1] == 0


def test_window_is_the_cutout_with_a_rim() -> None:
    for data in (encoded(galaxy(424)), encoded(galaxy(424), "JPEG")):
        window, _ = decode_window(data, 106)
        np.testing.assert_array_equal(window[21:85, 21:85], decode_cutout(data)[0])


def test_window_larger_than_the_image_is_an_error() -> None:
    with pytest.raises(ValueError, match="107 pixels"):
        decode_window(encoded(galaxy(424)), 107)
    with pytest.raises(ValueError, match="crop"):
        decode_cutout(encoded(galaxy(424)), crop=1.1)


def test_gray_images() -> None:
    gray = galaxy(128)[..., 0]
    expected = cutout_from_array(np.repeat(gray[..., None], 3, axis=2))[0]
    for data in (encoded(gray), encoded(gray, "TIFF")):
        cutout, flags = decode_cutout(data)
        assert flags == ImageFlag.GRAYSCALE
        np.testing.assert_array_equal(cutout, expected)
    cutout, flags = decode_cutout(encoded(gray, "JPEG", quality=95))
    assert flags == ImageFlag.GRAYSCALE
    assert np.abs(cutout.astype(int) - expected).mean() < 2


def test_sixteen_bit_gray_keeps_its_precision_until_the_end() -> None:
    gray = galaxy(128)[..., 0]
    sixteen = gray.astype(np.uint16) * 257
    for kind in ("PNG", "TIFF"):
        cutout, flags = decode_cutout(encoded(sixteen, kind))
        assert flags == ImageFlag.GRAYSCALE | ImageFlag.SIXTEEN_BIT
        np.testing.assert_array_equal(cutout, decode_cutout(encoded(gray))[0])


def test_float_tiff_is_from_black_to_white() -> None:
    gray = galaxy(128)[..., 0]
    cutout, flags = decode_cutout(encoded((gray / 255).astype(np.float32), "TIFF"))
    assert flags == ImageFlag.GRAYSCALE
    assert np.abs(cutout.astype(int) - decode_cutout(encoded(gray))[0]).max() <= 1


def test_one_bit_image() -> None:
    bits = Image.fromarray(galaxy(128)).convert("1")
    cutout, flags = decode_cutout(encoded(bits))
    assert flags == ImageFlag.GRAYSCALE
    assert cutout.max() > 200


def test_palette_image() -> None:
    palette = Image.fromarray(galaxy(128)).quantize(200)
    cutout, flags = decode_cutout(encoded(palette))
    assert flags == 0
    np.testing.assert_array_equal(cutout, cutout_from_array(np.asarray(palette.convert("RGB")))[0])


def test_cmyk_jpeg() -> None:
    image = Image.fromarray(galaxy(424)).convert("CMYK")
    cutout, flags = decode_cutout(encoded(image, "JPEG", quality=95))
    assert flags == 0
    assert np.abs(cutout.astype(int) - decode_cutout(encoded(galaxy(424)))[0]).mean() < 3


def test_alpha_is_laid_over_black() -> None:
    opaque = galaxy(128)
    faded = np.dstack([opaque, np.full((128, 128), 128, np.uint8)])
    cutout, flags = decode_cutout(encoded(faded))
    assert flags == ImageFlag.ALPHA
    expected = cutout_from_array((opaque * 128.0 / 255 + 0.5).astype(np.uint8))[0]
    assert np.abs(cutout.astype(int) - expected).max() <= 1

    gray_alpha = Image.fromarray(np.dstack([opaque[..., 0], np.full((128, 128), 255, np.uint8)]), "LA")
    cutout, flags = decode_cutout(encoded(gray_alpha))
    assert flags == ImageFlag.ALPHA | ImageFlag.GRAYSCALE
    np.testing.assert_array_equal(cutout, decode_cutout(encoded(opaque[..., 0]))[0])


def test_transparent_color_of_a_palette() -> None:
    palette = Image.fromarray(galaxy(128)).quantize(16)
    cutout, flags = decode_cutout(encoded(palette, transparency=int(np.asarray(palette)[64, 64])))
    assert flags == ImageFlag.ALPHA
    assert cutout[32, 32].tolist() == [0, 0, 0]


@pytest.mark.parametrize("side", [64, 424])
def test_tensors_of_every_dtype_agree(side: int) -> None:
    pixels = galaxy(side)
    expected = cutout_from_array(pixels)[0]
    sixteen, flags = cutout_from_array(pixels.astype(np.uint16) * 257)
    assert flags == ImageFlag.SIXTEEN_BIT
    np.testing.assert_array_equal(sixteen, expected)
    for dtype in (np.float16, np.float32, np.float64):
        floats, flags = cutout_from_array((pixels / 255).astype(dtype))
        assert flags == 0
        assert np.abs(floats.astype(int) - expected).max() <= 1
    assert cutout_from_array(pixels[..., 0])[1] == ImageFlag.GRAYSCALE


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((64, 64, 4), np.uint8), "wrong_shape"),
        (np.zeros((3, 64, 64), np.uint8), "wrong_shape"),
        (np.zeros(12288, np.uint8), "wrong_shape"),
        (np.zeros((64, 64, 3), np.int64), "wrong_shape"),
        (np.zeros((0, 64, 3), np.uint8), "zero_pixels"),
        (np.zeros((64, 64, 3), np.uint8), "blank"),
        (np.full((64, 64, 3), np.nan, np.float32), "not_finite"),
        (galaxy(64).astype(np.float32), "unsupported_format"),
    ],
)
def test_bad_tensor_is_rejected(array: np.ndarray, reason: str) -> None:
    with pytest.raises(RejectError) as caught:
        cutout_from_array(array)
    assert caught.value.reject.reason == reason


def test_a_bad_pixel_outside_the_window_does_no_harm() -> None:
    pixels = (galaxy(424) / 255).astype(np.float32)
    pixels[0, 0] = np.nan
    cutout_from_array(pixels)
