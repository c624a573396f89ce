import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import SVR

from gax_batch import gz2
from gax_batch.models import svr, uncertainty

GAMMA = 1 / 512
PAIRS = 8


@pytest.fixture(scope="module")
def fitted():
    """Regressions of all galaxies and of two complementary halves, and arrays with 8 such pairs.

    Returns:
        Features, the regressions, one pair of halves' regressions, and the arrays.
    """
    rng = np.random.default_rng(4)
    raw = (rng.normal(0, 1, (120, 256)) * rng.uniform(0.1, 3, 256) + rng.normal(0, 1, 256)).astype(np.float32)
    mean, deviation = raw.mean(axis=0), raw.std(axis=0)
    points = (raw - mean) / deviation
    targets = 1 / (1 + np.exp(-points[:, :37])) * rng.uniform(0.2, 1, 37)

    def fit(rows):
        return [SVR(gamma=GAMMA, C=1.0, epsilon=0.05).fit(points[rows], t[rows]) for t in targets.T]

    def gather(regressions, rows):
        dual = np.zeros((len(points), 37))
        for answer, regression in enumerate(regressions):
            dual[rows[regression.support_], answer] = regression.dual_coef_[0]
        return dual, np.array([r.intercept_[0] for r in regressions])

    everything, first, second = np.arange(120), np.arange(0, 120, 2), np.arange(1, 120, 2)
    whole, pair = fit(everything), (fit(first), fit(second))
    dual, intercept = gather(whole, everything)
    (d1, i1), (d2, i2) = gather(pair[0], first), gather(pair[1], second)
    # One true pair and multiples of it, so that the order of pairs can be told.
    factors = np.arange(1, PAIRS + 1)
    arrays = {
        "svr/mean": mean,
        "svr/deviation": deviation,
        "svr/support": points,
        "svr/dual": dual,
        "svr/intercept": intercept,
        "svr/gamma": np.array([GAMMA]),
        "svr/half_dual": factors[:, None, None] * (d1 - d2) / 2,
        "svr/half_intercept": factors[:, None] * (i1 - i2) / 2,
    }
    return raw, whole, pair, {name: np.asarray(values, np.float32) for name, values in arrays.items()}


@pytest.fixture(scope="module")
def new():
    return np.random.default_rng(5).normal(0, 1, (40, 256)).astype(np.float32)


def test_matrix_products_agree_with_scikit_learn(fitted, new):
    _, whole, (first, second), arrays = fitted
    points = (new - arrays["svr/mean"]) / arrays["svr/deviation"]
    expected, one, two = (
        np.stack([r.predict(points) for r in fits], axis=1) for fits in (whole, first, second)
    )
    predicted, _ = svr.Regressions(arrays)(tf.constant(new))
    assert predicted.shape == (1 + PAIRS, 40, 37)
    np.testing.assert_allclose(predicted[0], expected, atol=3e-6)
    for pair in range(PAIRS):
        np.testing.assert_allclose(predicted[1 + pair], (pair + 1) * (one - two) / 2, atol=3e-6 * (pair + 1))


def test_draws_of_the_regressions_are_both_halves_where_they_differ_most(fitted, new):
    """With the mean of the halves as the regression, the two draws of a pair are the halves themselves."""
    _, _, (first, second), arrays = fitted
    points = (new - arrays["svr/mean"]) / arrays["svr/deviation"]
    one, two = (np.stack([r.predict(points) for r in fits], axis=1) for fits in (first, second))
    raw = np.stack([(one + two) / 2, (one - two) / 2]).astype(np.float32)
    _, draws = uncertainty.svr_fractions(raw)
    np.testing.assert_allclose(draws[0], uncertainty.regression_to_fractions(one), atol=1e-5)
    np.testing.assert_allclose(draws[1], uncertainty.regression_to_fractions(two), atol=1e-5)
    assert gz2.inconsistency(draws) < 1e-5


def test_a_galaxy_that_trained_the_regressions_is_not_its_own_neighbor(fitted):
    """Item 12: it scored 1, and galaxies that trained were told from all others."""
    raw, _, _, arrays = fitted
    kernel = rbf_kernel(arrays["svr/support"], gamma=GAMMA)
    np.fill_diagonal(kernel, 0)
    _, closeness = svr.Regressions(arrays)(tf.constant(raw))
    np.testing.assert_allclose(closeness, kernel.max(axis=1), atol=1e-5)
    assert closeness.numpy().max() < 0.9


def test_a_trained_galaxy_is_as_close_as_one_that_was_left_out(fitted):
    raw, _, _, arrays = fitted
    kept = np.arange(120) != 7
    rows = {name: arrays[name][kept] for name in ("svr/support", "svr/dual")}
    without = arrays | rows | {"svr/half_dual": arrays["svr/half_dual"][:, kept]}
    (_, trained), (_, left_out) = (
        svr.Regressions(given)(tf.constant(raw[7:8])) for given in (arrays, without)
    )
    np.testing.assert_allclose(trained, left_out, atol=1e-6)


def test_closeness_falls_with_distance(fitted):
    raw, _, _, arrays = fitted
    deviation = arrays["svr/deviation"]
    steps = [raw[:5] + np.float32(step) * deviation for step in (0.1, 1, 3)]
    near, apart, far = (svr.Regressions(arrays)(tf.constant(points))[1].numpy() for points in steps)
    assert np.all(near > apart)
    assert np.all(apart > far)
    assert np.all(far > 0)
