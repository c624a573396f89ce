"""Bands to colors."""

import numpy as np
import pytest
from astropy.visualization import LuptonAsinhStretch
from astropy.visualization.lupton_rgb import RGBImageMappingLupton

from gax_batch.imaging.rgb import PRESETS, to_rgb

COLORED = [name for name, preset in PRESETS.items() if preset.bands]


@pytest.mark.parametrize("name", COLORED)
def test_colors_are_those_of_astropy(name):
    preset = PRESETS[name]
    rng = np.random.default_rng(3)
    # From below the sky to far too bright, in all mixtures.
    planes = (rng.normal(0, 0.05, (3, 40, 50)) + rng.exponential(1, (3, 40, 50)) ** 4).astype(np.float32)
    mapping = RGBImageMappingLupton(stretch=LuptonAsinhStretch(stretch=preset.stretch, Q=preset.q))
    scaled = (
        planes / preset.unit * np.array(preset.weights)[:, None, None] * preset.unit / preset.pixel_arcsec**2
    )
    expected = np.moveaxis(mapping.apply_mappings(*scaled), 0, -1)
    np.testing.assert_allclose(to_rgb(planes / preset.unit, preset), expected, atol=2e-6)


def test_a_box_is_a_part_of_the_whole():
    planes = np.random.default_rng(3).exponential(1, (3, 40, 50)).astype(np.float32)
    for name, bands in (("sdss-gri", 3), ("single", 1)):
        whole = to_rgb(planes[:bands], PRESETS[name])
        np.testing.assert_array_equal(
            to_rgb(planes[:bands], PRESETS[name], (5, 10, 25, 40)), whole[10:40, 5:25]
        )


def test_no_light_is_black():
    for name, bands in (("sdss-gri", 3), ("single", 1)):
        assert not to_rgb(np.zeros((bands, 4, 4), np.float32), PRESETS[name]).any()
        assert not to_rgb(np.full((bands, 4, 4), -1, np.float32), PRESETS[name]).any()


def test_one_band_in_any_unit_looks_the_same():
    plane = np.random.default_rng(3).normal(10, 1, (1, 60, 60)).astype(np.float32)
    plane[0, 25:35, 25:35] += 500
    gray = to_rgb(plane, PRESETS["single"])
    assert gray[30, 30] > 0.95
    assert np.median(gray) < 0.1
    np.testing.assert_allclose(to_rgb(plane * 1000 - 7, PRESETS["single"]), gray, atol=1e-3)
