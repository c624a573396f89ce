import numpy as np
import pytest
from scipy.special import gammaincinv, kn

from gax_batch.simulate import profiles

INDICES = np.array([1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


def grid(side: int = 512) -> tuple[np.ndarray, np.ndarray]:
    pixels = (np.arange(side) - (side - 1) / 2).astype(np.float32)
    y, x = np.meshgrid(pixels, pixels, indexing="ij")
    return x[None], y[None]


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None, None]


def test_b_n_is_the_median_of_the_gamma_distribution() -> None:
    np.testing.assert_allclose(profiles.sersic_b(INDICES), gammaincinv(2 * INDICES, 0.5), atol=5e-5)


@pytest.mark.parametrize("n", INDICES)
def test_half_the_light_of_a_sersic_profile_is_within_its_half_light_radius(n: float) -> None:
    assert profiles.sersic_enclosed(1.0, n) == pytest.approx(0.5, abs=2e-5)
    x, y = grid()
    radius_squared = x**2 + (y / np.float32(0.6)) ** 2
    light = profiles.sersic(radius_squared, column(n), column(30.0), column(0.6))
    # What the central pixels hold is under-sampled here: compare a ring, against the closed form.
    ring = (radius_squared > 20**2) & (radius_squared <= 60**2)
    expected = profiles.sersic_enclosed(2.0, n) - profiles.sersic_enclosed(2 / 3, n)
    assert light[ring].sum() == pytest.approx(expected, rel=0.01)


def test_the_radius_of_bulge_and_disk_encloses_the_fraction_asked_for() -> None:
    share, n, ratio = (
        np.array([0.0, 0.3, 0.7, 1.0]),
        np.array([2.0, 4.0, 1.0, 5.0]),
        np.array([0.2, 0.3, 0.5, 0.4]),
    )
    radius = profiles.enclosing_radius(0.5, share, n, ratio)
    inside = share * profiles.sersic_enclosed(radius / ratio, n) + (1 - share) * profiles.sersic_enclosed(
        radius, 1.0
    )
    np.testing.assert_allclose(inside, 0.5, atol=3e-5)
    np.testing.assert_allclose(radius[[0, 3]], [1.0, 0.4], rtol=2e-5)


def test_disks_bars_and_rings_have_a_total_of_one() -> None:
    x, y = grid()
    y = y / np.float32(0.5)
    radius = np.hypot(x, y)
    ratio = column(0.5)
    for light in (
        profiles.exponential(radius, column(20.0), ratio),
        profiles.bar(x, y, column(40.0), column(15.0), ratio),
        profiles.ring(radius, column(60.0), column(8.0), ratio),
    ):
        assert light.sum() == pytest.approx(1, abs=0.01)


def test_an_edge_on_disk_is_a_projected_exponential_of_total_one() -> None:
    x, y = grid()
    light = profiles.edge_on_disk(x, y, column(25.0), column(4.0))
    assert light.sum() == pytest.approx(1, abs=0.01)
    scale = 25 / profiles.EXPONENTIAL_RADIUS
    u = np.abs(x[0, 0]) / scale
    expected = u * kn(1, u) / (np.pi * scale)
    np.testing.assert_allclose(light.sum(axis=(0, 1)), expected, atol=0.03 * expected.max())
    across = light.sum(axis=(0, 2))
    np.testing.assert_allclose(across, 1 / np.cosh(y[0, :, 0].astype(float) / 4) ** 2 / 8, atol=0.002)


@pytest.mark.parametrize("n_arms", [1, 2, 3, 6])
@pytest.mark.parametrize("pitch", [12.0, -25.0])
def test_spiral_arms_are_logarithmic_with_their_number_and_pitch(n_arms: int, pitch: float) -> None:
    angle = np.linspace(0, 2 * np.pi, 720, endpoint=False)

    def around(radius: float) -> np.ndarray:
        x = (radius * np.cos(angle)).astype(np.float32)[None, None]
        y = (radius * np.sin(angle)).astype(np.float32)[None, None]
        arms = np.array([n_arms])
        return profiles.spiral_contrast(
            x, y, np.hypot(x, y), arms, np.radians(column(pitch)), column(0.0), column(2.5)
        )[0, 0]

    inner, outer = around(5.0), around(6.0)
    crests = (inner > np.roll(inner, 1)) & (inner >= np.roll(inner, -1))
    assert crests.sum() == n_arms
    assert inner.mean() == pytest.approx(1, abs=1e-3)
    # Along a crest, dr / (r d theta) is the tangent of the pitch angle.
    turn = (
        np.angle(np.sum(outer * np.exp(1j * n_arms * angle)) / np.sum(inner * np.exp(1j * n_arms * angle)))
        / n_arms
    )
    wanted = np.log(6 / 5) / np.tan(np.radians(pitch))
    period = 2 * np.pi / n_arms
    assert (turn - wanted + period / 2) % period - period / 2 == pytest.approx(0, abs=1e-3)
