import numpy as np
import pytest

from gax_batch.simulate import camera

SEEING = np.array([1.0, 2.4, 5.0], np.float32)


def test_the_psf_is_normalized_and_keeps_a_flat_sky_flat() -> None:
    for matrix in camera.psf_matrices(SEEING, 64):
        np.testing.assert_allclose(matrix.sum(axis=2), 1, rtol=1e-5)
    flat = np.full((3, 1, 64, 64), 7, np.float32)
    np.testing.assert_allclose(camera.convolve(flat, SEEING), flat, rtol=1e-5)


def test_a_star_keeps_its_flux_and_place_and_gets_the_width_of_the_seeing() -> None:
    light = np.zeros((3, 2, 64, 64), np.float32)
    light[:, :, 30, 35] = 2
    blurred = camera.convolve(light, SEEING)
    np.testing.assert_allclose(blurred.sum(axis=(2, 3)), 2, rtol=1e-4)
    pixels = np.arange(64)
    column, row = (blurred.sum(axis=axis) @ pixels / 2 for axis in (2, 3))
    np.testing.assert_allclose(column, 35, atol=1e-3)
    np.testing.assert_allclose(row, 30, atol=1e-3)
    variance = blurred[1, 0].sum(axis=0) @ (pixels - 35) ** 2 / 2
    sigma = SEEING[1] / 2.3548
    assert variance == pytest.approx(sigma**2 * (0.8 + 0.2 * 4), rel=1e-3)


def test_noise_has_no_bias_and_grows_with_light_and_resolution() -> None:
    def noise(level: float, pixel_scale: float) -> np.ndarray:
        bands = np.full((64, 3, 64, 64), level, np.float32)
        camera.add_noise(bands, np.full(64, pixel_scale, np.float32), np.random.default_rng(5))
        return bands - level

    sky, bright, coarse, fine = noise(0, 0.396), noise(20, 0.396), noise(0, 0.792), noise(0, 0.2)
    assert abs(sky.mean()) < 3 * sky.std() * 2 / np.sqrt(sky.size)
    assert bright.std() > 3 * sky.std()
    assert coarse.std() == pytest.approx(sky.std() / 2, rel=1e-3)
    assert fine.std() == pytest.approx(sky.std(), rel=1e-3)
    neighbors = (sky[..., 1:] * sky[..., :-1]).mean() / (sky**2).mean()
    assert neighbors == pytest.approx(0.5, abs=0.02)


def test_colors_keep_their_hue_however_bright() -> None:
    bands = np.array([2.0, 1.0, 0.5], np.float32)[None, :, None, None] * np.array(
        [1, 10, 1e3, 1e6], np.float32
    )
    rgb = camera.lupton_rgb(bands.copy())[0, 0].astype(float)
    assert rgb.max() == 255
    assert (np.diff(rgb.sum(axis=1)) >= -1).all()
    ratio = rgb[1:, 2] / rgb[1:, 0]
    np.testing.assert_allclose(ratio, 0.25 * 7.8 / 4.9, atol=0.02)


def test_darkness_is_black_and_nothing_overflows() -> None:
    dark = np.full((1, 3, 4, 4), -5, np.float32)
    assert camera.lupton_rgb(dark).max() == 0
