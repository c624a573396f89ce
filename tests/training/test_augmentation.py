import numpy as np
import pytest
import tensorflow as tf

from training import augmentation

SEED = tf.constant([7, 1])


@pytest.fixture
def windows():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:106, :106] - 52.5
    blob = 200 * np.exp(-np.hypot(x, 2 * y) / 9)
    return (blob[None, ..., None] * rng.uniform(0.5, 1, (16, 1, 1, 3))).astype(np.uint8)


def test_views_are_cutouts_in_the_unit_interval(windows):
    views = augmentation.augment(tf.constant(windows), 64, SEED).numpy()
    assert views.shape == (16, 64, 64, 3)
    assert views.dtype == np.float32
    assert np.all((views >= 0) & (views <= 1))


def test_the_galaxy_stays_at_the_center(windows):
    views = augmentation.augment(tf.constant(windows), 64, SEED).numpy().mean(axis=3)
    y, x = np.mgrid[:64, :64] - 31.5
    for view in views:
        center = np.array([(view * x).sum(), (view * y).sum()]) / view.sum()
        assert np.all(np.abs(center) < augmentation.SHIFT_PIXELS * 1.35)


def test_views_differ_and_follow_the_seed(windows):
    def views(seed):
        return augmentation.augment(tf.constant(windows), 64, tf.constant([7, seed])).numpy()

    np.testing.assert_array_equal(views(3), views(3))
    assert not np.array_equal(views(3), views(4))
    one = np.repeat(windows[:1], 16, axis=0)
    assert len({view.tobytes() for view in augmentation.augment(tf.constant(one), 64, SEED).numpy()}) == 16


@pytest.fixture
def still(monkeypatch):
    """No shift, zoom or color, an angle of zero, and no mirror image."""
    for name in ("SHIFT_PIXELS", "ZOOM", "BRIGHTNESS", "COLOR"):
        monkeypatch.setattr(augmentation, name, 0.0)

    def uniform(shape, _seed, low=None, high=None):
        return tf.zeros(shape) if low is not None else tf.ones(shape)

    monkeypatch.setattr(tf.random, "stateless_uniform", uniform)


def test_without_randomness_the_view_is_the_cutout(still):
    windows = np.random.default_rng(5).integers(0, 256, (2, 106, 106, 3), dtype=np.uint8)
    view = augmentation.augment(tf.constant(windows), 64, SEED).numpy()
    np.testing.assert_allclose(view, windows[:, 21:85, 21:85] / 255.0, atol=1e-5)


def test_half_the_resolution_shows_the_same_sky(still):
    windows = np.random.default_rng(5).integers(0, 256, (2, 106, 106, 3), dtype=np.uint8)
    pixels = augmentation.half(tf.constant(windows))
    view = augmentation.augment(pixels, 32, SEED, field=64.0).numpy()
    # The window's middle lies on the border of two of its 53 halved pixels' centers: means of four.
    means = windows.reshape(2, 53, 2, 53, 2, 3).mean(axis=(2, 4)) / 255.0
    expected = sum(means[:, a : a + 32, b : b + 32] for a in (10, 11) for b in (10, 11)) / 4
    np.testing.assert_allclose(view, expected, atol=1e-5)
