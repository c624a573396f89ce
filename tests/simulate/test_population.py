import numpy as np
import pytest

from gax_batch.simulate import profiles
from gax_batch.simulate.population import Kind, Population, draw_population


@pytest.fixture(scope="module")
def drawn() -> Population:
    return draw_population(np.random.default_rng(4), 5000)


def test_values_are_finite_float32_in_their_ranges(drawn: Population) -> None:
    for name, values in vars(drawn).items():
        assert values.shape == (5000,)
        assert np.isfinite(values).all(), name
        assert values.dtype == (np.int64 if name in ("kind", "n_arms") else np.float32), name
    assert set(np.unique(drawn.kind)) == set(Kind)
    for share in (drawn.bulge_fraction, drawn.axis_ratio, drawn.bulge_axis_ratio, drawn.young_fraction):
        assert share.min() >= 0
        assert share.max() <= 1
    assert drawn.sersic_n.min() >= 1
    assert drawn.sersic_n.max() <= 6
    assert drawn.magnitude.min() >= 13
    assert drawn.magnitude.max() <= 17


def test_the_half_light_radius_is_that_of_bulge_and_disk(drawn: Population) -> None:
    radius = drawn.half_light_radius
    bulge = profiles.sersic_enclosed(radius / drawn.bulge_radius, drawn.sersic_n)
    disk = profiles.sersic_enclosed(radius / drawn.disk_radius, 1.0)
    inside = drawn.bulge_fraction * bulge + (1 - drawn.bulge_fraction) * disk
    np.testing.assert_allclose(inside, 0.5, atol=1e-4)


def test_edge_on_disks_have_no_arms_and_only_disks_have_decoration(drawn: Population) -> None:
    assert not drawn.n_arms[drawn.edge_on].any()
    decoration = (drawn.n_arms, drawn.bar_strength, drawn.ring_strength, drawn.dust, drawn.boxiness)
    for values in decoration:
        assert values.any()
        assert not values[drawn.kind != Kind.DISK].any()
    assert not drawn.dust[~drawn.edge_on].any()


def test_take_and_followed_by_keep_rows_together(drawn: Population) -> None:
    first, last = drawn.take(np.arange(3)), drawn.take(np.arange(4990, 5000))
    both = first.followed_by(last)
    assert len(both) == 13
    np.testing.assert_array_equal(both.x, np.concatenate([drawn.x[:3], drawn.x[4990:]]))
