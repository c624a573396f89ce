"""The map: there and back again, of one area everywhere, and it shows each galaxy where it is."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from gax_batch.imaging.wcs import directions
from gax_batch.viewer import sky_map
from gax_batch.viewer.sky_map import HEIGHT, WIDTH, View

VIEWS = [View(), View(150, 2, 1.5), View(359.9, 89, 20), View(0, -60, 60), View(12, 80, 0.05)]


def separation(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    chord = np.linalg.norm(directions(*a) - directions(*b), axis=1)
    return np.degrees(2 * np.arcsin(np.clip(chord / 2, 0, 1)))


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_there_and_back(view):
    x, y = np.random.default_rng(1).uniform(-1, 1, (2, 500)) * [[1.9], [0.99]]
    ra, dec = view.unproject(x, y)
    inside = np.isfinite(dec)
    assert inside.sum() > 300
    back = view.project(ra[inside], dec[inside])
    np.testing.assert_allclose(back, (x[inside], y[inside]), atol=1e-6)


def test_the_whole_sky_is_mollweides_as_matplotlib_has_it():
    from matplotlib.projections.geo import MollweideAxes

    rng = np.random.default_rng(2)
    ra, dec = rng.uniform(0.001, 359.9, 300), np.degrees(np.arcsin(rng.uniform(-0.99, 0.99, 300)))
    lon_lat = np.stack([np.radians(180 - ra), np.radians(dec)], axis=1)
    expected = MollweideAxes.MollweideTransform(1).transform(lon_lat) / np.sqrt(2)
    np.testing.assert_allclose(np.stack(View().project(ra, dec), axis=1), expected, atol=1e-3)


@pytest.mark.parametrize("view", [View(), View(150, 30, 40)], ids=str)
def test_areas_are_true(view):
    """Equal areas of the map hold equal areas of the sky: uniform galaxies fill it evenly."""
    rng = np.random.default_rng(3)
    ra, dec = rng.uniform(0, 360, 200_000), np.degrees(np.arcsin(rng.uniform(-1, 1, 200_000)))
    x, y = view.project(ra, dec)
    counts = np.histogram2d(x, y, bins=[np.linspace(-0.6, 0.6, 5), np.linspace(-0.6, 0.6, 5)])[0]
    np.testing.assert_allclose(counts, counts.mean(), rtol=6 / np.sqrt(counts.mean()))


def pixels(uri: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


@pytest.mark.parametrize(("ra", "dec"), [(0.5, 0.0), (180, 45), (270, -80)])
@pytest.mark.parametrize("view", ["whole", "near"])
def test_a_galaxy_is_bright_where_it_is(ra, dec, view):
    place = View() if view == "whole" else View(ra, dec - 3, 5.0)
    cells = sky_map.cells_of(np.array([ra, np.nan]), np.array([dec, np.nan]))
    assert cells[1] == -1
    shown = pixels(sky_map.picture(place, cells))
    assert shown.shape == (HEIGHT, WIDTH, 4)
    rows, columns = np.nonzero(shown[..., 1] > 60)
    assert len(rows)
    x, y = place.project(np.array([ra]), np.array([dec]))
    column, row = (x[0] + 2) / 4 * WIDTH, (1 - y[0]) / 2 * HEIGHT
    assert np.hypot(rows - row, columns - column).min() < 3
    assert np.hypot(rows - row, columns - column).max() < 16
    assert shown[0, 0, 3] == (0 if view == "whole" else 255)


def test_more_galaxies_are_brighter_and_an_empty_map_is_dark():
    view = View(10, 0, 10)
    cells = sky_map.cells_of(np.array([10.0] * 50 + [15.0]), np.zeros(51))
    shown = pixels(sky_map.picture(view, cells)).astype(int)[..., :3].sum(axis=2)
    assert shown[:, WIDTH // 2].max() > shown[:, : WIDTH // 2 - 20].max() > 100
    assert pixels(sky_map.picture(view, cells[:0]))[..., :3].max() < 40


@pytest.mark.parametrize(("view", "radius"), [(VIEWS[0], 30.0), (VIEWS[1], 1.0), (VIEWS[2], 10.0)], ids=str)
def test_a_cone_is_a_line_of_its_radius(view, radius):
    center = (view.ra, view.dec - 0.3)
    words = re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", sky_map.circle(view, *center, radius))
    x, down = np.array(words, float).T
    ra, dec = view.unproject(x, -down)
    n = len(ra)
    assert n > 150
    far = separation((ra, dec), (np.full(n, center[0]), np.full(n, center[1])))
    np.testing.assert_allclose(far, radius, rtol=0.02)


def test_the_first_view_holds_the_survey():
    rng = np.random.default_rng(4)
    ra, dec = (358 + rng.uniform(0, 4, 100)) % 360, rng.uniform(-2, 2, 100)
    ra[0] = dec[0] = np.nan
    view = sky_map.whole_view(ra, dec)
    assert view.radius is not None
    far = separation((ra[1:], dec[1:]), (np.full(99, view.ra), np.full(99, view.dec)))
    assert far.max() < view.radius < 1.2 * far.max()
    assert sky_map.whole_view(rng.uniform(0, 360, 100), dec).radius is None
    assert sky_map.whole_view(ra[:1], dec[:1]).radius is None


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_the_lines_are_few(view):
    lines = sky_map.graticule(view)
    assert 3 < lines.count("M") < 80


def test_the_whole_sky_has_the_color_of_each_cell_and_a_scale():
    values = np.full(12 * 4**sky_map.WHOLE_SKY_ORDER, np.nan)
    values[[0, 5000]] = 2.0, 4.0
    svg = sky_map.whole_sky(values, "a <title>")
    assert "a &lt;title&gt;" in svg
    assert {">2<", ">3<", ">4<"} <= set(re.findall(r">[^<>]*<", svg))
    shown = pixels(re.findall(r'href="([^"]*)"', svg)[0])[..., :3].reshape(-1, 3)
    colors = {tuple(color) for color in shown.tolist()}
    assert {(53, 95, 141), (253, 231, 37)} <= colors
    assert len(colors) == 4


@pytest.mark.parametrize(("values", "middle"), [((1.0, 100.0), ">10<"), ((0.0, 100.0), ">50<")])
def test_a_wide_range_has_a_logarithmic_scale(values, middle):
    cells = np.full(12 * 4**sky_map.WHOLE_SKY_ORDER, np.nan)
    cells[:2] = values
    assert middle in sky_map.whole_sky(cells, "t")


def test_one_value_has_a_scale_of_one():
    cells = np.full(12 * 4**sky_map.WHOLE_SKY_ORDER, np.nan)
    cells[7] = 0.25
    assert sky_map.whole_sky(cells, "t").count(">0.25<") == 1
