import numpy as np
import pytest
import tensorflow as tf
from sklearn.svm import SVR

from gax_batch.models import svr


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(4)
    raw = (rng.normal(0, 1, (120, 256)) * rng.uniform(0.1, 3, 256) + rng.normal(0, 1, 256)).astype(np.float32)
    mean, deviation = raw.mean(axis=0), raw.std(axis=0)
    standardized = (raw - mean) / deviation
    targets = 1 / (1 + np.exp(-standardized[:, :37])) * rng.uniform(0.2, 1, 37)
    regressions = [SVR(gamma=1 / 512, C=1.0, epsilon=0.05).fit(standardized, t) for t in targets.T]
    arrays = svr.export_regressions(regressions, standardized, mean=mean, deviation=deviation)
    return raw, standardized, regressions, arrays


def test_matrix_products_agree_with_scikit_learn(fitted):
    _, _, regressions, arrays = fitted
    new = np.random.default_rng(5).normal(0, 1, (40, 256)).astype(np.float32)
    expected = np.stack(
        [r.predict((new - arrays["svr/mean"]) / arrays["svr/deviation"]) for r in regressions], axis=1
    )
    predicted, _ = svr.Regressions(arrays)(tf.constant(new))
    np.testing.assert_allclose(predicted, expected, atol=3e-6)


def test_support_vectors_are_the_union_without_repetition(fitted):
    _, _, regressions, arrays = fitted
    used = set().union(*(r.support_.tolist() for r in regressions))
    assert arrays["svr/support"].shape == (len(used), 256)
    assert arrays["svr/dual"].shape == (len(used), 37)


def test_closeness_is_one_on_a_support_vector_and_falls_with_distance(fitted):
    _, _, _, arrays = fitted
    on = arrays["svr/support"][:5] * arrays["svr/deviation"] + arrays["svr/mean"]
    away = on + 3 * arrays["svr/deviation"]
    _, near = svr.Regressions(arrays)(tf.constant(on))
    _, far = svr.Regressions(arrays)(tf.constant(away))
    np.testing.assert_allclose(near, 1, atol=1e-5)
    assert np.all(far.numpy() < 0.9)
    assert np.all(far.numpy() > 0)
