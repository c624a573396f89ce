import numpy as np
import pytest

from gax_batch.analysis.evaluation import anomalies


@pytest.fixture
def cutouts():
    return np.random.default_rng(0).integers(5, 30, (8, 64, 64, 3), dtype=np.uint8)


def test_each_kind_is_made_and_the_same_seed_makes_the_same(cutouts):
    made, again = (anomalies.anomalies(cutouts, 7, count=6) for _ in range(2))
    assert tuple(made) == anomalies.KINDS
    for kind, images in made.items():
        assert images.shape == (6, 64, 64, 3)
        assert images.dtype == np.uint8
        np.testing.assert_array_equal(images, again[kind])
    assert made["stars"][:, 31:33, 31:33].mean() > 80
    assert made["blank_sky"].max() < 30
    assert np.any(anomalies.anomalies(cutouts, 8, count=6)["noise"] != made["noise"])


def test_four_turns_are_none(cutouts):
    turned = cutouts
    for _ in range(4):
        turned = anomalies.turned(turned)
    np.testing.assert_array_equal(turned, cutouts)


def test_the_auc_is_the_share_of_right_orders():
    inside, outside = np.array([0.1, 0.2, 0.3], np.float32), np.array([0.2, 0.9], np.float32)
    assert anomalies.auc(inside, outside) == pytest.approx((1.5 + 3) / 6)
    assert anomalies.auc(inside, inside) == 0.5
