import numpy as np
import pytest
import tensorflow as tf

from training import augmentation


@pytest.fixture
def windows():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:106, :106] - 52.5
    blob = 200 * np.exp(-np.hypot(x, 2 * y) / 9)
    return (blob[None, ..., None] * rng.uniform(0.5, 1, (16, 1, 1, 3))).astype(np.uint8)


def test_views_are_cutouts_in_the_unit_interval(windows):
    tf.random.set_seed(1)
    views = augmentation.augment(tf.constant(windows)).numpy()
    assert views.shape == (16, 64, 64, 3)
    assert views.dtype == np.float32
    assert np.all((views >= 0) & (views <= 1))


def test_the_galaxy_stays_at_the_center(windows):
    tf.random.set_seed(2)
    views = augmentation.augment(tf.constant(windows)).numpy().mean(axis=3)
    y, x = np.mgrid[:64, :64] - 31.5
    for view in views:
        center = np.array([(view * x).sum(), (view * y).sum()]) / view.sum()
        assert np.all(np.abs(center) < augmentation.SHIFT_PIXELS * 1.2)


def test_views_differ_and_follow_the_seed(windows):
    def views(seed):
        tf.random.set_seed(seed)
        return augmentation.augment(tf.constant(windows)).numpy()

    np.testing.assert_array_equal(views(3), views(3))
    assert not np.array_equal(views(3), views(4))
    one = np.repeat(windows[:1], 16, axis=0)
    tf.random.set_seed(3)
    assert len({view.tobytes() for view in augmentation.augment(tf.constant(one)).numpy()}) == 16


def test_without_randomness_the_view_is_the_cutout(windows, monkeypatch):
    for name in ("SHIFT_PIXELS", "ZOOM", "BRIGHTNESS", "COLOR"):
        monkeypatch.setattr(augmentation, name, 0.0)
    monkeypatch.setattr(
        tf.random, "uniform", lambda shape, *_: tf.ones(shape) * 0.0 + (1.0 if shape == (1,) else 0.0)
    )
    windows = np.random.default_rng(5).integers(0, 256, (2, 106, 106, 3), dtype=np.uint8)
    view = augmentation.augment(tf.constant(windows)).numpy()
    # An angle of zero and a draw of zero for the mirror: the mirror image of the window's center.
    np.testing.assert_allclose(view, windows[:, 21:85, 21:85][:, :, ::-1] / 255.0, atol=1e-5)
