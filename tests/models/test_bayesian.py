import numpy as np
import pytest
import tensorflow as tf

from gax_batch import gz2
from gax_batch.models import bayesian
from gax_batch.models.nesting import Nesting

SHAPES = [(3, 3, 3, 64), (256, 37)]
GOLDEN = [1.1362472772598267, -0.5377773642539978, -0.20164360105991364, -0.23941411077976227]


@pytest.fixture(scope="module")
def arrays():
    return bayesian.export_weights(bayesian.build(seed=3))


def test_noise_is_a_stable_stream():
    # Golden numbers: another machine or release must draw the same networks.
    first = bayesian.noise(7, 0, SHAPES)[0].ravel()[:4]
    np.testing.assert_allclose(first, GOLDEN, rtol=1e-6)


def test_noise_depends_on_seed_and_stream_only():
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


def test_weights_have_the_posteriors_moments(arrays):
    draws = np.stack([bayesian.head_kernels(arrays, 7, *divmod(k, 8))["logits"] for k in range(64)])
    standardized = (draws - arrays["logits/mean"]) / arrays["logits/deviation"]
    assert standardized.mean() == pytest.approx(0, abs=0.01)
    assert standardized.std() == pytest.approx(1, abs=0.01)


def correlation_of(kernels, arrays, name):
    mean, deviation = (arrays[f"{name}/{what}"].ravel() for what in ("mean", "deviation"))
    return np.corrcoef([(k[name].ravel() - mean) / deviation for k in kernels])


def test_passes_four_apart_are_antithetic_and_all_others_independent(arrays):
    found = correlation_of([bayesian.pass_kernels(arrays, 7, k) for k in range(16)], arrays, "block_1")
    expected = np.eye(16)
    for k in [*range(4), *range(8, 12)]:
        expected[k, k + 4] = expected[k + 4, k] = -1
    # 73,728 weights: the correlation of independent ones has a standard deviation of 0.004.
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_heads_in_turn_are_antithetic_and_new_for_each_pass(arrays):
    kernels = [bayesian.head_kernels(arrays, 7, *divmod(k, 4)) for k in range(12)]
    expected = np.kron(np.eye(6), [[1, -1], [-1, 1]])
    np.testing.assert_allclose(correlation_of(kernels, arrays, "hidden"), expected, atol=0.02)


def test_a_set_of_passes_sees_all_orientations_and_antithetic_ones_are_turned_by_180_degrees():
    found = [bayesian.orientation(number) for number in range(16)]
    assert sorted(found[:8]) == sorted(found[8:]) == list(range(8))
    kernel = np.random.default_rng(0).random((3, 3, 3, 64), np.float32)
    for number in range(4):
        turned = [bayesian.layers.turned_back(kernel, found[k]) for k in (number, number + 4)]
        np.testing.assert_array_equal(turned[0][::-1, ::-1], turned[1])


def test_of_what_is_linear_in_the_weights_a_set_has_the_mean_exactly(arrays):
    x = np.random.default_rng(0).random(256, np.float32)
    linear = [x @ bayesian.head_kernels(arrays, 7, *divmod(k, 8))["logits"] for k in range(64)]
    np.testing.assert_allclose(np.mean(linear, axis=0), x @ arrays["logits/mean"], atol=1e-5)
    assert np.std(linear, axis=0).min() > 1e-3


def predict(arrays, images, nesting, **options):
    return bayesian.Predictor(arrays, tf.float32, seed=7, nesting=nesting, **options)(images).numpy()


def test_fewer_draws_are_the_first_ones_and_all_are_consistent(arrays):
    images = tf.constant(np.random.default_rng(0).random((2, 64, 64, 3), np.float32))
    two, three, ten = (predict(arrays, images, Nesting.of(draws, 8)) for draws in (2, 3, 10))
    np.testing.assert_array_equal(three[:2], two)
    np.testing.assert_allclose(ten[:3], three, atol=1e-6)
    assert gz2.inconsistency(ten) < 1e-5
    assert (np.abs(np.diff(ten, axis=0)).max(axis=(1, 2)) > 0).all()


def test_a_later_stage_is_the_rest_of_all_draws(arrays):
    images = tf.constant(np.random.default_rng(0).random((2, 64, 64, 3), np.float32))
    nesting = Nesting(24, 1)
    rest = predict(arrays, images, nesting, first=8)
    np.testing.assert_array_equal(predict(arrays, images, nesting)[8:], rest)


def test_a_draw_is_the_network_of_its_pass_and_head(arrays):
    images = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    nesting = Nesting.of(20, 8)
    draws = predict(arrays, tf.constant(images), nesting)
    number, head = nesting.place(13)
    assert (number, head) == (5, 1)
    kernels = bayesian.pass_kernels(arrays, 7, number) | bayesian.head_kernels(arrays, 7, number, head)
    # Pass 5 sees orientation 1, turned by 180 degrees and mirrored as `turned_back` says.
    turned = np.rot90(images, bayesian.orientation(number) % 4, axes=(1, 2))
    turned = turned[:, :, ::-1] if bayesian.orientation(number) >= 4 else turned
    x = bayesian.layers.trunk(turned, [kernels[n] for n in bayesian.CONVOLUTIONS], arrays, "SAME")
    x = tf.nn.relu(x @ kernels["hidden"] + arrays["hidden/bias"])
    expected = bayesian.layers.cumulative_probabilities(x @ kernels["logits"] + arrays["logits/bias"])
    np.testing.assert_allclose(draws[13], expected, atol=1e-5)


def test_without_deviation_a_draw_is_the_trained_network(arrays):
    network = bayesian.build(seed=3)
    for name in bayesian.KERNELS:
        layer = network.get_layer(name)
        layer.kernel_posterior.distribution.scale.pretransformed_input.assign(
            tf.fill(layer.kernel_posterior.distribution.loc.shape, -40.0)
        )
    images = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    expected = bayesian.layers.cumulative_probabilities(network(images, training=False))
    sharp = bayesian.Predictor(bayesian.export_weights(network), tf.float32, seed=7, nesting=Nesting(1, 1))
    np.testing.assert_allclose(sharp(tf.constant(images))[0], expected, atol=1e-5)
