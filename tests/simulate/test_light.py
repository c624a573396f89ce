from collections.abc import Callable

import numpy as np
import pytest

from gax_batch.simulate import light, profiles
from gax_batch.simulate.population import Population, draw_population

Build = Callable[..., Population]


def paint(population: Population) -> np.ndarray:
    return light.planes(population, np.random.default_rng(3))


def moments(image: np.ndarray) -> tuple[float, float, float]:
    """Column and row of the centroid, and the direction of elongation in degrees from north through east."""
    pixels = np.arange(light.SIDE)
    x, y = (image.sum(axis=a) @ pixels / image.sum() for a in (0, 1))
    dx, dy = pixels - x, pixels - y
    east, north = -dx[None, :], -dy[:, None]
    xx, yy, xy = ((image * m).sum() for m in (north**2, east**2, north * east))
    return x, y, np.degrees(0.5 * np.arctan2(2 * xy, xx - yy)) % 180


@pytest.mark.parametrize("n", [1.0, 2.5, 4.0, 6.0])
@pytest.mark.parametrize("x", [31.0, 31.5, 31.8])
def test_a_bulge_has_its_flux_and_half_light_radius_on_the_pixels(galaxy: Build, n: float, x: float) -> None:
    population = galaxy(bulge_fraction=1, sersic_n=n, bulge_radius=5, bulge_axis_ratio=0.7, x=x)
    image = paint(population)[0].sum(axis=0)
    pixels = np.arange(light.SIDE, dtype=np.float32)
    along, across = light.coordinates(population, pixels, pixels)
    radius = np.hypot(along, across / 0.7)[0]
    for limit in (1.0, 3.0):
        # A pixel on the edge counts as far as it lies inside.
        inside = np.clip(limit * 5 - radius + 0.5, 0, 1)
        assert (image * inside).sum() == pytest.approx(profiles.sersic_enclosed(limit, n), abs=0.02)


@pytest.mark.parametrize("angle", [0.0, 40.0, 90.0, 150.0])
@pytest.mark.parametrize("tilt", [0.4, 0.1])
def test_the_position_angle_is_from_north_through_east(galaxy: Build, angle: float, tilt: float) -> None:
    population = galaxy(
        axis_ratio=0.4, bulge_axis_ratio=0.4, cos_inclination=tilt, position_angle=angle, x=30, y=33
    )
    x, y, measured = moments(paint(population)[0].sum(axis=0))
    assert (x, y) == (pytest.approx(30, abs=0.3), pytest.approx(33, abs=0.3))
    assert (measured - angle + 90) % 180 - 90 == pytest.approx(0, abs=1)


@pytest.mark.parametrize(
    "feature",
    [
        {},
        {"bulge_fraction": 0.4},
        {"bar_strength": 0.3, "bulge_fraction": 0.2},
        {"ring_strength": 0.4},
        {"n_arms": 2, "pitch_angle": 20, "arm_strength": 0.8, "flocculence": 0.1, "young_fraction": 0.6},
        {"cos_inclination": 0.1},
    ],
)
def test_every_feature_conserves_the_galaxys_flux(galaxy: Build, feature: dict[str, float]) -> None:
    population = galaxy(**feature)
    assert paint(population).sum() == pytest.approx(1, abs=0.06)


def test_a_companion_adds_its_share_at_its_place(galaxy: Build) -> None:
    alone = paint(galaxy())[0].sum(axis=0)
    population = galaxy(merger_ratio=0.5, merger_distance=12, merger_angle=0, disk_radius=3)
    both = paint(population)[0].sum(axis=0)
    assert both.sum() == pytest.approx(1.5, abs=0.05)
    assert moments(both)[0] == pytest.approx(31.5 + 12 / 3, abs=0.3)
    assert moments(alone)[0] == pytest.approx(31.5, abs=0.01)


def test_a_dust_lane_darkens_the_plane_and_reddens_it(galaxy: Build) -> None:
    side = {"cos_inclination": 0.05, "disk_height": 2, "young_fraction": 0.5, "position_angle": 90}
    clear, dusty = paint(galaxy(**side))[0], paint(galaxy(**side, dust=2))[0]
    transmitted = dusty[:, 32, 32] / clear[:, 32, 32]
    assert (transmitted < 0.5).all()
    assert transmitted[light.YOUNG] < transmitted[light.OLD]
    np.testing.assert_allclose(dusty[:, 50, 32], clear[:, 50, 32], rtol=0.01)


def test_light_is_finite_and_never_negative() -> None:
    image = paint(draw_population(np.random.default_rng(9), 512))
    assert image.dtype == np.float32
    assert np.isfinite(image).all()
    assert image.min() >= 0
