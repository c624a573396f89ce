import numpy as np
import pytest
import tensorflow as tf

from gax_batch import gz2
from gax_batch.models import bayesian

SHAPES = [(3, 3, 3, 64), (256, 37)]
GOLDEN = [1.1362472772598267, -0.5377773642539978, -0.20164360105991364, -0.23941411077976227]


@pytest.fixture(scope="module")
def arrays():
    return bayesian.export_weights(bayesian.build(seed=3))


def test_noise_is_a_stable_stream():
    # Golden numbers: another machine or release must draw the same networks.
    first = bayesian.noise(7, 0, SHAPES)[0].ravel()[:4]
    np.testing.assert_allclose(first, GOLDEN, rtol=1e-6)


def test_noise_depends_on_seed_and_draw_only():
    assert [part.shape for part in bayesian.noise(7, 0, SHAPES)] == SHAPES
    same, again = bayesian.noise(7, 3, SHAPES)[1], bayesian.noise(7, 3, SHAPES)[1]
    np.testing.assert_array_equal(same, again)
    for other in (bayesian.noise(7, 4, SHAPES)[1], bayesian.noise(8, 3, SHAPES)[1]):
        assert abs(np.corrcoef(same.ravel(), other.ravel())[0, 1]) < 0.05


def test_noise_is_standard_normal():
    values = bayesian.noise(1, 0, [(200_000,)])[0].astype(np.float64)
    assert np.isfinite(values).all()
    assert values.mean() == pytest.approx(0, abs=0.01)
    assert values.std() == pytest.approx(1, abs=0.01)
    assert np.mean(np.abs(values) > 1.96) == pytest.approx(0.05, abs=0.003)


def test_draws_have_the_posteriors_moments(arrays):
    draws = np.stack([bayesian.draw_kernels(arrays, 7, k)["logits"] for k in range(64)])
    standardized = (draws - arrays["logits/mean"]) / arrays["logits/deviation"]
    assert standardized.mean() == pytest.approx(0, abs=0.01)
    assert standardized.std() == pytest.approx(1, abs=0.01)


def test_draws_eight_apart_are_antithetic_and_all_others_independent(arrays):
    draws = np.stack([bayesian.draw_kernels(arrays, 7, k)["hidden"].ravel() for k in range(32)])
    standardized = (draws - arrays["hidden/mean"].ravel()) / arrays["hidden/deviation"].ravel()
    expected = np.eye(32)
    for k in [*range(8), *range(16, 24)]:
        expected[k, k + 8] = expected[k + 8, k] = -1
    # 65,536 weights: the correlation of independent ones has a standard deviation of 0.004.
    np.testing.assert_allclose(np.corrcoef(standardized), expected, atol=0.02)


def test_of_what_is_linear_in_the_weights_sixteen_draws_have_the_mean_exactly(arrays):
    x = np.random.default_rng(0).random(256, np.float32)
    linear = [x @ bayesian.draw_kernels(arrays, 7, k)["logits"] for k in range(16)]
    np.testing.assert_allclose(np.mean(linear, axis=0), x @ arrays["logits/mean"], atol=1e-5)
    assert np.std(linear, axis=0).min() > 1e-3


def test_fewer_draws_are_the_first_ones_and_all_are_consistent(arrays):
    images = tf.constant(np.random.default_rng(0).random((2, 64, 64, 3), np.float32))
    two = bayesian.Predictor(arrays, tf.float32, seed=7, draws=range(2))(images).numpy()
    three = bayesian.Predictor(arrays, tf.float32, seed=7, draws=range(3))(images).numpy()
    np.testing.assert_array_equal(three[:2], two)
    assert gz2.inconsistency(three) < 1e-5
    assert np.any(three[2] != three[1])


@pytest.mark.parametrize(
    ("draws", "lengths"), [(32, [32]), (64, [32, 32]), (80, [32, 32, 16]), (256, [32, 32, 64, 128])]
)
def test_stages_are_whole_sets_each_as_many_as_before(draws, lengths):
    found = bayesian.stages(draws)
    assert [len(stage) for stage in found] == lengths
    assert [k for stage in found for k in stage] == list(range(draws))


def test_the_monte_carlo_error_is_that_of_independent_pairs():
    rng = np.random.default_rng(0)
    # From pair to pair 0.02, which counts; from draw to mirrored draw and by orientation 0.1, which do not.
    pairs, mirrored = rng.normal(0, 0.02, (64, 1, 8, 500)), rng.normal(0, 0.1, (64, 1, 8, 500))
    pairs += rng.normal(0, 0.1, (1, 1, 8, 500))
    draws = np.concatenate([pairs + mirrored, pairs - mirrored], axis=1).reshape(1024, 500)
    wide = np.zeros((1024, 500, 37), np.float32)
    wide[:, :, 5] = 0.5 + draws
    # 512 pairs: their deviation is known to 3 % for each of the 500.
    np.testing.assert_allclose(bayesian.monte_carlo_error(wide), 0.02 / np.sqrt(512), rtol=0.12)


def test_without_deviation_a_draw_is_the_trained_network(arrays):
    network = bayesian.build(seed=3)
    for name in bayesian.KERNELS:
        layer = network.get_layer(name)
        layer.kernel_posterior.distribution.scale.pretransformed_input.assign(
            tf.fill(layer.kernel_posterior.distribution.loc.shape, -40.0)
        )
    images = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    expected = bayesian.layers.cumulative_probabilities(network(images, training=False))
    sharp = bayesian.Predictor(bayesian.export_weights(network), tf.float32, seed=7, draws=range(1))
    np.testing.assert_allclose(sharp(tf.constant(images))[0], expected, atol=1e-5)
